"""The start of a lease: one transaction, from the decision to a slice that is held.

Everything is checked in the transaction that takes the lease: groups, grant, quota, capacity. One
person's acquires follow each other (two starts at once cannot both fit under a quota of one), and
so do all calls about one attempt (a cancel cannot slip in between).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial

from jupyterhub_migspawner.broker import promises
from jupyterhub_migspawner.broker.admission import Admission, Case, LeaseAsk, refusal_of
from jupyterhub_migspawner.broker.allocation import Contended, take
from jupyterhub_migspawner.broker.checks import NAME_LIMIT, text
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.recorder import begin_release, close_ticket, lease_event
from jupyterhub_migspawner.broker.reservations import end_reservation, reserve
from jupyterhub_migspawner.broker.tiers import NOTHING_ELSE, Tiers
from jupyterhub_migspawner.broker.waiting_list import WaitingList
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.allocation.slices import Allocation
from jupyterhub_migspawner.db.engine import OutcomeUnknown
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import HELD, PENDING, RELEASING, LeaseRow
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.model.tickets import TAKEN
from jupyterhub_migspawner.policy import tiers
from jupyterhub_migspawner.policy.admission import Admit, Deny, Reason, Use, Wait, decide, none_left
from jupyterhub_migspawner.policy.layouts import is_going_back
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.wording import quoted

UNFIT = "what was held is not what its tier gives any more"
"""Why an offer ends after its tier has changed."""

ROUNDS = 8
"""How often an acquire is run again when others took what it had seen."""


class Acquisition:
    """The use case of a server's start; :class:`.leases.Leases` offers it to callers."""

    def __init__(
        self, context: Context, admission: Admission, tiers: Tiers, waiting_list: WaitingList
    ) -> None:
        self._context = context
        self._admission = admission
        self._tiers = tiers
        self._waiting_list = waiting_list

    def acquire(
        self,
        person: Person,
        server: str,
        tier_name: str,
        attempt: str,
        node: str | None = None,
        pending_seconds: int | None = None,
        other_servers: int | None = None,
        started: datetime | None = None,
        stopping: Collection[str] = (),
    ) -> LeaseRow | None:
        """Take a pending lease for one start of a server; None when the tier has no GPU.

        ``pending_seconds`` is the time this start may take, where it is not the settings'.
        ``other_servers`` is how many other servers of the person run or start, also without a GPU
        (None: their leases are counted); ``stopping`` are the names of those of them that the hub
        is stopping. ``started`` is when the hub began this start, by its own clock.

        Idempotent per ``attempt``: asking again returns the same lease while it is pending or
        active. An attempt that was cancelled or has ended is refused (``conflict``). Other leases
        that this server of this person still holds are left from a crash and begin to end, also
        when the new one is refused. Everything of the person's that is not proven empty counts; a
        refusal is marked ``soon`` while that will probably be over in a moment.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``options``, ``not-allowed``,
        ``approval``, ``quota``, ``capacity``, ``conflict``).
        """
        text("user name", person.name, NAME_LIMIT, empty=False)
        text("server name", server, NAME_LIMIT)
        text("attempt", attempt, NAME_LIMIT, empty=False)
        if node is not None:
            text("node", node, NAME_LIMIT, empty=False)
            only = self._context.settings.only_node
            if only and node != only:
                raise Refusal(
                    f"This hub's servers run on node {quoted(only)} only.", reason="options"
                )
        # Nothing at all must not become the default tier here.
        asked = {"tier": "" if tier_name is None else tier_name}
        tier = tiers.choose_tier(self._context.settings.tiers, person, asked)
        seconds = (
            self._context.settings.pending_seconds if pending_seconds is None else pending_seconds
        )

        def work(tx: Transaction, *, patient: bool) -> LeaseRow | Refusal | None:
            now = self._context.now()  # here and not before: the clock may be set meanwhile
            deadline = now + timedelta(seconds=seconds)
            asking = LeaseAsk(
                person=person,
                tier=tier,
                now=now,
                server=server,
                node=node,
                only_node=self._context.settings.only_node or None,
                other_servers=other_servers,
                stopping=frozenset(stopping),
                attempt=attempt,
                deadline=deadline,
                started=started,
            )
            return self.take(tx, asking=asking, patient=patient)

        # The first run goes round whatever others are just taking. When that leaves nothing, the
        # next ones wait for how it ends, so that nobody is refused for a slice that is given back
        # a moment later. Each run begins without locks: a run that waits holds nothing others need.
        unknown = False
        for patient in (False, *[True] * ROUNDS):
            try:
                answer = self._context.run(partial(work, patient=patient))
            except Contended:
                continue
            except OutcomeUnknown:
                # Had it been committed, the same attempt gets the same lease.
                if unknown:
                    raise
                unknown = True
                continue
            if isinstance(answer, Refusal):
                raise answer
            return answer
        raise Refusal(
            f"Too many people are starting servers in tier {tier.title} right now; try again.",
            reason="capacity",
        )

    def being_returned(self, tier_name: str) -> bool:
        """Tell whether a slice for this tier is being returned, so that waiting may help."""
        tier = self._context.settings.tier(tier_name)
        if tier is None or tier.is_none:
            return False

        def work(tx: Transaction) -> bool:
            now = self._context.now()
            leaving = [
                lease
                for lease in queries.leases.select(tx, states=(RELEASING,))
                if not lease.overdue(now)  # what has been kept for long is not back in a moment
            ]
            cards = [record.row for record in queries.cards.select(tx)]
            meant = {card.uuid for card in cards if tier.means(card.kind)}
            if any(
                lease.card_uuid in meant and (tier.is_whole or lease.profile == tier.profile)
                for lease in leaving
            ):
                return True
            if any(
                tier.is_whole or tier.profile in (profile for profile, _ in card.layout)
                for card in cards
                if card.uuid in meant and is_going_back(card)
            ):
                return True
            # What is free is being offered to others; a start takes what they leave.
            known = self._context.known_kinds(tx)
            ahead, _ = self._waiting_list.ahead(
                self._waiting_list.served(tx, now), Person(""), tier, known
            )
            return (
                bool(ahead.others) and self._waiting_list.room(tx, tier, now, known) > ahead.others
            )

        return self._context.read(work)

    def take(
        self, tx: Transaction, *, asking: LeaseAsk, patient: bool
    ) -> LeaseRow | Refusal | None:
        """Take a lease for an ask, in the caller's transaction; None for a tier without a GPU.

        Raises :exc:`.allocation.Contended` where others are just taking what is free.
        """
        # A refusal is returned, not raised: what it found left over has to begin to end with it.
        tx.queue_for(f"attempt {asking.attempt}", f"person {asking.person.name}")
        reader = self._admission.reader(tx, asking.person, asking.now, takes=True)
        reader.read_start(asking)
        known = queries.leases.by_attempt(tx, asking.attempt)
        if known is not None:
            return _same_again(known, asking, self._context.hub)
        buried = queries.tombstones.reason(tx, asking.attempt)
        if buried is not None:
            return Refusal(f"This start was cancelled ({buried}); start again.", reason="conflict")
        server = (self._context.hub, asking.server)
        if asking.use is Use.START and any(
            each.vouched and (each.hub, each.server) == server for each in reader.orphans
        ):
            # Its hub starts it again: what ran as this server without a lease runs no more.
            queries.orphans.unvouch(
                tx, self._context.hub, asking.person.name, asking.server, asking.now
            )
            reader = self._admission.reader(tx, asking.person, asking.now, takes=True)
        case = reader.case(asking)
        remains = list(case.have.remains)
        answer = self._answer(tx, asking, case, remains, patient=patient)
        if isinstance(answer, Refusal) or answer is None:
            _let_go(tx, asking, remains)
        return answer

    def _answer(
        self,
        tx: Transaction,
        asking: LeaseAsk,
        case: Case,
        remains: list[LeaseRow],
        *,
        patient: bool,
    ) -> LeaseRow | Refusal | None:
        verdict = decide(asking, case.facts)
        if not isinstance(verdict, Admit):
            return self._refused(tx, asking, verdict)
        if case.facts.supply is None:
            return None
        if case.offer is not None:
            _let_go(tx, asking, remains)
            adopted = self._adopt(tx, asking, case, case.offer)
            if adopted is not None:
                return adopted
            # It was given back meanwhile: what is free now counts.
            after = self._admission.reader(tx, asking.person, asking.now, takes=True).case(asking)
            return self._answer(tx, asking, after, remains, patient=patient)
        silent_before = self._context.silent_before(asking.now)
        for kinds in verdict.choices:
            taken = take(tx, asking, verdict.grant_id, silent_before, kinds, patient=patient)
            if taken is not None:
                break
        if taken is None:
            return self._refused(tx, asking, None)
        if verdict.grant_id is not None:
            end_reservation(tx, verdict.grant_id, asking.now, "the grant has its card")
        # Cards before leases, as everybody locks them.
        _let_go(tx, asking, remains)
        latest = promises.of_card(tx, case.facts.supply.promised, taken.card_uuid)
        lease = self._lend(tx, asking, taken, case.grant, latest)
        done = [] if case.ticket is None or asking.use is not Use.START else [case.ticket]
        for offer in case.unfit:
            begin_release(tx, offer, UNFIT, asking.person.name, asking.now)
            done += [
                row for row in [queries.tickets.by_id(tx, offer.ticket_id or 0)] if row is not None
            ]
        for ticket in done:
            close_ticket(tx, ticket, TAKEN, "started without an offer", asking.now)
        return lease

    def _refused(self, tx: Transaction, asking: LeaseAsk, verdict: Deny | Wait | None) -> Refusal:
        """Return the refusal of a start, with what could be had instead where there is no capacity.

        Without a verdict it was admitted and found nothing to take. A card that can be emptied for
        its grant is set aside first.
        """
        if verdict is not None and verdict.reason not in (Reason.CAPACITY, Reason.TURN):
            return refusal_of(verdict)
        reader = self._admission.reader(tx, asking.person, asking.now)
        emptied = ""
        if verdict is None or verdict.reason is Reason.CAPACITY:
            case = reader.case(asking)
            supply = case.facts.supply
            assert supply is not None
            verdict = none_left(asking, supply)
            if verdict.can_empty and case.grant is not None:
                silent_before = self._context.silent_before(asking.now)
                left = supply.unpromised(asking.now)
                emptied = reserve(tx, asking, case.grant, silent_before, left)
                # Less is free now.
                reader = self._admission.reader(tx, asking.person, asking.now)
        # A ticket is served later; its person chooses nothing now.
        instead = "" if asking.use is Use.OFFER else self._tiers.instead(reader, asking)
        if verdict.reason is Reason.TURN and instead == NOTHING_ELSE:
            instead = ""  # the sentence ends with the same advice
        words = (verdict.sentence, emptied, instead)
        return Refusal(" ".join(each for each in words if each), reason=verdict.reason.refusal)

    def _adopt(
        self, tx: Transaction, asking: LeaseAsk, case: Case, offer: LeaseRow
    ) -> LeaseRow | None:
        """Turn the lease held for this person and tier into this start's; None if it is gone."""
        assert case.facts.supply is not None
        grant = case.grant
        latest = promises.of_card(tx, case.facts.supply.promised, offer.card_uuid)
        lease = queries.leases.adopt(
            tx,
            offer.id,
            attempt=asking.attempt,
            server=asking.server,
            now=asking.now,
            deadline=asking.deadline,
            ends_at=_end_of(asking, grant, latest),
            request_id=grant.id if grant is not None else None,
            started=asking.started,
        )
        if lease is None:
            return None
        lease_event(tx, lease, asking.now, asking.person.name, slice=lease.slice_uuid or "")
        ticket = queries.tickets.by_id(tx, offer.ticket_id or 0)
        if ticket is not None:
            close_ticket(tx, ticket, TAKEN, "started", asking.now)
        return lease

    def _lend(
        self,
        tx: Transaction,
        asking: LeaseAsk,
        taken: Allocation,
        grant: RequestRow | None,
        latest: datetime | None,
    ) -> LeaseRow:
        lease = LeaseRow(
            id=taken.lease_id,
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
            hub=self._context.hub,
            ticket_id=asking.ticket,
            started=asking.started,
        )
        lease = queries.leases.insert(tx, lease)
        lease_event(
            tx,
            lease,
            asking.now,
            asking.person.name,
            kind="lease.offered" if asking.ticket is not None else "",
            slice=taken.slice_uuid or "",
        )
        return lease


