"""Whether a user may have something now: decided here, once, for everyone who asks.

The form, the REST API, the command line, a start, a ticket and the offer for a ticket
all go through :func:`decide`, so that what is offered is given, and what is refused names the same
rule everywhere. Pure: the broker reads the facts in the transaction that acts on the answer, after
its locks; the conditional UPDATE that takes the slice stays the last word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from jupyterhub_migspawner.model.cards import Kinds
from jupyterhub_migspawner.policy import grants, quotas, supply, tiers
from jupyterhub_migspawner.policy.grants import Grants
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.quotas import Quota, Usage
from jupyterhub_migspawner.policy.supply import Supply
from jupyterhub_migspawner.policy.tiers import Tier


class Use(Enum):
    """What is asked for."""

    START = "start"
    """A server starts now; joining the waiting list asks about that, too."""
    OFFER = "offer"
    """Something to hold for a ticket whose turn it is."""


class Reason(Enum):
    """The rule that says no; its value is the reason of the :class:`~..errors.Refusal`."""

    def __init__(self, rule: str, refusal: str) -> None:
        self.rule = rule
        self.refusal = refusal

    TIER = "tier", "not-allowed"
    GRANT = "grant", "approval"
    QUOTA = "quota", "quota"
    RESERVATION = "reservation", "capacity"
    TURN = "turn", "capacity"
    CAPACITY = "capacity", "capacity"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """Who asks for which tier, for which server, and what for.

    ``server`` None stands for one that is not there yet, beside all that the person has. ``node``
    narrows it to one node, and ``only_node`` is the one on which the hub's servers run, where they
    run on one. ``other_servers`` is how many other servers of the person run or start,
    also without a GPU; None where the caller does not know, and their leases are counted.
    ``stopping`` are the names of those of them that the hub is just stopping.
    """

    person: Person
    tier: Tier
    now: datetime
    use: Use = Use.START
    server: str | None = ""
    node: str | None = None
    only_node: str | None = None
    other_servers: int | None = None
    stopping: frozenset[str] = frozenset()

    @property
    def on_node(self) -> str | None:
        """The node whose cards count; None for all."""
        return self.node or self.only_node


@dataclass(frozen=True)
class Facts:
    """What a decision goes by, as of one moment.

    ``used`` is what counts against the quota for this ask. ``is_held`` says that what is asked for
    is held for the person already. ``supply`` is None for a tier without a GPU.
    """

    limits: Quota
    used: Usage
    grants: Grants = field(default_factory=Grants)
    is_held: bool = False
    supply: Supply | None = None


@dataclass(frozen=True)
class Admit:
    """Yes: from cards of these kinds, the best first (None: any), on this grant."""

    choices: tuple[Kinds | None, ...] = (None,)
    grant_id: int | None = None


@dataclass(frozen=True)
class Deny:
    """No, and the waiting list does not help."""

    reason: Reason
    sentence: str


@dataclass(frozen=True)
class Wait:
    """Not now, but the waiting list helps: a ticket is served once this is over.

    ``soon`` says that only earlier sessions of the same person keep the rule from saying yes, and
    that they are just ending: a start waits for that. ``can_empty`` says that a start is worth it
    all the same: it has a card emptied for its grant.
    """

    reason: Reason
    sentence: str
    soon: bool = False
    can_empty: bool = False


Verdict = Admit | Deny | Wait

Outcome = Kinds | Deny | Wait | None
"""The kinds of cards that a rule leaves (None: any), or its no."""


class Rule(NamedTuple):
    """One rule: which it is, and what it says to an ask for cards of some kinds."""

    reason: Reason
    check: Callable[[Ask, Facts, Kinds | None], Outcome]


def decide(ask: Ask, facts: Facts) -> Verdict:
    """Decide whether this can be had now, by the first of :data:`RULES` that says no."""
    kinds = facts.supply.kinds if facts.supply is not None else None
    for rule in RULES:
        outcome = rule.check(ask, facts, kinds)
        if isinstance(outcome, Deny | Wait):
            return outcome
        kinds = outcome
    grant = facts.grants.free if ask.tier.approval else None
    return Admit(_preferred(ask, facts, kinds), grant.id if grant is not None else None)


def none_left(ask: Ask, of: Supply) -> Wait:
    """Return the verdict where nothing can be given out, also when taking it shows that."""
    sentence = supply.none_free(ask.tier, of.total, ask.node, of.outage)
    return Wait(Reason.CAPACITY, sentence, can_empty=of.can_empty)


def _tier(ask: Ask, facts: Facts, kinds: Kinds | None) -> Outcome:
    why = tiers.may_use(ask.tier, ask.person)
    return Deny(Reason.TIER, why) if why else kinds


def _grant(ask: Ask, facts: Facts, kinds: Kinds | None) -> Outcome:
    if not ask.tier.approval:
        return kinds
    why = grants.why_not(ask.tier, facts.grants, ask.now)
    if not why:
        return kinds
    if not facts.grants.valid:
        return Deny(Reason.GRANT, why)
    return Wait(Reason.GRANT, why, soon=facts.grants.settled(ask.now).free is not None)


def _quota(ask: Ask, facts: Facts, kinds: Kinds | None) -> Outcome:
    why = quotas.check(facts.limits, facts.used, ask.tier)
    if not why:
        return kinds
    if quotas.check(facts.limits, Usage(ask.now), ask.tier):
        # Whatever ends, it stays beyond what they may have.
        return Deny(Reason.QUOTA, why)
    settled = quotas.check(facts.limits, facts.used.settled(), ask.tier)
    return Wait(Reason.QUOTA, why, soon=not settled)


def _reservation(ask: Ask, facts: Facts, kinds: Kinds | None) -> Outcome:
    if facts.supply is None or facts.is_held:
        return kinds
    of = facts.supply
    left = of.unpromised(ask.now)
    if left == frozenset() and of.meant:
        return Wait(Reason.RESERVATION, supply.all_promised(of))
    return left


def _turn(ask: Ask, facts: Facts, kinds: Kinds | None) -> Outcome:
    of = facts.supply
    if of is None or facts.is_held or ask.use is Use.OFFER or not of.ahead.others:
        return kinds
    # Nobody who waits could be given these.
    if of.is_kept or (of.has_seat and not of.ahead.seats):
        return kinds
    spare = of.spare(ask.tier, kinds)
    if of.free_of(spare):
        return spare
    return Wait(Reason.TURN, supply.they_wait(ask.tier, of.ahead.others))


def _capacity(ask: Ask, facts: Facts, kinds: Kinds | None) -> Outcome:
    of = facts.supply
    if of is None or facts.is_held or of.free is None or of.free_of(kinds):
        return kinds
    return none_left(ask, of)


RULES = (
    Rule(Reason.TIER, _tier),
    Rule(Reason.GRANT, _grant),
    Rule(Reason.QUOTA, _quota),
    Rule(Reason.RESERVATION, _reservation),
    Rule(Reason.TURN, _turn),
    Rule(Reason.CAPACITY, _capacity),
)
"""All rules, in the order in which they are asked."""


def _preferred(ask: Ask, facts: Facts, kinds: Kinds | None) -> tuple[Kinds | None, ...]:
    """Return the kinds of cards to take from, best first.

    A ticket takes what nobody else waits for, if anything of it is free; but the card that is kept
    for a grant comes before any other.
    """
    of = facts.supply
    if ask.use is not Use.OFFER or of is None or of.is_kept or not of.ahead.others:
        return (kinds,)
    spare = of.spare(ask.tier, kinds)
    return (spare, kinds) if of.free_of(spare) else (kinds,)
