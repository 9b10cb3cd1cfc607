"""The waiting list: places in it, whose turn it is, and what is held for them.

An offer is a lease: pending, held for its ticket and not for a start, and so safe from everybody
else, from a re-cut, and from a crash of whoever made it. A start of its person in that tier takes
it over; past its deadline it is given back like any lease whose start never came.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.acquiring import Acquiring, Contended, begin_release
from jupyterhub_migspawner.broker.base import (
    BROKER,
    NAME_LIMIT,
    REASON_LIMIT,
    text,
    wanted_id,
    wanted_name,
)
from jupyterhub_migspawner.broker.reserving import Asking, keep_for
from jupyterhub_migspawner.broker.statuses import Offered, TicketStatus
from jupyterhub_migspawner.broker.views import timestamp
from jupyterhub_migspawner.broker.waiting import close_ticket, ticket_event
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.leases import ledger, requests, tickets, wholes
from jupyterhub_migspawner.leases.rows import HELD, PENDING, LeaseRow, TicketRow
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy import queue, tiers
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.queue import Occupied, Waiting
from jupyterhub_migspawner.policy.quota import WEEK, Usage
from jupyterhub_migspawner.policy.reservation import is_due, longest_session
from jupyterhub_migspawner.policy.tiers import Tier

MOST_TICKETS = 5
"""Places one person may have at a time."""


class Queueing(Acquiring):
    """Use cases about the waiting list."""

    def join(
        self,
        person: Person,
        tier_name: str,
        *,
        server: str = "",
        start: bool = False,
        upward: bool = False,
    ) -> TicketRow:
        """A place in the waiting list for a tier, for one server (the default one unless named).

        ``start`` has the hub start that server when it is the ticket's turn; ``upward`` takes any
        larger tier too that is free first. Asking again for the same tier changes these and keeps
        the place. Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``options``,
        ``not-allowed``, ``approval``, or ``conflict`` when there is nothing to wait for.
        """
        text("user name", person.name, NAME_LIMIT, empty=False)
        text("server name", server, NAME_LIMIT)
        asked = {"tier": "" if tier_name is None else tier_name}
        tier = tiers.choose_tier(self.settings.tiers, person, asked)
        if tier.is_none:
            raise Refusal(
                f"Tier {tier.name!r} has no GPU and nobody waits for it; start your server with "
                "it.",
                reason="conflict",
            )
        mine = tiers.open_tiers(self.settings.tiers, person)
        will_do = queue.upward(tier, mine) if upward else (tier,)
        choices = {
            "server": server,
            "start": bool(start),
            "tiers": [each.name for each in will_do],
        }

        def work(tx: Transaction) -> TicketRow:
            now = self._now()
            tx.queue_for(f"person {person.name}")
            have = tickets.open_of_user(tx, self.hub, person.name)
            for ticket in have:
                if ticket.tier == tier.name:
                    return self._rewritten(tx, ticket, choices, now)
            self._demand_reason_to_wait(tx, person, tier, now)
            if len(have) >= MOST_TICKETS:
                raise Refusal(
                    f"You wait for {len(have)} tiers already; give up one of these places first.",
                    reason="conflict",
                )
            ticket_id = tickets.insert(
                tx, hub=self.hub, username=person.name, tier=tier.name, created_at=now, **choices
            )
            ticket = _known(tx, ticket_id)
            ticket_event(tx, ticket, now, person.name, "ticket.joined", tiers=list(ticket.tiers))
            return ticket

        return self._run(work)

    def leave(self, ticket_id: int, by: Person, reason: str = "") -> TicketRow:
        """Give up a place, and with it what is held for it: one's own, or any as an admin.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found`` (also for another's),
        ``conflict`` when it is over.
        """
        text("reason", reason, REASON_LIMIT)

        def work(tx: Transaction) -> TicketRow:
            now = self._now()
            ticket = _known(tx, ticket_id)
            if not by.admin and (ticket.hub, ticket.user) != (self.hub, by.name):
                raise _missing(ticket_id)
            tx.queue_for(f"person {ticket.user}")
            ticket = _known(tx, ticket_id)
            if ticket.state not in tickets.OPEN:
                raise Refusal(
                    f"Ticket {ticket_id} is {ticket.state} already ({ticket.end_reason}).",
                    reason="conflict",
                )
            why = reason or ("given up" if by.name == ticket.user else f"taken away by {by.name}")
            self._cancel(tx, ticket, why, by.name, now)
            return _known(tx, ticket_id)

        return self._run(work)

    def tickets(
        self,
        user: str | None = None,
        *,
        hub: str | None = None,
        states: Collection[str] | None = None,
    ) -> tuple[TicketRow, ...]:
        """Tickets, oldest first; those that are still open unless asked otherwise."""
        of_user = None if user is None else wanted_name(user)
        return self._read(lambda tx: tickets.select(tx, hub=hub, user=of_user, states=states))

    def queue(self, user: str | None = None) -> tuple[TicketStatus, ...]:
        """Every open ticket of a person of this hub, or of everybody, with its place and wait."""

        def work(tx: Transaction) -> tuple[TicketStatus, ...]:
            now = self._now()
            everyone = tickets.select(tx)
            waiting = self._waiting(tx, everyone, now)
            held = _held_for(tx)
            rows = [
                row for row in everyone if user is None or (row.hub, row.user) == (self.hub, user)
            ]
            lengths: dict[str, tuple[timedelta, ...]] = {}
            live = ledger.select(tx) if rows else ()
            return tuple(self._status(tx, row, waiting, held, live, lengths, now) for row in rows)

        return self._read(work)

    def turns(self, *, blocked: bool = False) -> tuple[TicketRow, ...]:
        """The tickets of this hub whose turn it is with what is free, in that order.

        With ``blocked`` those that something has kept from it count too, to look again.
        """

        def work(tx: Transaction) -> tuple[TicketRow, ...]:
            now = self._now()
            rows = [row for row in self._served(tx, now) if blocked or not row.blocked]
            room = self._rooms(tx, rows, now)
            if not any(room.values()):
                return ()
            by_id = {row.id: row for row in rows}
            found = queue.turns(self._waiting(tx, rows, now, blocked=blocked), room)
            return tuple(by_id[turn.id] for turn in found if by_id[turn.id].hub == self.hub)

        return self._read(work)

    def offer(self, ticket_id: int, person: Person | None, *, other_servers: int = 0) -> Offered:
        """Hold something for a ticket whose turn it is, for some minutes.

        ``person`` is its user as the hub knows them now, None when it has none of that name;
        ``other_servers`` are how many servers of theirs run besides the one it is for. Whatever
        the person may not have any more ends the ticket; a quota or a missing grant blocks it.
        """
        attempt = f"ticket {uuid.uuid4().hex}"
        for patient in (False, True, True):
            try:
                return self._run(
                    lambda tx, patient=patient: self._offer(  # type: ignore[misc]
                        tx, ticket_id, person, other_servers, attempt, patient=patient
                    )
                )
            except Contended:
                continue
        ticket = self._read(lambda tx: _known(tx, ticket_id))
        return Offered(ticket, None, "Others are just taking what is free.")

    def settle_offers(self) -> tuple[TicketRow, ...]:
        """Offers past their time end with their tickets; tickets whose offer is gone wait again.

        Returns the tickets that have changed.
        """
        offered = self.tickets(states=(tickets.OFFERED,))
        changed = []
        for ticket in offered:
            after = self._run(lambda tx, ticket=ticket: self._settle(tx, ticket))  # type: ignore[misc]
            if after is not None:
                changed.append(after)
        return tuple(changed)

    def keep_coming_cards(self) -> tuple[str, ...]:
        """Keep a card for each grant of a whole one that begins soon; returns the cards' UUIDs."""
        longest = longest_session(self.settings.tiers)

        def work(tx: Transaction) -> tuple[str, ...]:
            now = self._now()
            kept = []
            for grant in requests.coming(tx, now):
                tier = self.settings.tier(grant.tier)
                if tier is None or not tier.is_whole or grant.valid_from is None:
                    continue
                if is_due(grant.valid_from, longest, now):
                    kept.append(keep_for(tx, grant, tier, now, self._silent_before(now)))
            return tuple(uuid for uuid in kept if uuid)

        return self._run(work)

    # -- in a transaction ------------------------------------------------------------------------

    def _offer(
        self,
        tx: Transaction,
        ticket_id: int,
        person: Person | None,
        other_servers: int,
        attempt: str,
        *,
        patient: bool,
    ) -> Offered:
        ticket = _known(tx, ticket_id)
        tx.queue_for(f"attempt {attempt}", f"person {ticket.user}")
        ticket, now = _known(tx, ticket_id), self._now()
        if ticket.state != tickets.WAITING:
            return Offered(ticket, None, f"It is {ticket.state}.")
        if person is None or person.name != ticket.user:
            why = "the hub has no such user any more"
            self._cancel(tx, ticket, why, BROKER, now)
            return Offered(_known(tx, ticket_id), None, why)
        answer: Refusal | None = None
        until = now + timedelta(minutes=self.settings.offer_minutes)
        for tier in self._will_do(ticket, person):
            asking = Asking(
                person,
                ticket.server,
                tier,
                attempt,
                None,
                now,
                until,
                other_servers,
                ticket.id,
            )
            got = self._acquire(tx, asking=asking, patient=patient)
            if isinstance(got, LeaseRow):
                self._hold(tx, ticket, got, now)
                return Offered(_known(tx, ticket_id), got)
            # What was asked for says why; that a larger one is not to be had says nothing.
            answer = answer or got
        if answer is None:
            why = f"tier {ticket.tier!r} is not open to its user any more"
            self._cancel(tx, ticket, why, BROKER, now)
        elif answer.reason in ("quota", "approval"):
            self._block(tx, ticket, str(answer), now)
        elif ticket.blocked:
            self._block(tx, ticket, "", now)
        return Offered(_known(tx, ticket_id), None, str(answer or why))

    def _will_do(self, ticket: TicketRow, person: Person) -> tuple[Tier, ...]:
        """The tiers of a ticket that its person may use now; none when the one asked for is not."""
        mine = {tier.name: tier for tier in tiers.open_tiers(self.settings.tiers, person)}
        if ticket.tier not in mine or mine[ticket.tier].is_none:
            return ()
        return tuple(mine[name] for name in ticket.tiers if name in mine and not mine[name].is_none)

    def _hold(self, tx: Transaction, ticket: TicketRow, lease: LeaseRow, now: datetime) -> None:
        passed = self._passed_by(tx, ticket, lease, now)
        until = lease.deadline
        tickets.change(
            tx, ticket.id, ticket.state, state=tickets.OFFERED, offer_until=until, blocked=""
        )
        for other in passed:
            tickets.overtake(tx, other)
        ticket_event(
            tx,
            ticket,
            now,
            BROKER,
            "ticket.offered",
            offered=lease.tier,
            lease=lease.id,
            until=timestamp(until),
            start=ticket.start,
        )

    def _passed_by(
        self, tx: Transaction, ticket: TicketRow, lease: LeaseRow, now: datetime
    ) -> tuple[int, ...]:
        tier = self.settings.tier(lease.tier)
        if tier is None:
            return ()
        rows = [row for row in self._served(tx, now) if not row.blocked]
        others = [
            Waiting(row.id, row.created_at, self._pools(row)) for row in rows if row.id != ticket.id
        ]
        me = Waiting(ticket.id, ticket.created_at, self._pools(ticket))
        return queue.passed_by(me, queue.pool_of(tier), others)

    def _settle(self, tx: Transaction, ticket: TicketRow) -> TicketRow | None:
        tx.queue_for(f"person {ticket.user}")
        found = tickets.by_id(tx, ticket.id)
        if found is None or found.state != tickets.OFFERED:
            return None
        now = self._now()
        lease = _held_for(tx).get(found.id)
        if lease is None:
            back = {"state": tickets.WAITING, "offer_until": None}
            tickets.change(tx, found.id, found.state, **back)
            why = "what was held for it is gone; it waits again"
            ticket_event(tx, found, now, BROKER, "ticket.changed", why=why)
        elif lease.deadline is not None and lease.deadline <= now:
            why = "nobody took the offer in time"
            begin_release(tx, lease, why, BROKER, now)
            close_ticket(tx, found, tickets.LAPSED, why, now, BROKER)
        else:
            return None
        return _known(tx, found.id)

    def _cancel(
        self, tx: Transaction, ticket: TicketRow, why: str, actor: str, now: datetime
    ) -> None:
        lease = _held_for(tx).get(ticket.id)
        if lease is not None:
            begin_release(tx, lease, f"its ticket has ended: {why}", actor, now)
        close_ticket(tx, ticket, tickets.CANCELLED, why, now, actor)

    def _block(self, tx: Transaction, ticket: TicketRow, why: str, now: datetime) -> None:
        if ticket.blocked != why:
            tickets.change(tx, ticket.id, ticket.state, blocked=why)
            ticket_event(tx, ticket, now, BROKER, "ticket.blocked", why=why)

    def _rewritten(
        self, tx: Transaction, ticket: TicketRow, choices: Mapping[str, object], now: datetime
    ) -> TicketRow:
        before = {
            "server": ticket.server,
            "start": ticket.start,
            "tiers": list(ticket.tiers),
        }
        if before != choices:
            tickets.change(tx, ticket.id, ticket.state, **choices)
            ticket_event(tx, ticket, now, ticket.user, "ticket.changed", **{**choices})
        return _known(tx, ticket.id)

    def _demand_reason_to_wait(
        self, tx: Transaction, person: Person, tier: Tier, now: datetime
    ) -> None:
        offer = next(o for o in self._offers(tx, person, now) if o.tier.name == tier.name)
        if offer.usable and offer.free:
            raise Refusal(
                f"Tier {tier.name!r} has {offer.free} free: start your server with it.",
                reason="conflict",
            )
        if tier.approval and offer.grant is None:
            raise Refusal(offer.why, reason="approval")

    def _waiting(
        self,
        tx: Transaction,
        rows: Collection[TicketRow],
        now: datetime,
        *,
        blocked: bool = False,
    ) -> tuple[Waiting, ...]:
        """What the rules about the order see of the tickets that wait."""
        found: list[Waiting] = []
        hours: dict[str, float] = {}
        for row in rows:
            if row.state != tickets.WAITING or (row.blocked and not blocked):
                continue
            if row.user not in hours:
                used = Usage(now, spans=ledger.spans(tx, row.user, now - WEEK))
                hours[row.user] = used.gpu_hours(WEEK)
            pools = (_own_pool(row), *self._pools(row))
            found.append(Waiting(row.id, row.created_at, pools, hours[row.user], row.overtaken))
        return tuple(found)

    def _rooms(self, tx: Transaction, rows: Collection[TicketRow], now: datetime) -> dict[str, int]:
        """What is free of everything that is waited for, cards of a ticket's own among it."""
        room: dict[str, int] = {}
        for row in rows:
            for name in row.tiers:
                tier = self.settings.tier(name)
                if tier is None or tier.is_none:
                    continue
                pool = queue.pool_of(tier)
                if pool not in room:
                    room[pool] = self._room(tx, tier, now)
                if tier.is_whole and self._has_own_card(tx, row, tier, now):
                    room[_own_pool(row)] = 1
        return room

    def _has_own_card(self, tx: Transaction, row: TicketRow, tier: Tier, now: datetime) -> bool:
        """Whether a card is kept for the ticket's grant, or is to be emptied for it from now on."""
        silent_before = self._silent_before(now)
        for grant in requests.grants(tx, row.user, tier.name, now):
            mig_off = tier.mig_off
            if wholes.idle_cards(tx, silent_before, grant_id=grant.id, mig_off=mig_off):
                return True
            busy = wholes.busy_cards(tx, silent_before, grant_id=grant.id, mig_off=mig_off)
            return bool(busy) and not any(reserved for _, reserved in busy)
        return False

    def _status(
        self,
        tx: Transaction,
        row: TicketRow,
        waiting: tuple[Waiting, ...],
        held: Mapping[int, LeaseRow],
        live: Collection[LeaseRow],
        lengths: dict[str, tuple[timedelta, ...]],
        now: datetime,
    ) -> TicketStatus:
        if row.state != tickets.WAITING or row.blocked:
            return TicketStatus(row, 0, None, held.get(row.id))
        place = queue.position(row.id, waiting)
        known = [tier for name in row.tiers if (tier := self.settings.tier(name)) is not None]
        profiles = {tier.profile for tier in known}
        whole = any(tier.is_whole for tier in known)
        taken = [lease for lease in live if lease.whole if whole] or [
            lease for lease in live if lease.profile in profiles
        ]
        past: list[timedelta] = []
        for profile in sorted({lease.profile for lease in taken}):
            if profile not in lengths:
                ended = ledger.past_of_profile(tx, profile, queue.MOST_PAST)
                lengths[profile] = tuple(end - begin for begin, end in ended)
            past += lengths[profile]
        longest = [tier.max_hours for tier in known]
        expectation = queue.expected(
            place,
            [Occupied(lease.since, _latest_end(lease)) for lease in taken],
            past,
            now,
            longest=None
            if not longest or None in longest
            else timedelta(hours=max(hours for hours in longest if hours is not None)),
        )
        return TicketStatus(row, place, expectation, None)


def _latest_end(lease: LeaseRow) -> datetime | None:
    """When a slice is given back at the latest; an offer that nobody takes ends soon."""
    if lease.ticket_id is not None and lease.state == PENDING:
        return lease.deadline if lease.ends_at is None else lease.ends_at
    return lease.ends_at


def _held_for(tx: Transaction) -> dict[int, LeaseRow]:
    """What is held for tickets, by ticket."""
    return {
        lease.ticket_id: lease
        for lease in ledger.select(tx, states=(PENDING,))
        if lease.ticket_id is not None and lease.state in HELD
    }


def _own_pool(ticket: TicketRow) -> str:
    """A card that is there for one ticket only."""
    return f"card of ticket {ticket.id}"


def _known(tx: Transaction, ticket_id: int) -> TicketRow:
    ticket = tickets.by_id(tx, wanted_id(ticket_id))
    if ticket is None:
        raise _missing(ticket_id)
    return ticket


def _missing(ticket_id: int) -> Refusal:
    return Refusal(f"There is no ticket {ticket_id}.", reason="not-found")
