"""Requests, grants and drafts as JSON."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.views.json import Timestamp, one_of, timestamp, timestamp_of
from jupyterhub_migspawner.model.requests import DraftRow, RequestRow


class Request(TypedDict):
    """An application for a tier that needs approval; an approved one is a grant."""

    id: int
    user: str
    tier: str
    hours: float
    reason: str
    state: Annotated[str, one_of("pending", "approved", "denied", "cancelled", "expired", "used")]
    created_at: Timestamp
    decided_by: str
    decided_at: Timestamp | None
    decision_reason: str
    valid_until: Timestamp | None
    hub: str
    """The hub where it was filed."""
    groups: list[str]
    """The user's groups when they filed the request; they determine who may decide."""
    starts_at: Timestamp | None
    """Start time; null if it starts when it is approved."""
    valid_from: Timestamp | None
    first_by: str
    """The first of two approvers; empty if only one is needed, or none has approved yet."""
    uses: int
    """How many servers have been started on it."""


class Draft(TypedDict):
    """A request that is not filed yet; only its author sees it."""

    id: int
    tier: str
    hours: str
    """As typed, like all fields."""
    starts_at: str
    reason: str
    changed_at: Timestamp


def request_view(request: RequestRow) -> Request:
    """Return a request or grant."""
    return {
        "id": request.id,
        "user": request.user,
        "tier": request.tier,
        "hours": request.hours,
        "reason": request.reason,
        "state": request.state,
        "created_at": timestamp_of(request.created_at),
        "decided_by": request.decided_by,
        "decided_at": timestamp(request.decided_at),
        "decision_reason": request.decision_reason,
        "valid_until": timestamp(request.valid_until),
        "hub": request.hub,
        "groups": list(request.groups),
        "starts_at": timestamp(request.starts_at),
        "valid_from": timestamp(request.valid_from),
        "first_by": request.first_by,
        "uses": request.uses,
    }


def draft_view(draft: DraftRow) -> Draft:
    """Return a draft of a request."""
    return {
        "id": draft.id,
        "tier": draft.tier,
        "hours": draft.hours,
        "starts_at": draft.starts_at,
        "reason": draft.reason,
        "changed_at": timestamp_of(draft.changed_at),
    }
