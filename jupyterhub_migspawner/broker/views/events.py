"""Events as JSON."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.views.json import Timestamp, timestamp_of
from jupyterhub_migspawner.model.events import EventRow


class Event(TypedDict):
    """One change: who did what, when, to what and why."""

    id: int
    at: Timestamp
    actor: str
    kind: str
    user: str
    lease_id: int | None
    card_uuid: str | None
    request_id: int | None
    detail: dict[str, Any]


def event_view(event: EventRow) -> Event:
    """Return an event."""
    return {
        "id": event.id,
        "at": timestamp_of(event.at),
        "actor": event.actor,
        "kind": event.kind,
        "user": event.user,
        "lease_id": event.lease_id,
        "card_uuid": event.card_uuid,
        "request_id": event.request_id,
        "detail": event.detail,
    }
