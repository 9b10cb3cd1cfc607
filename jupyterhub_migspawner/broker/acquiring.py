"""Taking a lease: one transaction from "may they" to a slice nobody else can get.

Everything is checked in the transaction that takes the lease: groups, grant, quota, capacity. One
person's acquires follow each other (two starts at once cannot both fit under a quota of one), and
so do all calls about one attempt (a cancel cannot slip in between).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

from jupyterhub_migspawner.broker.allowances import usage
from jupyterhub_migspawner.broker.base import NAME_LIMIT, text
from jupyterhub_migspawner.broker.offers import (
    Offering,
    is_used_up,
    needs_approval,
    none_free,
    they_wait,
)
from jupyterhub_migspawner.broker.recording import lease_event
from jupyterhub_migspawner.broker.reserving import Asking, end_reservation, reserve
from jupyterhub_migspawner.broker.taking import Contended, take
from jupyterhub_migspawner.broker.waiting import Ahead, close_ticket
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.leases import ledger, requests, tickets
from jupyterhub_migspawner.leases.rows import HELD, PENDING, RELEASING, LeaseRow, RequestRow
from jupyterhub_migspawner.leases.shelf import Taken
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy import quota, tiers
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reservation import longest_until
from jupyterhub_migspawner.policy.wording import moment, quoted

SHORTEST = timedelta(minutes=10)
"""A session on a whole card that would have to end sooner for a coming grant is not begun."""

ROUNDS = 8
"""How often an acquire is run again when others took what it had seen."""


class Acquiring(Offering):
    """The use case of a starting server."""

    def acquire(
        self,
        person: Person,
        server: str,
        tier_name: str,
        attempt: str,
        node: str | None = None,
        pending_seconds: int | None = None,
        other_servers: int = 0,
    ) -> LeaseRow | None:
        """A pending lease for one start of a server; None when the tier has no GPU.

        ``pending_seconds`` is the time this start may take, where it is not the settings'.
        ``other_servers`` is how many other servers of the person run or start, also without a GPU.

        Idempotent per ``attempt``: asking again returns the same lease while it is pending or
        active. An attempt that was cancelled or has ended is refused (``conflict``). Other leases
        that this server of this person still holds are left from a crash and begin to end, also
        when the new one is refused.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``options``, ``not-allowed``,
        ``approval``, ``quota``, ``capacity``, ``conflict``).
        """
        text("user name", person.name, NAME_LIMIT, empty=False)
        text("server name", server, NAME_LIMIT)
        text("attempt", attempt, NAME_LIMIT, empty=False)
        if node is not None:
            text("node", node, NAME_LIMIT, empty=False)
        # Nothing at all must not become the default tier here.
        asked = {"tier": "" if tier_name is None else tier_name}
        tier = tiers.choose_tier(self.settings.tiers, person, asked)
        now = self._now()
        patience = self.settings.pending_seconds if pending_seconds is None else pending_seconds
        deadline = now + timedelta(seconds=patience)
        asking = Asking(person, server, tier, attempt, node, now, deadline, other_servers)
        # The first run goes round whatever others are just taking. When that leaves nothing, the
        # next ones wait for how it ends, so that nobody is refused for a slice that is given back
        # a moment later. Each run begins without locks: whoever waits holds nothing others need.
        for patient in (False, *[True] * ROUNDS):
            try:
                answer = self._run(partial(self._acquire, asking=asking, patient=patient))
            except Contended:
                continue
            if isinstance(answer, Refusal):
                raise answer
            return answer
        raise Refusal(
            f"Too many people are starting servers in tier {tier.name} just now; try again.",
            reason="capacity",
        )

    def being_returned(self, tier_name: str) -> bool:
        """Whether a slice that this tier could use is on its way back, so that waiting may help."""
        tier = self.settings.tier(tier_name)
        if tier is None or tier.is_none:
            return False

        def work(tx: Transaction) -> bool:
            leaving = ledger.select(tx, states=(RELEASING,))
            if any(tier.is_whole or lease.profile == tier.profile for lease in leaving):
                return True
            # Others are just being offered what is free; a start takes what they leave.
            now = self._now()
            waiting = self._ahead(self._served(tx, now), Person(""), tier).others
            return bool(waiting) and self._room(tx, tier, now) > waiting

        return self._read(work)

    def _acquire(
        self, tx: Transaction, *, asking: Asking, patient: bool
    ) -> LeaseRow | Refusal | None:
        # A refusal is returned, not raised: what it found left over has to begin to end with it.
        tx.queue_for(f"attempt {asking.attempt}", f"person {asking.person.name}")
        known = ledger.by_attempt(tx, asking.attempt)
        if known is not None:
            return _same_again(known, asking, self.hub)
        buried = ledger.tombstone(tx, asking.attempt)
        if buried is not None:
            return Refusal(f"This start was cancelled ({buried}); start again.", reason="conflict")
        held, offered, remains = self._held_by_others(tx, asking)
        answer = self._decide(tx, asking, held, offered, remains, patient=patient)
        if isinstance(answer, Refusal) or answer is None:
            _let_go(tx, asking, remains)
        return answer

    def _decide(
        self,
        tx: Transaction,
        asking: Asking,
        held: list[LeaseRow],
        offered: list[LeaseRow],
        remains: list[LeaseRow],
        *,
        patient: bool,
    ) -> LeaseRow | Refusal | None:
        limits, _ = self._limits(tx, asking.person, asking.now)
        # Whoever is offered one thing is not offered another beyond their quota; a start counts
        # what runs, since it may well be that of the offer.
        counted = held + offered if asking.ticket is not None else held
        used = usage(tx, asking.person, limits, asking.now, counted, asking.other_servers)
        if asking.tier.is_none:
            over = quota.check(limits, used, asking.tier)
            return Refusal(over, reason="quota") if over else None
        grant = None
        if asking.tier.approval:
            found = self._grant_for(tx, asking, held)
            if isinstance(found, Refusal):
                return found
            grant = found
        over = quota.check(limits, used, asking.tier)
        if over:
            return Refusal(over, reason="quota")
        ahead = Ahead()
        if asking.ticket is None:
            mine = next((o for o in offered if self._is_for(o, asking)), None)
            if mine is not None:
                _let_go(tx, asking, remains)
                adopted = self._adopt(tx, asking, mine, grant)
                if adopted is not None:
                    return adopted
            waiting = self._served(tx, asking.now)
            ahead = self._ahead(waiting, asking.person, asking.tier)
            if ahead.others and not self._takes_nobodys(tx, asking.tier, grant, asking.now, ahead):
                return self._no_capacity(tx, asking, waiting=ahead.others)
        latest = self._latest_end(tx, asking, grant)
        if latest is not None and latest <= asking.now + SHORTEST:
            return Refusal(
                f"Every card is promised to a grant that begins at {moment(latest)}. Please try "
                "again after that.",
                reason="capacity",
            )
        silent_before = self._silent_before(asking.now)
        grant_id = grant.id if grant is not None else None
        taken = take(tx, asking, grant_id, silent_before, patient=patient)
        if taken is None:
            emptying = reserve(tx, asking, grant, silent_before) if grant else ""
            return self._no_capacity(tx, asking, emptying)
        if grant is not None:
            end_reservation(tx, grant.id, asking.now, "the grant has its card")
        # Cards before leases, as everybody locks them.
        _let_go(tx, asking, remains)
        lease = self._lend(tx, asking, taken, grant, latest)
        if ahead.mine is not None:
            close_ticket(tx, ahead.mine, tickets.TAKEN, "started without an offer", asking.now)
        return lease

    def _held_by_others(
        self, tx: Transaction, asking: Asking
    ) -> tuple[list[LeaseRow], list[LeaseRow], list[LeaseRow]]:
        """What the person holds for other servers, what is offered to them, and what earlier starts
        of this server left, which has to begin to end.

        A server of that name at another hub is another one, and counts like any other. What runs
        while a ticket waits for that very server makes room for it when it starts anew.
        """
        others, offered, remains = [], [], []
        for lease in ledger.with_offers(tx, asking.person.name):
            if lease.ticket_id is not None:
                offered.append(lease)
            elif (lease.hub, lease.server) != (self.hub, asking.server):
                others.append(lease)
            elif asking.ticket is None:
                remains.append(lease)
        return others, offered, remains

    def _is_for(self, offer: LeaseRow, asking: Asking) -> bool:
        return (offer.hub, offer.tier) == (self.hub, asking.tier.name)

    def _adopt(
        self, tx: Transaction, asking: Asking, offer: LeaseRow, grant: RequestRow | None
    ) -> LeaseRow | None:
        """The lease that is held for this person and tier becomes this start's."""
        lease = ledger.adopt(
            tx,
            offer.id,
            attempt=asking.attempt,
            server=asking.server,
            now=asking.now,
            deadline=asking.deadline,
            ends_at=_end_of(asking, grant, self._latest_end(tx, asking, grant, but=offer.id)),
            request_id=grant.id if grant is not None else None,
        )
        if lease is None:
            return None
        lease_event(tx, lease, asking.now, asking.person.name, slice=lease.slice_uuid or "")
        ticket = tickets.by_id(tx, offer.ticket_id or 0)
        if ticket is not None:
            close_ticket(tx, ticket, tickets.TAKEN, "started", asking.now)
        return lease

    @staticmethod
    def _grant_for(tx: Transaction, asking: Asking, held: list[LeaseRow]) -> RequestRow | Refusal:
        """The grant to use: valid, and without a server that runs on it."""
        user, tier = asking.person.name, asking.tier
        every = requests.grants(tx, user, tier.name, asking.now)
        grants = [grant for grant in every if not is_used_up(grant, tier)]
        if not grants:
            sentence = needs_approval(tier, requests.open_of_user(tx, user), asking.now)
            return Refusal(sentence, reason="approval")
        in_use = {lease.request_id: lease for lease in held if lease.request_id}
        for grant in grants:
            if grant.id not in in_use:
                return grant
        server = in_use[grants[0].id].server
        return Refusal(
            f"Your grant {grants[0].id} for tier {tier.name!r} is in use by your "
            f"{f'server {quoted(server)}' if server else 'default server'}; stop that one first.",
            reason="approval",
        )

    def _latest_end(
        self, tx: Transaction, asking: Asking, grant: RequestRow | None, but: int | None = None
    ) -> datetime | None:
        """When a session on a whole card has to give it on to a grant that begins by then.

        The lease ``but`` is its own already.
        """
        if not asking.tier.is_whole:
            return None
        coming = []
        for each in requests.coming(tx, asking.now):
            tier = self.settings.tier(each.tier)
            own = grant is not None and each.id == grant.id
            if tier is not None and tier.is_whole and not own and each.valid_from is not None:
                coming.append(each.valid_from)
        if not coming:
            return None
        others = [lease.ends_at for lease in ledger.select(tx) if lease.whole and lease.id != but]
        total = self._count(tx, asking.now).whole(mig_off=asking.tier.mig_off)[1]
        return longest_until(total, others, coming)

    def _no_capacity(
        self, tx: Transaction, asking: Asking, emptying: str = "", waiting: int = 0
    ) -> Refusal:
        tier = asking.tier
        count = self._count(tx, asking.now)
        if tier.is_whole:
            total = count.whole(mig_off=tier.mig_off)[1]
        else:
            total = count.seats(tier.name, tier.profile, tier.seats)[1]
        where = f" on node {quoted(asking.node)}" if asking.node is not None else ""
        sentence = they_wait(tier, waiting) if waiting else none_free(tier, total, where)
        instead = self._instead(tx, asking.person, tier, asking.now)
        words = " ".join(each for each in (sentence, emptying, instead) if each)
        return Refusal(words, reason="capacity")

    def _lend(
        self,
        tx: Transaction,
        asking: Asking,
        taken: Taken,
        grant: RequestRow | None,
        latest: datetime | None,
    ) -> LeaseRow:
        lease = LeaseRow(
            id=0,
            attempt=asking.attempt,
            user=asking.person.name,
            server=asking.server,
            tier=asking.tier.name,
            state=PENDING,
            slice_id=taken.slice_id,
            slice_uuid=taken.slice_uuid,
            node=taken.node,
            card_uuid=taken.card_uuid,
            profile=taken.profile,
            memory_mib=taken.memory_mib,
            since=asking.now,
            deadline=asking.deadline,
            ends_at=_end_of(asking, grant, latest),
            ended_at=None,
            end_reason="",
            waiting_for="",
            request_id=grant.id if grant else None,
            start=taken.start,
            seat=taken.seat,
            # A seat is never all of a card, also where the slice is.
            whole=taken.whole and not asking.tier.shares,
            share=taken.share / asking.tier.seats,
            hub=self.hub,
            ticket_id=asking.ticket,
        )
        lease = ledger.insert(tx, lease)
        lease_event(
            tx,
            lease,
            asking.now,
            asking.person.name,
            kind="lease.offered" if asking.ticket is not None else "",
            slice=taken.slice_uuid or "",
        )
        return lease


