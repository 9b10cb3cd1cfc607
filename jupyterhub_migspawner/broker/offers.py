"""Whose turn it is in the waiting list, and what is held for them.

An offer is a lease: pending, held for its ticket and not for a start, and so safe from everybody
else, from a re-cut, and from a crash of the process that made it. A start of its person in that
tier takes it over; past its deadline it is given back like any lease whose start never came.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.acquisition import UNFIT, Acquisition
from jupyterhub_migspawner.broker.admission import LeaseAsk
from jupyterhub_migspawner.broker.allocation import Contended
from jupyterhub_migspawner.broker.context import BROKER, SILENT, Context
from jupyterhub_migspawner.broker.recorder import begin_release, close_ticket, ticket_event
from jupyterhub_migspawner.broker.statuses import Offered
from jupyterhub_migspawner.broker.tickets import (
    block_ticket,
    cancel_ticket,
    held_for,
    known_ticket,
    wait_again,
)
from jupyterhub_migspawner.broker.views import timestamp
from jupyterhub_migspawner.broker.waiting_list import WaitingList
from jupyterhub_migspawner.db import allocation, queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.cards import Kinds
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.tickets import LAPSED, OFFERED, OPEN, WAITING, TicketRow
from jupyterhub_migspawner.policy import queue, tiers
from jupyterhub_migspawner.policy.admission import Use
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.queue import Pool, Waiting
from jupyterhub_migspawner.policy.quotas import WEEK, Usage
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import quoted


class Offers:
    """Use cases of the hub's service, which serves the waiting list."""

    def __init__(
        self, context: Context, acquisition: Acquisition, waiting_list: WaitingList
    ) -> None:
        self._context = context
        self._acquisition = acquisition
        self._waiting_list = waiting_list

    def turns(self, *, blocked: bool = False) -> tuple[TicketRow, ...]:
        """Return the tickets of this hub whose turn it is with what is free, in that order.

        With ``blocked``, tickets that something has kept from their turn come where they would
        without that, and all the others of them at the end, whether or not anything is free: to
        look again.
        """

        def work(tx: Transaction) -> tuple[TicketRow, ...]:
            now = self._context.now()
            served = self._waiting_list.served(tx, now)
            rows = [row for row in served if blocked or not row.blocked]
            room = self._rooms(tx, rows, now)
            found: list[TicketRow] = []
            if any(room.values()):
                by_id = {row.id: row for row in rows}
                turns = queue.turns(self.waiting(tx, rows, now, blocked=blocked), room)
                found = [by_id[turn.id] for turn in turns]
            if blocked:
                found += [row for row in served if row.blocked and row not in found]
            return tuple(row for row in found if row.hub == self._context.hub)

        return self._context.read(work)

    def make(
        self,
        ticket_id: int,
        person: Person | None,
        *,
        other_servers: int | None = None,
        stopping: Collection[str] = (),
    ) -> Offered:
        """Hold something for a ticket whose turn it is, for some minutes; return what became of it.

        ``person`` is its user as the hub knows them now, None when it has none of that name;
        ``other_servers`` are how many servers of theirs run besides the one it is for (None: their
        leases are counted), and ``stopping`` the names of those of them that the hub is just
        stopping. Whatever the person may not have any more ends the ticket; a quota or a missing
        grant blocks it.
        """
        others = (other_servers, frozenset(stopping))
        attempt = f"ticket {uuid.uuid4().hex}"
        for patient in (False, True, True):
            try:
                return self._context.run(
                    lambda tx, patient=patient: self._offer(  # type: ignore[misc]
                        tx, ticket_id, person, others, attempt, patient=patient
                    )
                )
            except Contended:
                continue
        ticket = self._context.read(lambda tx: known_ticket(tx, ticket_id))
        return Offered(ticket, None, "Other users are allocating the free slices right now.")

    def pass_over(self, ticket_id: int, why: str) -> None:
        """Block a ticket of this hub that cannot be served now; others need not wait behind it."""

        def work(tx: Transaction) -> None:
            ticket = known_ticket(tx, ticket_id)
            tx.queue_for(f"person {ticket.user}")
            ticket = known_ticket(tx, ticket_id)
            if ticket.hub == self._context.hub and ticket.state == WAITING:
                block_ticket(tx, ticket, why, self._context.now())

        self._context.run(work)

    def renew(self) -> int:
        """Extend the offers at this hub by the same time; return how many they are.

        For after a time in which nobody could take them.
        """

        def work(tx: Transaction) -> int:
            until = self._context.now() + timedelta(minutes=self._context.settings.offer_minutes)
            number = 0
            for lease in held_for(tx).values():
                if (
                    lease.hub == self._context.hub
                    and queries.leases.renew(tx, lease.id, until) is not None
                ):
                    ticket = queries.tickets.by_id(tx, lease.ticket_id or 0)
                    if ticket is not None:
                        queries.tickets.change(tx, ticket.id, ticket.state, offer_until=until)
                    number += 1
            return number

        return self._context.run(work)

    def settle(self) -> tuple[TicketRow, ...]:
        """End offers past their time with their tickets; tickets whose offer is gone wait again.

        Tickets of this hub end too when their tier is taken out of its configuration: their turn
        would never come. Returns the tickets that have changed.
        """
        open_ones = self._context.read(lambda tx: queries.tickets.select(tx))
        changed = []
        for ticket in open_ones:
            if ticket.state != OFFERED and not self._why_gone(ticket):
                continue
            after = self._context.run(lambda tx, ticket=ticket: self._settle(tx, ticket))  # type: ignore[misc]
            if after is not None:
                changed.append(after)
        return tuple(changed)

    # -- in a transaction ------------------------------------------------------------------------

    def _offer(
        self,
        tx: Transaction,
        ticket_id: int,
        person: Person | None,
        others: tuple[int | None, frozenset[str]],
        attempt: str,
        *,
        patient: bool,
    ) -> Offered:
        ticket = known_ticket(tx, ticket_id)
        tx.queue_for(f"attempt {attempt}", f"person {ticket.user}")
        ticket, now = known_ticket(tx, ticket_id), self._context.now()
        if ticket.state != WAITING:
            return Offered(ticket, None, f"It is {ticket.state}.")
        if person is None or person.name != ticket.user:
            why = "the hub no longer has this user"
            cancel_ticket(tx, ticket, why, BROKER, now)
            return Offered(known_ticket(tx, ticket_id), None, why)
        answer: Refusal | None = None
        will_do = self._will_do(ticket, person, self._context.known_kinds(tx))
        names = [tier.name for tier in will_do]
        if names and names != list(ticket.tiers):
            # What their person may not have any more keeps nobody else from it.
            queries.tickets.change(tx, ticket.id, ticket.state, tiers=names)
            why = "what its user may use has changed"
            ticket_event(tx, ticket, now, BROKER, "ticket.changed", tiers=names, why=why)
        until = now + timedelta(minutes=self._context.settings.offer_minutes)
        for tier in will_do:
            asking = LeaseAsk(
                person=person,
                tier=tier,
                now=now,
                use=Use.OFFER,
                server=ticket.server,
                only_node=self._context.settings.only_node or None,
                other_servers=others[0],
                stopping=others[1],
                attempt=attempt,
                deadline=until,
                ticket=ticket.id,
            )
            got = self._acquisition.take(tx, asking=asking, patient=patient)
            if isinstance(got, LeaseRow):
                self._hold(tx, ticket, got, now)
                return Offered(known_ticket(tx, ticket_id), got)
            # What was asked for says why; that a larger one is not to be had says nothing.
            answer = answer or got
        if answer is None:
            title = self._context.settings.title_of(ticket.tier)
            why = f"tier {quoted(title)} is no longer open to its user"
            cancel_ticket(tx, ticket, why, BROKER, now)
        elif answer.reason in ("quota", "approval"):
            # A session that has just ended need not cost its person the next turn.
            if ticket.blocked or not answer.soon:
                block_ticket(tx, ticket, str(answer), now)
        elif ticket.blocked:
            block_ticket(tx, ticket, "", now)
        return Offered(known_ticket(tx, ticket_id), None, str(answer or why))

    def _will_do(self, ticket: TicketRow, person: Person, known: Kinds) -> tuple[Tier, ...]:
        """Return the ticket's tiers that its person may use now; none without the one asked for."""
        mine = {tier.name: tier for tier in tiers.open_tiers(self._context.settings.tiers, person)}
        asked = mine.get(ticket.tier)
        if asked is None or asked.is_none:
            return ()
        return tuple(
            mine[name]
            for name in ticket.tiers
            if name in mine
            and not mine[name].is_none
            and queue.is_on_same_cards(asked, mine[name], known)
        )

    def _hold(self, tx: Transaction, ticket: TicketRow, lease: LeaseRow, now: datetime) -> None:
        passed = self._passed_by(tx, ticket, lease, now)
        until = lease.deadline
        queries.tickets.change(
            tx, ticket.id, ticket.state, state=OFFERED, offer_until=until, blocked=""
        )
        for other in passed:
            queries.tickets.overtake(tx, other)
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
        tier = self._context.settings.tier(lease.tier)
        if tier is None:
            return ()
        line = self._waiting_list.line(tx, now)
        others = [
            Waiting(row.id, row.created_at, self._waiting_list.pools(row, line.known))
            for row in line.tickets
            if row.id != ticket.id and not row.blocked
        ]
        me = Waiting(ticket.id, ticket.created_at, self._waiting_list.pools(ticket, line.known))
        return queue.passed_by(me, line.pool_of(lease, tier), others)

    def _settle(self, tx: Transaction, ticket: TicketRow) -> TicketRow | None:
        tx.queue_for(f"person {ticket.user}")
        found = queries.tickets.by_id(tx, ticket.id)
        if found is None or found.state not in OPEN:
            return None
        now = self._context.now()
        gone = self._why_gone(found)
        if gone:
            cancel_ticket(tx, found, gone, BROKER, now)
            return known_ticket(tx, found.id)
        if found.state != OFFERED:
            return None
        lease = held_for(tx).get(found.id)
        over = lease is not None and lease.deadline is not None and lease.deadline <= now
        if lease is None:
            wait_again(tx, found, "its offer is gone; it waits again", now)
        elif found.hub == self._context.hub and self._context.settings.tier(lease.tier) is None:
            # A larger tier than was asked for; what was asked for is still there.
            why = "the tier of its offer was removed from this hub; it waits again"
            begin_release(tx, lease, why, BROKER, now)
            wait_again(tx, found, why, now)
        elif found.hub == self._context.hub and not self._waiting_list.still_gives(tx, lease):
            why = f"{UNFIT}; it waits again"
            begin_release(tx, lease, why, BROKER, now)
            wait_again(tx, found, why, now)
        elif over and found.hub != self._context.hub:
            if self._is_heard(tx, found.hub, now):
                return None
            why = "its hub did not respond; it waits again"
            begin_release(tx, lease, why, BROKER, now)
            wait_again(tx, found, why, now)
        elif over and lease.slice_uuid is None:
            why = "the card that was held for it was not cut in time; it waits again"
            begin_release(tx, lease, why, BROKER, now)
            wait_again(tx, found, why, now)
        elif over:
            why = "the offer was not used in time"
            begin_release(tx, lease, why, BROKER, now)
            close_ticket(tx, found, LAPSED, why, now, BROKER)
        else:
            return None
        return known_ticket(tx, found.id)

    def _why_gone(self, ticket: TicketRow) -> str:
        """Return why nobody can get what a ticket of this hub asks for; empty if they can."""
        if ticket.hub != self._context.hub:
            return ""  # by another hub's tiers
        tier = self._context.settings.tier(ticket.tier)
        if tier is None:
            return f"tier {quoted(ticket.tier)} was removed from this hub"
        return f"tier {quoted(tier.title)} no longer has a GPU" if tier.is_none else ""

    @staticmethod
    def _is_heard(tx: Transaction, hub: str, now: datetime) -> bool:
        """Tell whether the service of a hub is there."""
        known = queries.hubs.by_name(tx, hub)
        return known is not None and known.seen_at is not None and now - known.seen_at < SILENT

    def waiting(
        self,
        tx: Transaction,
        rows: Collection[TicketRow],
        now: datetime,
        *,
        blocked: bool = False,
    ) -> tuple[Waiting, ...]:
        """Return the tickets that wait, as the rules about the order see them."""
        found: list[Waiting] = []
        known = self._context.known_kinds(tx)
        hours: dict[str, float] = {}
        for row in rows:
            if row.state != WAITING or (row.blocked and not blocked):
                continue
            if row.user not in hours:
                used = Usage(now, spans=queries.usage.spans(tx, row.user, now - WEEK))
                hours[row.user] = used.gpu_hours(WEEK)
            pools = (_own_pool(row), *self._waiting_list.pools(row, known))
            found.append(Waiting(row.id, row.created_at, pools, hours[row.user], row.overtaken))
        return tuple(found)

    def _rooms(
        self, tx: Transaction, rows: Collection[TicketRow], now: datetime
    ) -> dict[Pool, int]:
        """Return what is free of all that is waited for, cards of a ticket's own among it."""
        room: dict[Pool, int] = {}
        known = self._context.known_kinds(tx)
        for row in rows:
            for name in row.tiers:
                tier = self._context.settings.tier(name)
                if tier is None or tier.is_none:
                    continue
                pool = queue.pool_of(tier, known)
                if pool not in room:
                    room[pool] = self._waiting_list.room(tx, tier, now, known)
                if tier.is_whole and self._has_own_card(tx, row, tier, now, known):
                    room[_own_pool(row)] = 1
        return room

    def _has_own_card(
        self, tx: Transaction, row: TicketRow, tier: Tier, now: datetime, known: Kinds
    ) -> bool:
        """Tell whether a card is kept for the ticket's grant, or is now to be emptied for it."""
        silent_before, kinds = self._context.silent_before(now), tier.kinds(known)
        node = self._context.settings.only_node or None
        for grant in queries.requests.grants(tx, row.user, tier.name, now):
            if allocation.cards.idle_cards(
                tx, silent_before, node, grant_id=grant.id, mig_off=tier.mig_off, kinds=kinds
            ):
                return True
            busy = allocation.cards.busy_cards(
                tx, silent_before, node, grant_id=grant.id, mig_off=tier.mig_off, kinds=kinds
            )
            return bool(busy) and not any(reserved for _, reserved in busy)
        return False


def _own_pool(ticket: TicketRow) -> Pool:
    """Return the pool of a card that is there for one ticket only."""
    return Pool(f"card of ticket {ticket.id}")
