"""Since when a card has to be kept free for a grant that begins later.

Pure and deterministic. Nothing that runs is ended for it: a card stops taking new sessions once one
that begins now might still run when the grant begins, and not sooner. A session on a whole card
until then gives it on: it is no longer than the time until a card is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from jupyterhub_migspawner.model.cards import CardKind, Kinds
from jupyterhub_migspawner.policy.tiers import Tier

WITHOUT_LIMIT = timedelta(hours=24)
"""How long a session without ``max_hours`` is taken to run."""


def longest_session(tiers: Sequence[Tier]) -> timedelta:
    """Return how long a session on a slice that begins now may run.

    Tiers of whole cards and those that need approval do not count: what is granted ends in time by
    :func:`longest_until`, and what is approved is known before.
    """
    lengths = [
        WITHOUT_LIMIT if tier.max_hours is None else timedelta(hours=tier.max_hours)
        for tier in tiers
        if not (tier.is_none or tier.is_whole or tier.approval)
    ]
    return max(lengths, default=timedelta(0))


def longest_until(
    total: int, others: Sequence[datetime | None], coming: Sequence[datetime]
) -> datetime | None:
    """Return when a session on a whole card that begins now has to be over at the latest.

    So that each of the ``coming`` grants (when they begin) finds a card; None: no coming grant
    needs that. ``total`` is the number of cards, ``others`` the ends of the other sessions on whole
    ones.
    """
    for number, begin in enumerate(sorted(coming), start=1):
        taken = sum(end is None or end > begin for end in others)
        if total - taken - 1 < number:
            return begin
    return None


def latest_by_kind(
    totals: Mapping[CardKind, int],
    others: Sequence[tuple[CardKind, datetime | None]],
    coming: Sequence[tuple[Kinds, datetime]],
) -> dict[CardKind, datetime]:
    """Return what :func:`longest_until` does for a session on a whole card of each kind.

    Kinds that no coming grant needs are left out. ``totals`` are the numbers of cards, ``others``
    are on cards of which kinds, and ``coming`` need one of which. Grants that can do with other
    cards do not shorten a session on this one.
    """
    latest: dict[CardKind, datetime] = {}
    for group in _groups(kinds for kinds, _ in coming):
        until = longest_until(
            sum(total for kind, total in totals.items() if kind in group),
            [end for kind, end in others if kind in group],
            [begin for kinds, begin in coming if kinds <= group],
        )
        if until is not None:
            latest |= {kind: min(until, latest.get(kind, until)) for kind in group}
    return latest


MOST_GROUPS = 64
"""Sets of kinds that are looked at one by one."""


def _groups(sets: Iterable[Kinds]) -> set[Kinds]:
    """Return sets of kinds, and what those that overlap are together.

    Who needs one of either competes for all of them.
    """
    found = set(sets)
    while True:
        if len(found) > MOST_GROUPS:
            return found | {frozenset().union(*found)}
        both = {one | two for one in found for two in found if one & two}
        if both <= found:
            return found
        found |= both


def is_due(valid_from: datetime, longest: timedelta, now: datetime) -> bool:
    """Tell whether a session that begins now might still run when the grant begins."""
    return now + longest >= valid_from