def _end_of(asking: LeaseAsk, grant: RequestRow | None, latest: datetime | None) -> datetime | None:
    """Return the latest end of a session that begins now; None when it has none."""
    ends = [] if latest is None else [latest]
    if asking.tier.max_hours is not None:
        ends.append(asking.now + timedelta(hours=asking.tier.max_hours))
    if grant is not None and grant.valid_until is not None:
        ends.append(grant.valid_until)
    return min(ends, default=None)


def _same_again(known: LeaseRow, asking: LeaseAsk, hub: str) -> LeaseRow | Refusal:
    mine = (hub, asking.person.name, asking.server, asking.tier.name)
    of_this = (known.hub, known.user, known.server, known.tier)
    if of_this != mine or known.ticket_id != asking.ticket:
        return Refusal(
            "This start belongs to another server or tier; start again.", reason="conflict"
        )
    if known.state in HELD:
        return known
    return Refusal(
        f"This start has already ended ({known.end_reason}); start again.", reason="conflict"
    )


def _let_go(tx: Transaction, asking: LeaseAsk, remains: list[LeaseRow]) -> None:
    """Let what earlier starts of the same server left behind begin to end, once."""
    while remains:
        reason = "replaced by a new start of the same server"
        begin_release(tx, remains.pop(), reason, asking.person.name, asking.now)
