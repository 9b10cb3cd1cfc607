"""Who waits for what, as acquiring and the waiting list both see it.

A start takes nothing that a ticket waits for: what becomes free is offered to the tickets first.
Only tickets count that a service will serve: whose hub's service has been heard of lately, and
which nothing blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from jupyterhub_migspawner.broker.capacity import stock
from jupyterhub_migspawner.broker.context import SILENT, Context
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import MIG_OFF, CardKind, Kinds
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy import queue
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.queue import Pool
from jupyterhub_migspawner.policy.supply import Ahead
from jupyterhub_migspawner.policy.tiers import Tier


@dataclass(frozen=True)
class Line:
    """All that is waited for: the tickets that some service looks after, blocked ones too.

    ``known`` are the kinds of cards there are and ``of_cards`` that of each card by UUID, both
    empty where no tier asks for certain cards.
    """

    tickets: tuple[TicketRow, ...] = ()
    known: Kinds = frozenset()
    of_cards: Mapping[str, CardKind] = field(default_factory=dict)

    def pool_of(self, lease: LeaseRow, tier: Tier) -> Pool:
        """Return what a lease has taken from: no more than the kind of its card."""
        pool = queue.pool_of(tier, self.known)
        kind = self.of_cards.get(lease.card_uuid)
        return pool if kind is None else replace(pool, kinds=frozenset((kind,)))


class WaitingList:
    """What is waited for."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def line(self, tx: Transaction, now: datetime) -> Line:
        """Return who waits now."""
        known = self._context.known_kinds(tx)
        return Line(self.served(tx, now), known, queries.cards.kinds_by_card(tx) if known else {})

    def ahead(
        self, waiting: Iterable[TicketRow], person: Person, tier: Tier, known: Kinds
    ) -> tuple[Ahead, TicketRow | None]:
        """Return who is ahead of a person in what a tier gives, and the person's own ticket."""
        others, mine, seats_too = 0, None, 0
        wanted: dict[Pool, None] = {}
        pool = queue.pool_of(tier, known)
        for ticket in waiting:
            if ticket.user == person.name:
                # Their own, at another hub too, keeps nobody from starting.
                if ticket.hub == self._context.hub and ticket.tier == tier.name:
                    mine = ticket
            elif not ticket.blocked and self.competes(ticket, pool, known):
                others += 1
                pools = self.pools(ticket, known)
                seats_too += any(pool.is_line_of(other) for other in pools)
                wanted |= dict.fromkeys(pools)
        return Ahead(others, seats_too, tuple(wanted)), mine

    def competes(self, ticket: TicketRow, pool: Pool, known: Kinds) -> bool:
        """Tell whether a ticket waits for what is taken from a pool, on cards of the same kind.

        That is a slice of that size, whether for one or for several, or a card.
        """
        return any(pool.overlaps(other) for other in self.pools(ticket, known))

    def still_gives(self, tx: Transaction, lease: LeaseRow) -> bool:
        """Tell whether a lease's tier, as it stands at this hub now, gives what the lease has."""
        tier = self._context.settings.tier(lease.tier)
        if tier is None or tier.is_none:
            return False
        if self._context.settings.only_node not in ("", lease.node):
            return False
        if tier.card is not None:
            card = queries.cards.by_uuid(tx, lease.card_uuid)
            if card is None or not tier.means(card.row.kind):
                return False
        if tier.is_whole:
            return lease.whole and tier.mig_off == ((lease.profile, lease.start) == MIG_OFF)
        if lease.profile != tier.profile:
            return False
        # A seat beside others is not a slice of one's own.
        return tier.shares or not any(
            each.slice_id == lease.slice_id and each.id != lease.id
            for each in queries.leases.select(tx, card_uuid=lease.card_uuid)
        )

    def served(self, tx: Transaction, now: datetime) -> tuple[TicketRow, ...]:
        """Return the tickets that wait and that some service looks after, blocked ones too."""
        return queries.tickets.served(tx, now - SILENT)

    def pools(self, ticket: TicketRow, known: Kinds) -> tuple[Pool, ...]:
        """Return what a ticket may be served from, best first; ``known`` are the kinds of cards."""
        tiers = (self._context.settings.tier(name) for name in ticket.tiers)
        found = (queue.pool_of(tier, known) for tier in tiers if tier is not None)
        return tuple(dict.fromkeys(found))

    def room(self, tx: Transaction, tier: Tier, now: datetime, known: Kinds) -> int:
        """Return how many more leases of a tier can be given out, for any user."""
        only_node = self._context.settings.only_node or None
        return stock(self._context.count(tx, now), tier, tier.kinds(known), node=only_node)[0]
