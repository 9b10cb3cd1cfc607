"""What each person can have now: tiers with what is free, and the sentences for when it is not.

Read-only. The form, the REST API, the command line and the refusals of a start use these answers;
what may be had is decided by :mod:`..policy.admission`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from jupyterhub_migspawner.broker.admission import Admission, Reader
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.statuses import TierStatus
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import Kinds
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy import queue, tiers
from jupyterhub_migspawner.policy.admission import Admit, Ask, Deny, Reason, Wait, decide
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import Tier

NOTHING_ELSE = "No other tier is available to you now: join the waiting list."


class Tiers:
    """Use cases about tiers."""

    def __init__(self, context: Context, admission: Admission) -> None:
        self._context = context
        self._admission = admission

    def choose(self, person: Person, options: object) -> Tier:
        """Return the tier that a person's options name; see :func:`.policy.tiers.choose_tier`."""
        return tiers.choose_tier(
            self._context.settings.tiers,
            person,
            options,
            default=self._context.settings.default_of(person),
        )

    def of(
        self,
        person: Person,
        *,
        server: str | None = None,
        other_servers: int | None = None,
        stopping: Collection[str] = (),
    ) -> tuple[TierStatus, ...]:
        """Return the tiers the person may see, in the admin's order, and whether each can be had.

        ``server`` is the one that would start, which does not run; None stands for one more beside
        all that the person has. ``other_servers`` and ``stopping`` are as in
        :meth:`.acquisition.Acquisition.acquire`.
        """

        def work(tx: Transaction) -> tuple[TierStatus, ...]:
            now = self._context.now()
            return self._offers(
                self._admission.reader(tx, person, now), person, server, other_servers, stopping
            )

        return self._context.read(work)

    def _offers(
        self,
        reader: Reader,
        person: Person,
        server: str | None,
        other_servers: int | None,
        stopping: Collection[str],
    ) -> tuple[TierStatus, ...]:
        seen = tiers.seen_tiers(self._context.settings.tiers, person)
        # Once for all: the admin's own function may be asked for each.
        usable = tiers.open_tiers(self._context.settings.tiers, person)
        return tuple(
            self._offer_of(
                reader,
                Ask(
                    person=person,
                    tier=tier,
                    now=reader.now,
                    server=server,
                    only_node=self._context.settings.only_node or None,
                    other_servers=other_servers,
                    stopping=frozenset(stopping),
                ),
                seen,
                usable,
            )
            for tier in seen
        )

    def _offer_of(
        self, reader: Reader, ask: Ask, seen: tuple[Tier, ...], usable_tiers: tuple[Tier, ...]
    ) -> TierStatus:
        """Return how one tier stands, among all that the person sees and those they may use."""
        tier = ask.tier
        case = reader.case(ask)
        verdict = decide(ask, case.facts)
        supply = case.facts.supply
        known = reader.known if supply is not None else frozenset()
        same = sharing(tier, seen, known)
        free = total = 0
        if supply is not None:
            left = supply.unpromised(ask.now) if case.offer is None else supply.kinds
            free, total = supply.free_of(left), supply.total
        usable = isinstance(verdict, Admit) or (isinstance(verdict, Wait) and verdict.can_empty)
        offer = TierStatus(
            tier,
            free,
            total,
            usable,
            "" if usable or isinstance(verdict, Admit) else verdict.sentence,
            case.grant,
            shares_with=same,
            shares_all=on_all(tier, same, known),
            outage="" if supply is None else supply.outage,
        )
        if isinstance(verdict, Deny) and verdict.reason is Reason.TIER:
            return replace(offer, grant=None, open=False)
        return replace(
            offer,
            waiting=0 if supply is None else supply.ahead.others,
            ticket=case.ticket,
            held=case.offer,
            asked=_pending(reader, tier),
            full=isinstance(verdict, Wait) and not tier.is_none,
            soon=isinstance(verdict, Wait) and verdict.soon,
            larger=queue.upward(tier, usable_tiers, known)[1:],
        )

    def instead(self, reader: Reader, ask: Ask) -> str:
        """Return what could be had instead of a tier of which nothing is free, as a sentence."""
        offers = self._offers(reader, ask.person, ask.server, ask.other_servers, ask.stopping)
        usable = [
            offer.tier.title if offer.tier.is_none else f"{offer.tier.title} ({offer.free})"
            for offer in offers
            if offer.usable and offer.tier.name != ask.tier.name
            if offer.free or offer.tier.is_none
        ]
        if usable:
            return f"Free now: {', '.join(usable)}."
        return NOTHING_ELSE


def sharing(tier: Tier, others: Iterable[Tier], known: Kinds) -> tuple[Tier, ...]:
    """Return the other tiers that count the same slices, or the same cards, as this one does.

    ``known`` are the kinds of cards there are: tiers on other cards share nothing.
    """
    if tier.is_none:
        return ()
    pool = queue.pool_of(tier, known)
    return tuple(
        each for each in others if each is not tier and pool.overlaps(queue.pool_of(each, known))
    )


def on_all(tier: Tier, others: Iterable[Tier], known: Kinds) -> bool:
    """Tell whether the others mean the very cards that this one means, however that is written."""
    mine = queue.pool_of(tier, known).among(known)
    return all(queue.pool_of(each, known).among(known) == mine for each in others)


def _pending(reader: Reader, tier: Tier) -> RequestRow | None:
    if not tier.approval:
        return None
    waiting = (each for each in reader.asked if (each.tier, each.state) == (tier.name, "pending"))
    return next(waiting, None)
