"""From when on a card has to be kept free for a grant that begins later.

Pure and deterministic. Nothing that runs is ended for it: a card stops taking new sessions once one
that begins now might still run when the grant begins, and not sooner. Whoever has a whole card
until then gives it on: their session is no longer than the time until a card is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from jupyterhub_migspawner.policy.tiers import Tier

WITHOUT_LIMIT = timedelta(hours=24)
"""How long a session without ``max_hours`` is taken to run."""


def longest_session(tiers: Sequence[Tier]) -> timedelta:
    """How long a session on a slice that begins now may run.

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
    """When a session on a whole card that begins now has to be over at the latest, so that each of
    the ``coming`` grants (when they begin) finds a card; None: no coming grant needs that.

    ``total`` is the number of cards, ``others`` the ends of the other sessions on whole ones.
    """
    for number, begin in enumerate(sorted(coming), start=1):
        taken = sum(end is None or end > begin for end in others)
        if total - taken - 1 < number:
            return begin
    return None


def is_due(valid_from: datetime, longest: timedelta, now: datetime) -> bool:
    """Whether a session that begins now might still run when the grant begins."""
    return now + longest >= valid_from
