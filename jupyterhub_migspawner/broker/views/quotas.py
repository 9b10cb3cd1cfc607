"""Limits of people and exceptions from them as JSON."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.statuses import QuotaStatus
from jupyterhub_migspawner.broker.views.json import Timestamp, one_of, timestamp, timestamp_of
from jupyterhub_migspawner.model.quotas import QuotaExceptionRow
from jupyterhub_migspawner.policy.quotas import FIELDS

QuotaField = Annotated[str, one_of(*FIELDS)]
"""What a quota limits."""


class QuotaException(TypedDict):
    """More of one field of a quota for one person, until its end."""

    id: int
    user: str
    field: str
    limit: float | None
    """Null for no limit."""
    reason: str
    granted_by: str
    granted_at: Timestamp
    until: Timestamp
    ended_by: str
    """Empty unless it was ended early."""
    ended_at: Timestamp | None
    hub: str


class Limit(TypedDict):
    """One field of a person's quota."""

    field: QuotaField
    limit: float | None
    """Null: no limit, by an exception."""
    used: float | None
    """Null if the hub did not report how many servers run."""
    frees_at: Timestamp | None
    """When GPU-hours become available again, if nothing is used until then."""
    exceptions: list[QuotaException]


def quota_view(status: QuotaStatus) -> Limit:
    """Return one limit of a person, and how much of it is used."""
    return {
        "field": status.field,
        "limit": status.limit,
        "used": None if status.used is None else round(status.used, 3),
        "frees_at": timestamp(status.frees_at),
        "exceptions": [exception_view(row) for row in status.exceptions],
    }


def exception_view(row: QuotaExceptionRow) -> QuotaException:
    """Return an exception from a quota."""
    return {
        "id": row.id,
        "user": row.user,
        "field": row.field,
        "limit": row.amount,
        "reason": row.reason,
        "granted_by": row.granted_by,
        "granted_at": timestamp_of(row.granted_at),
        "until": timestamp_of(row.until),
        "ended_by": row.ended_by,
        "ended_at": timestamp(row.ended_at),
        "hub": row.hub,
    }
