"""From when on a card has to be kept free for a grant that begins later.

Pure and deterministic. Nothing that runs is ended for it: a card stops taking new sessions once one
that begins now might still run when the grant begins, and not sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from jupyterhub_migspawner.policy.tiers import Tier

WITHOUT_LIMIT = timedelta(hours=24)
"""How long a session without ``max_hours`` is taken to run."""


def longest_session(tiers: Sequence[Tier]) -> timedelta:
    """How long a session on a slice, or on a card, that begins now may run."""
    lengths = [
        WITHOUT_LIMIT if tier.max_hours is None else timedelta(hours=tier.max_hours)
        for tier in tiers
        if not tier.is_none
    ]
    return max(lengths, default=timedelta(0))


def is_due(valid_from: datetime, longest: timedelta, now: datetime) -> bool:
    """Whether a session that begins now might still run when the grant begins."""
    return now + longest >= valid_from
