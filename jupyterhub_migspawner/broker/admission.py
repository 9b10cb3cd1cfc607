"""The facts that decisions go by, read in one place: see :mod:`..policy.admission`.

A use case that acts on a decision reads them in its own transaction, after it has queued for the
person. A list reads them in a snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from jupyterhub_migspawner.broker import promises, unadopted
from jupyterhub_migspawner.broker.capacity import outage, stock
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.holdings import Holdings, ending_of, holdings
from jupyterhub_migspawner.broker.quotas import Quotas
from jupyterhub_migspawner.broker.waiting_list import WaitingList
from jupyterhub_migspawner.db import allocation, queries
from jupyterhub_migspawner.db.queries.capacity import Count
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.cards import CardKind, Kinds
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy.admission import Ask, Deny, Facts, Use, Wait
from jupyterhub_migspawner.policy.grants import Grant, Grants, Holder
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.quotas import Quota, Span
from jupyterhub_migspawner.policy.supply import Ahead, Supply
from jupyterhub_migspawner.policy.tiers import Tier


@dataclass(frozen=True)
class Case:
    """An ask with the facts of its decision, and the rows from which they come.

    ``grant`` is the one to use, or else the first that holds; ``offer`` is what is held for the
    person in that tier, ``unfit`` what is held there and is not what the tier gives any more.
    ``ticket`` is their own place.
    """

    ask: Ask
    facts: Facts
    have: Holdings
    grant: RequestRow | None = None
    offer: LeaseRow | None = None
    unfit: tuple[LeaseRow, ...] = ()
    ticket: TicketRow | None = None


@dataclass(frozen=True, kw_only=True)
class LeaseAsk(Ask):
    """One acquire: an ask that takes what it is given, in which attempt and until when.

    ``ticket`` is set when it is no start yet: what is taken is held for that ticket.
    ``started`` is when the hub began the start, by its own clock.
    """

    server: str
    attempt: str
    deadline: datetime
    ticket: int | None = None
    started: datetime | None = None


def refusal_of(verdict: Deny | Wait) -> Refusal:
    """Return the refusal that reports a decision."""
    soon = isinstance(verdict, Wait) and verdict.soon
    return Refusal(verdict.sentence, reason=verdict.reason.refusal, soon=soon)


class Admission:
    """The source of the facts of a decision."""

    def __init__(self, context: Context, quotas: Quotas, waiting_list: WaitingList) -> None:
        self._context = context
        self._quotas = quotas
        self._waiting_list = waiting_list

    def reader(
        self, tx: Transaction, person: Person, now: datetime, *, takes: bool = False
    ) -> Reader:
        """Return a reader of the facts for the asks of one person.

        ``takes`` is for an ask that takes what it is admitted to: a grant stays what it is until
        the end of the transaction, and what is free is counted only where others wait for it.
        """
        return Reader(self._context, self._quotas, self._waiting_list, tx, person, now, takes=takes)


class Reader:
    """A reader of the facts about one person's asks in one transaction.

    It reads once what several asks need.
    """

    def __init__(
        self,
        context: Context,
        quotas: Quotas,
        waiting_list: WaitingList,
        tx: Transaction,
        person: Person,
        now: datetime,
        *,
        takes: bool,
    ) -> None:
        self._context = context
        self._quotas = quotas
        self._waiting_list = waiting_list
        self._tx = tx
        self._person = person
        self.now = now
        self._takes = takes
        self._supplies: dict[object, Supply] = {}

    def case(self, ask: Ask) -> Case:
        """Return the facts about one ask of this person."""
        tier = ask.tier
        have = holdings(self.leases, self._context.hub, ask)
        # A person with one offer does not get another beyond their quota; a start counts
        # sessions only, since what they ask for may well be that of the offer.
        counted = have.sessions + (have.offered if ask.use is Use.OFFER else ())
        servers = ask.other_servers
        used = self._quotas.usage(
            counted,
            ask.now,
            self._spans,
            have.servers(self._context.hub) if servers is None else servers,
            ask.stopping,
        )
        if tier.is_none:
            return Case(ask, Facts(self.limits, used), have)
        held = [offer for offer in have.offered if self._is_for(offer, ask)]
        unfit = tuple(
            offer for offer in held if not self._waiting_list.still_gives(self._tx, offer)
        )
        offer = next((each for each in held if each not in unfit), None)
        grants, grant = Grants(), None
        if tier.approval:
            grants, grant = self._grants(ask, have.on_grants(offer), unfit)
        ahead, ticket = self._waiting_list.ahead(self.waiting, ask.person, tier, self.known)
        supply = self._supply(ask, grant if grants.free is not None else None, ahead, offer)
        facts = Facts(self.limits, used, grants, offer is not None, supply)
        return Case(ask, facts, have, grant, offer, unfit, ticket)

    def read_start(self, ask: LeaseAsk) -> None:
        """Read together what a start needs in any case.

        On PostgreSQL this is one round trip; whatever else is needed takes one more each.
        """
        if not self._tx.postgres:
            return
        name, whole = self._person.name, ask.tier.is_whole
        with self._tx.together() as tx:
            queries.leases.by_attempt(tx, ask.attempt)
            queries.tombstones.reason(tx, ask.attempt)
            queries.orphans.of_user(tx, name)
            queries.leases.counted_of(tx, name)
            self._quotas.read_limits(tx, self._person, self.now)
            if ask.tier.is_none:
                return
            if ask.tier.approval:
                queries.requests.grants(tx, name, ask.tier.name, self.now)
            self._waiting_list.served(tx, self.now)
            self._context.known_kinds(tx)
            if whole:
                queries.requests.coming(tx, self.now)

    @cached_property
    def orphans(self) -> tuple[OrphanRow, ...]:
        """The person's servers without a lease."""
        return queries.orphans.of_user(self._tx, self._person.name)

    @cached_property
    def leases(self) -> tuple[LeaseRow, ...]:
        """All that counts against the person."""
        return (*queries.leases.counted_of(self._tx, self._person.name), *self._without_lease)

    @cached_property
    def limits(self) -> Quota:
        """The person's quota."""
        return self._quotas.limits(self._tx, self._person, self.now)[0]

    @cached_property
    def count(self) -> Count:
        """How much is free and how much there is."""
        return self._context.count(self._tx, self.now)

    @cached_property
    def known(self) -> Kinds:
        """The kinds of cards, where any tier tells them apart."""
        return self._context.known_kinds(self._tx)

    @cached_property
    def waiting(self) -> tuple[TicketRow, ...]:
        """The tickets that wait."""
        return self._waiting_list.served(self._tx, self.now)

    @cached_property
    def asked(self) -> tuple[RequestRow, ...]:
        """The person's requests that wait for a decision or are approved."""
        return queries.requests.open_of_user(self._tx, self._person.name)

    @cached_property
    def _spans(self) -> tuple[Span, ...]:
        return self._quotas.spans_of(
            self._tx, self._person, self.limits, self.now, self._without_lease
        )

    @cached_property
    def _without_lease(self) -> tuple[LeaseRow, ...]:
        return unadopted.sessions_of(self._tx, self._context.settings, self.orphans, self.now)

    def _is_for(self, offer: LeaseRow, ask: Ask) -> bool:
        """Tell whether a start may take over what is held."""
        here = (offer.hub, offer.tier) == (self._context.hub, ask.tier.name)
        return here and not offer.ending and ask.use is Use.START

    def _grants(
        self, ask: Ask, leases: tuple[LeaseRow, ...], unfit: tuple[LeaseRow, ...]
    ) -> tuple[Grants, RequestRow | None]:
        """Return the person's grants for a tier with these leases, and the first or free one."""
        tier = ask.tier
        if self._takes:
            every = queries.requests.grants(self._tx, ask.person.name, tier.name, ask.now)
        else:
            every = tuple(each for each in self.asked if each.tier == tier.name)
        valid = _valid(every, tier, ask.now)
        pending, begins = None, None
        if not valid:
            mine = [each for each in self.asked if each.tier == tier.name]
            pending = next((each.id for each in mine if each.state == "pending"), None)
            begins = min(
                (each.valid_from for each in mine if each.valid_from and each.valid_from > ask.now),
                default=None,
            )
        grants = Grants(
            tuple(
                Grant(
                    each.id,
                    tuple(
                        self._holder(lease, unfit)
                        for lease in leases
                        if lease.request_id == each.id
                    ),
                )
                for each in valid
            ),
            pending,
            begins,
        )
        free = grants.free
        if free is None:
            return grants, valid[0] if valid else None
        return grants, next(each for each in valid if each.id == free.id)

    def _holder(self, lease: LeaseRow, unfit: tuple[LeaseRow, ...]) -> Holder:
        return Holder(
            lease.server,
            ending_of(self._context.settings, lease) if lease.ending else None,
            is_offer=lease.ticket_id is not None,
            elsewhere=lease.hub if lease.hub != self._context.hub else "",
            until=lease.deadline,
            is_unfit=lease in unfit,
        )

    def _supply(
        self, ask: Ask, grant: RequestRow | None, ahead: Ahead, offer: LeaseRow | None
    ) -> Supply:
        tier, grant_id = ask.tier, grant.id if grant is not None else None
        key = (tier.name, ask.on_node, grant_id, offer.id if offer is not None else None)
        if key not in self._supplies:
            self._supplies[key] = self._read_supply(ask, grant, ahead, offer)
        return self._supplies[key]

    def _read_supply(
        self, ask: Ask, grant: RequestRow | None, ahead: Ahead, offer: LeaseRow | None
    ) -> Supply:
        tx, tier, now = self._tx, ask.tier, ask.now
        grant_id = grant.id if grant is not None else None
        silent, kinds = self._context.silent_before(now), tier.kinds(self.known)
        promised: dict[CardKind, datetime] = {}
        if tier.is_whole:
            but = offer.id if offer is not None else None
            promised = promises.latest_ends(
                tx, self._context.settings, tier, grant, now, lambda: self.count, but
            )
        every = self.known or (queries.cards.kinds(tx) if promised else frozenset())
        if self._takes and not ahead.others:
            return Supply(kinds, self.known, every, promised=promised, ahead=ahead)
        free: dict[CardKind | None, int] = {
            kind: stock(self.count, tier, frozenset((kind,)), grant_id, ask.on_node)[0]
            for kind in every
        }
        free[None] = stock(self.count, tier, None, grant_id, ask.on_node)[0]
        supply = Supply(
            kinds,
            self.known,
            every,
            free,
            stock(self.count, tier, kinds, node=ask.on_node)[1],
            promised,
            ahead,
            outage=outage(
                tx, self._context.settings, ask.person, tier, self.count, kinds, ask.on_node
            ),
        )
        if tier.shares and ahead.others:
            shared = allocation.seats.offers(
                tx, tier.name, tier.profile, tier.seats, silent, ask.on_node, kinds
            )
            return replace(supply, has_seat=bool(shared))
        if grant_id is None or not tier.is_whole:
            return supply
        mig_off = tier.mig_off
        if ahead.others:
            kept = allocation.cards.is_kept(
                tx, silent, grant_id, ask.on_node, mig_off=mig_off, kinds=kinds
            )
            supply = replace(supply, is_kept=kept)
        if self._takes:
            return supply
        # A card that is promised to another grant is not emptied for this one.
        left = supply.unpromised(now)
        if supply.free_of(left):
            return supply
        busy = allocation.cards.busy_cards(
            tx, silent, ask.on_node, grant_id=grant_id, mig_off=mig_off, kinds=left
        )
        return replace(supply, can_empty=bool(busy))


def _valid(asked: tuple[RequestRow, ...], tier: Tier, now: datetime) -> tuple[RequestRow, ...]:
    """Return those of some requests for a tier that are grants now, the longest first."""
    valid = [
        (request.valid_until, -request.id, request)
        for request in asked
        if request.holds_at(now)
        and not tier.is_used_up(request.uses)
        and request.valid_until is not None
    ]
    return tuple(each[2] for each in sorted(valid, reverse=True))
