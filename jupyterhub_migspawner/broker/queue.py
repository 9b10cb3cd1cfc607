"""The waiting list as its people see it: tickets, their positions, and how long the wait is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.admission import Admission, Reader, refusal_of
from jupyterhub_migspawner.broker.checks import NAME_LIMIT, REASON_LIMIT, text, wanted_name
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.offers import Offers
from jupyterhub_migspawner.broker.recorder import ticket_event
from jupyterhub_migspawner.broker.sessions import Sessions
from jupyterhub_migspawner.broker.statuses import TicketStatus
from jupyterhub_migspawner.broker.tickets import (
    cancel_ticket,
    held_for,
    known_ticket,
    missing_ticket,
)
from jupyterhub_migspawner.broker.waiting_list import WaitingList
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.cards import CardKind
from jupyterhub_migspawner.model.leases import PENDING, LeaseRow
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.tickets import OPEN, WAITING, TicketRow
from jupyterhub_migspawner.policy import queue, tiers
from jupyterhub_migspawner.policy.admission import Admit, Ask, Deny, decide
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.queue import Occupied, Waiting
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import quoted

MOST_TICKETS = 5
"""Places one person may have at a time."""


@dataclass(frozen=True)
class Taken:
    """A live lease, when it ends if nobody uses it, and of which kind its card is."""

    lease: LeaseRow
    idle_end: datetime | None
    kind: CardKind


def none_larger(tier: Tier) -> str:
    """Return the sentence for a ticket that would take a larger tier, where there is none."""
    if tier.is_whole:
        why = "nothing is larger than a whole card"
    elif tier.approval:
        why = "a grant is for one tier only"
    elif tier.card is not None:
        why = f"no larger tier that you may use is only on cards {tier.card.words}"
    else:
        why = "no larger tier is open to you"
    return (
        f"There is no tier larger than {quoted(tier.title)} to wait for: {why}. Wait only for "
        "this tier."
    )


class Queue:
    """Use cases of people who wait."""

    def __init__(
        self,
        context: Context,
        admission: Admission,
        offers: Offers,
        sessions: Sessions,
        waiting_list: WaitingList,
    ) -> None:
        self._context = context
        self._admission = admission
        self._offers = offers
        self._sessions = sessions
        self._waiting_list = waiting_list

    def join(
        self,
        person: Person,
        tier_name: str,
        *,
        server: str = "",
        start: bool = False,
        upward: bool = False,
        existing: bool = False,
        other_servers: int | None = None,
        stopping: Collection[str] = (),
    ) -> TicketRow:
        """Join the waiting list for a tier, for one server (the default one unless named).

        ``start`` has the hub start that server when it is the ticket's turn; ``upward`` takes any
        larger tier too that is free first, and is refused where there is none. ``existing`` says
        that the hub has that server already, whose name may then be one that a new server would not
        get. ``other_servers`` and ``stopping`` are as in :meth:`.acquisition.Acquisition.acquire`.
        Joining again for the same tier changes these and keeps the position.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``options``, ``not-allowed``,
        ``approval``, ``quota``, or ``conflict`` when there is nothing to wait for.
        """
        text("user name", person.name, NAME_LIMIT, empty=False)
        text("server name", server, NAME_LIMIT)
        why_not = self._context.settings.server_names.why_not(server, existing=existing)
        if why_not:
            raise Refusal(why_not, reason="options")
        asked = {"tier": "" if tier_name is None else tier_name}
        tier = tiers.choose_tier(self._context.settings.tiers, person, asked)
        if tier.is_none:
            raise Refusal(
                f"Tier {quoted(tier.title)} has no GPU and is always available; start your "
                "server with it.",
                reason="conflict",
            )
        mine = tiers.open_tiers(self._context.settings.tiers, person)

        def work(tx: Transaction) -> TicketRow:
            now = self._context.now()
            will_do = queue.upward(tier, mine, self._context.known_kinds(tx)) if upward else (tier,)
            if upward and len(will_do) == 1:
                raise Refusal(none_larger(tier), reason="options")
            choices = {
                "server": server,
                "start": bool(start),
                "tiers": [each.name for each in will_do],
            }
            self._context.count_action(tx, person, now)
            tx.queue_for(f"person {person.name}")
            have = queries.tickets.open_of_user(tx, self._context.hub, person.name)
            for ticket in have:
                if ticket.tier == tier.name:
                    return self._rewritten(tx, ticket, choices, now)
            ask = Ask(
                person=person,
                tier=tier,
                now=now,
                server=server,
                only_node=self._context.settings.only_node or None,
                other_servers=other_servers,
                stopping=frozenset(stopping),
            )
            self._demand_reason_to_wait(self._admission.reader(tx, person, now), ask)
            if len(have) >= MOST_TICKETS:
                raise Refusal(
                    f"You are already waiting for {len(have)} tiers; leave one of them first.",
                    reason="conflict",
                )
            ticket_id = queries.tickets.insert(
                tx,
                hub=self._context.hub,
                username=person.name,
                tier=tier.name,
                created_at=now,
                **choices,
            )
            ticket = known_ticket(tx, ticket_id)
            ticket_event(tx, ticket, now, person.name, "ticket.joined", tiers=list(ticket.tiers))
            return ticket

        return self._context.run(work)

    def leave(self, ticket_id: int, by: Person, reason: str = "") -> TicketRow:
        """Leave the waiting list, and give back what is held for the ticket.

        People leave with their own tickets, admins with any. Raises
        :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found`` (also for another's),
        ``conflict`` when it is over.
        """
        text("reason", reason, REASON_LIMIT)

        def work(tx: Transaction) -> TicketRow:
            now = self._context.now()
            self._context.count_action(tx, by, now)
            ticket = known_ticket(tx, ticket_id)
            if not by.admin and (ticket.hub, ticket.user) != (self._context.hub, by.name):
                raise missing_ticket(ticket_id)
            tx.queue_for(f"person {ticket.user}")
            ticket = known_ticket(tx, ticket_id)
            if ticket.state not in OPEN:
                raise Refusal(
                    f"Ticket {ticket_id} is {ticket.state} already ({ticket.end_reason}).",
                    reason="conflict",
                )
            why = reason or ("given up" if by.name == ticket.user else f"cancelled by {by.name}")
            cancel_ticket(tx, ticket, why, by.name, now)
            return known_ticket(tx, ticket_id)

        return self._context.run(work)

    def tickets(
        self,
        user: str | None = None,
        *,
        hub: str | None = None,
        states: Collection[str] | None = None,
        part: Part | None = None,
    ) -> tuple[TicketRow, ...]:
        """Return tickets, oldest first; those that are still open unless asked otherwise.

        All of them, or a part.
        """
        of_user = None if user is None else wanted_name(user)
        return self._context.read(
            lambda tx: queries.tickets.select(tx, hub=hub, user=of_user, states=states, part=part)
        )

    def status(self, user: str | None = None, part: Part | None = None) -> tuple[TicketStatus, ...]:
        """Return the open tickets of a person of this hub, or of everybody, with position and wait.

        All of them, or a part. Positions follow from all that wait, of which nobody has more than
        :data:`MOST_TICKETS`.
        """

        def work(tx: Transaction) -> tuple[TicketStatus, ...]:
            now = self._context.now()
            everyone = queries.tickets.select(tx)
            waiting = self._offers.waiting(tx, everyone, now)
            held = held_for(tx)
            rows = [
                row
                for row in everyone
                if user is None or (row.hub, row.user) == (self._context.hub, user)
            ]
            if part is not None:
                before = part.before
                rows = [row for row in rows if before is None or row.id < before]
                rows = rows[-part.limit :] if part.limit > 0 else []
            lengths: dict[str, tuple[timedelta, ...]] = {}
            live = queries.leases.select(tx) if rows else ()
            of_cards = queries.cards.kinds_by_card(tx) if live else {}
            taken = [
                Taken(lease, end, of_cards.get(lease.card_uuid, CardKind("", 0)))
                for lease, end in self._sessions.idle_ends(tx, live, now)
            ]
            return tuple(self._status(tx, row, waiting, held, taken, lengths, now) for row in rows)

        return self._context.read(work)

    def _rewritten(
        self, tx: Transaction, ticket: TicketRow, choices: Mapping[str, object], now: datetime
    ) -> TicketRow:
        before = {
            "server": ticket.server,
            "start": ticket.start,
            "tiers": list(ticket.tiers),
        }
        if before != choices:
            queries.tickets.change(tx, ticket.id, ticket.state, **choices)
            ticket_event(tx, ticket, now, ticket.user, "ticket.changed", **{**choices})
        return known_ticket(tx, ticket.id)

    def _demand_reason_to_wait(self, reader: Reader, ask: Ask) -> None:
        facts = reader.case(ask).facts
        verdict = decide(ask, facts)
        if isinstance(verdict, Deny):
            raise refusal_of(verdict)
        if isinstance(verdict, Admit) and facts.supply is not None:
            free = facts.supply.free_of(facts.supply.unpromised(ask.now))
            raise Refusal(
                f"Tier {quoted(ask.tier.title)} has {free} free: start your server with it.",
                reason="conflict",
            )

    def _status(
        self,
        tx: Transaction,
        row: TicketRow,
        waiting: tuple[Waiting, ...],
        held: Mapping[int, LeaseRow],
        live: Collection[Taken],
        lengths: dict[str, tuple[timedelta, ...]],
        now: datetime,
    ) -> TicketStatus:
        if row.state != WAITING or row.blocked:
            return TicketStatus(row, 0, None, held.get(row.id))
        place = queue.position(row.id, waiting)
        known = [
            tier for name in row.tiers if (tier := self._context.settings.tier(name)) is not None
        ]
        taken = [
            each
            for each in live
            if any(tier.is_whole and tier.means(each.kind) for tier in known) and each.lease.whole
        ] or [
            each
            for each in live
            if any(each.lease.profile == tier.profile and tier.means(each.kind) for tier in known)
        ]
        past: list[timedelta] = []
        for profile in sorted({each.lease.profile for each in taken}):
            if profile not in lengths:
                ended = queries.usage.past_of_profile(tx, profile, queue.MOST_PAST)
                lengths[profile] = tuple(end - begin for begin, end in ended)
            past += lengths[profile]
        longest = [tier.max_hours for tier in known]
        expectation = queue.expected(
            place,
            [_occupied(each, now) for each in taken],
            past,
            now,
            longest=None
            if not longest or None in longest
            else timedelta(hours=max(hours for hours in longest if hours is not None)),
        )
        return TicketStatus(row, place, expectation, None)


def _occupied(taken: Taken, now: datetime) -> Occupied:
    lease = taken.lease
    if lease.ending:
        # It is usually proven empty in a moment; what is not may never be.
        return Occupied(lease.since, now, stuck=lease.overdue(now))
    return Occupied(lease.since, _latest_end(lease), taken.idle_end)


def _latest_end(lease: LeaseRow) -> datetime | None:
    """Return when a slice is given back at the latest; an offer that nobody takes ends soon."""
    if lease.ticket_id is not None and lease.state == PENDING:
        return lease.deadline if lease.ends_at is None else lease.ends_at
    return lease.ends_at
