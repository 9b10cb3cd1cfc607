"""Exceptions from quotas."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jupyterhub_migspawner.model.hubs import DEFAULT_HUB


@dataclass(frozen=True)
class QuotaExceptionRow:
    """More of one field of a quota for one person, until its end.

    ``amount`` None is no limit. ``ended_by`` and ``ended_at`` are set when an admin ended it
    before ``until``.
    """

    id: int
    user: str
    field: str
    amount: float | None
    reason: str
    granted_by: str
    granted_at: datetime
    until: datetime
    ended_by: str
    ended_at: datetime | None
    hub: str = DEFAULT_HUB
