"""Who waits for what, as acquiring and the waiting list both see it.

A start takes nothing that a ticket waits for: whatever gets free is offered to the tickets first.
Only tickets count that somebody will serve: whose hub's service has been heard of lately, and which
nothing blocks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jupyterhub_migspawner.broker.base import SILENT, BrokerBase
from jupyterhub_migspawner.leases import events, seats, tickets, wholes
from jupyterhub_migspawner.leases.rows import RequestRow, TicketRow
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy import queue
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier


@dataclass(frozen=True)
class Ahead:
    """Whom a start finds waiting for the same: how many others, and its own person's ticket.

    ``seats`` are those of the others that wait for the very same, not for something like it.
    """

    others: int = 0
    mine: TicketRow | None = None
    seats: int = 0


class Waits(BrokerBase):
    """What is waited for."""

    def _ahead(self, waiting: Iterable[TicketRow], person: Person, tier: Tier) -> Ahead:
        others, mine, seats_too = 0, None, 0
        for ticket in waiting:
            if ticket.user == person.name:
                # Their own, at another hub too, keeps nobody from starting.
                if ticket.hub == self.hub and ticket.tier == tier.name:
                    mine = ticket
            elif not ticket.blocked and self._competes(ticket, tier):
                others += 1
                seats_too += queue.pool_of(tier) in self._pools(ticket)
        return Ahead(others, mine, seats_too)

    def _competes(self, ticket: TicketRow, tier: Tier) -> bool:
        """Whether a ticket waits for what a start in this tier would take: a slice of that size,
        whether for one or for several, or a card.
        """
        kind = queue.hardware_of(queue.pool_of(tier))
        return any(queue.hardware_of(pool) == kind for pool in self._pools(ticket))

    def _takes_nobodys(
        self, tx: Transaction, tier: Tier, grant: RequestRow | None, now: datetime, ahead: Ahead
    ) -> bool:
        """Whether a start takes what nobody who waits could be given: the card that is kept for its
        grant, or a seat on a slice that is shared already, for which nobody waits.
        """
        silent_before = self._silent_before(now)
        if grant is not None:
            return wholes.is_kept(tx, silent_before, grant.id, mig_off=tier.mig_off)
        if not tier.shares or ahead.seats:
            return False
        return bool(seats.offers(tx, tier.name, tier.profile, tier.seats, silent_before, None))

    def _served(self, tx: Transaction, now: datetime) -> tuple[TicketRow, ...]:
        """The tickets that wait and that some service looks after, blocked ones too."""
        return tickets.served(tx, now - SILENT)

    def _pools(self, ticket: TicketRow) -> tuple[str, ...]:
        """What a ticket may be served from, best first."""
        known = (self.settings.tier(name) for name in ticket.tiers)
        return tuple(dict.fromkeys(queue.pool_of(tier) for tier in known if tier is not None))

    def _room(self, tx: Transaction, tier: Tier, now: datetime) -> int:
        """How many more leases of a tier can be given out, whoever they are for."""
        if tier.is_none:
            return 0
        count = self._count(tx, now)
        if tier.is_whole:
            return count.whole(mig_off=tier.mig_off)[0]
        return count.seats(tier.name, tier.profile, tier.seats)[0]


def close_ticket(
    tx: Transaction, ticket: TicketRow, state: str, why: str, now: datetime, actor: str = ""
) -> bool:
    """End a ticket that waits or is offered something; False when it has ended already."""
    ended = {"state": state, "ended_at": now, "end_reason": why, "blocked": ""}
    if not tickets.change(tx, ticket.id, ticket.state, **ended):
        return False
    ticket_event(tx, ticket, now, actor or ticket.user, f"ticket.{state}", why=why)
    return True


def ticket_event(
    tx: Transaction, ticket: TicketRow, now: datetime, actor: str, kind: str, **detail: Any
) -> None:
    """An event about a ticket."""
    values = {"hub": ticket.hub, "server": ticket.server, "tier": ticket.tier, **detail}
    events.append(tx, now, actor, kind, user=ticket.user, ticket=ticket.id, **values)