def _end_of(asking: Asking, grant: RequestRow | None, latest: datetime | None) -> datetime | None:
    """When a session that begins now is over at the latest."""
    ends = [] if latest is None else [latest]
    if asking.tier.max_hours is not None:
        ends.append(asking.now + timedelta(hours=asking.tier.max_hours))
    if grant is not None and grant.valid_until is not None:
        ends.append(grant.valid_until)
    return min(ends, default=None)


def _same_again(known: LeaseRow, asking: Asking, hub: str) -> LeaseRow | Refusal:
    mine = (hub, asking.person.name, asking.server, asking.tier.name)
    of_this = (known.hub, known.user, known.server, known.tier)
    if of_this != mine or known.ticket_id != asking.ticket:
        return Refusal(
            "This start belongs to another server or tier; start again.", reason="conflict"
        )
    if known.state in HELD:
        return known
    return Refusal(
        f"This start has ended already ({known.end_reason}); start again.", reason="conflict"
    )


def _let_go(tx: Transaction, asking: Asking, remains: list[LeaseRow]) -> None:
    """Let what earlier starts of the same server left begin to end; once."""
    while remains:
        reason = "replaced by a new start of the same server"
        begin_release(tx, remains.pop(), reason, asking.person.name, asking.now)


def begin_release(
    tx: Transaction, lease: LeaseRow, reason: str, actor: str, now: datetime, **detail: Any
) -> LeaseRow | None:
    """Let a pending or active lease begin to end; None when it was not one any more."""
    after = ledger.release(tx, lease.id, now, reason)
    if after is not None:
        lease_event(tx, after, now, actor, why=reason, **detail)
    return after
