"""What there is of a tier for one person now.

What is free on which kinds of cards, what of it is promised to a grant that begins later, and who
waits for it.

Pure. Kinds of cards are sets throughout; None stands for any card, as it does for a tier that does
not tell cards apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from jupyterhub_migspawner.model.cards import CardKind, Kinds
from jupyterhub_migspawner.policy.queue import Pool
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment, quoted

SHORTEST = timedelta(minutes=10)
"""A session on a whole card that would have to end sooner for a coming grant is not begun."""


@dataclass(frozen=True)
class Ahead:
    """Who else waits for what a tier gives.

    ``others`` is how many, ``seats`` how many of them wait for the very same and not only for
    something like it, and ``pools`` what they wait for.
    """

    others: int = 0
    seats: int = 0
    pools: tuple[Pool, ...] = ()

    def spare(self, tier: Tier, known: Kinds) -> Kinds:
        """Return the kinds of cards that the tier means and none of the others waits for."""
        wanted: set[CardKind] = set()
        for pool in self.pools:
            if pool.hardware == tier.profile:
                wanted |= known if pool.kinds is None else pool.kinds
        means = tier.kinds(known)
        return (known if means is None else means) - wanted


@dataclass(frozen=True)
class Supply:
    """What a decision about a tier with a GPU goes by, apart from the person's own rights.

    ``kinds`` are those of the cards that the tier means, ``known`` those that are told apart and
    ``every`` those that there are. ``free`` is how much can be given out on each kind, and under
    None on all; seats where the tier shares its slices. It is None where nothing was counted, since
    a start finds out when it takes. ``total`` counts what is in service.
    ``promised`` is when a session that begins now has to give a whole card of a kind on, for a
    grant that begins then (UTC). ``is_kept`` says that a card is kept for the person's own grant,
    ``has_seat`` that there is a free seat on a slice that is shared already, and ``can_empty`` that
    a card can be emptied for the grant where none is free. ``outage`` is the sentence about cards
    that are out of service.
    """

    kinds: Kinds | None = None
    known: Kinds = frozenset()
    every: Kinds = frozenset()
    free: Mapping[CardKind | None, int] | None = None
    total: int = 0
    promised: Mapping[CardKind, datetime] = field(default_factory=dict)
    ahead: Ahead = field(default_factory=Ahead)
    is_kept: bool = False
    has_seat: bool = False
    can_empty: bool = False
    outage: str = ""

    @property
    def meant(self) -> Kinds:
        """The kinds of cards that there are and that the tier means."""
        return self.every if self.kinds is None else self.kinds

    def free_of(self, kinds: Kinds | None) -> int:
        """Return how much is free on cards of these kinds, where that was counted."""
        assert self.free is not None
        if kinds is None:
            return self.free.get(None, 0)
        return sum(self.free.get(kind, 0) for kind in kinds)

    def unpromised(self, now: datetime) -> Kinds | None:
        """Return those of the tier's kinds of cards on which a session may begin now."""
        due = {kind for kind, end in self.promised.items() if end <= now + SHORTEST}
        if not due:
            return self.kinds
        return self.meant - due

    def spare(self, tier: Tier, kinds: Kinds | None) -> Kinds:
        """Return those of some kinds of cards for which none of the others waits."""
        spare = self.ahead.spare(tier, self.known)
        return spare if kinds is None else spare & kinds


def all_promised(supply: Supply) -> str:
    """Return the sentence for a tier whose cards are all promised to grants that begin soon."""
    begin = min(supply.promised[kind] for kind in supply.meant)
    return (
        f"Every card is reserved for a grant that begins at {moment(begin)}. Please try again "
        "after that."
    )


def they_wait(tier: Tier, others: int) -> str:
    """Return the sentence for a tier that others have been waiting for."""
    people = "1 person is waiting" if others == 1 else f"{others} people are waiting"
    return f"{people} for tier {tier.title} and will be served first. Join the waiting list."


def none_free(tier: Tier, total: int, node: str | None = None, outage: str = "") -> str:
    """Return the sentence for a tier of which nothing is free, on a node if one was asked for.

    ``outage`` is the sentence about its cards that are out of service.
    """
    where = "" if node is None else f" on node {quoted(node)}"
    head = _none_in_service(tier, where, outage) if not total else _none_left(tier, total, where)
    return f"{head} {outage}".rstrip()


def _none_in_service(tier: Tier, where: str, outage: str) -> str:
    head = _head(tier, where)
    if outage:
        return f"{head}."
    if not tier.is_whole:
        which = "" if tier.card is None else f" {tier.card.words}"
        return f"{head}: no card{which} is cut into {tier.profile} now."
    # A slice over all of a card is a slice: without MIG there is none.
    with_mig = "" if tier.mig_off else " with MIG on"
    if tier.card is not None:
        return f"{head}: no card {tier.card.words} is in service{with_mig}."
    return f"{head}: no card{with_mig} is in service."


def _none_left(tier: Tier, total: int, where: str) -> str:
    head = _head(tier, where)
    if where:
        return f"{head}."
    if tier.is_whole:
        cards = "the only card is" if total == 1 else f"all {total} cards are"
        return f"{head}: {cards} in use or out of service."
    slices = "the only one is" if total == 1 else f"{total} of {total} are"
    return f"{head}: {slices} in use or out of service."


def _head(tier: Tier, where: str) -> str:
    if tier.is_whole:
        what = "card"
    else:
        what = f"seat on a {tier.profile} slice" if tier.shares else f"{tier.profile} slice"
    return f"No {what} is free{where} for tier {tier.title}"
