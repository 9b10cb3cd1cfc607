"""Tickets of the queue as JSON."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.statuses import TicketStatus
from jupyterhub_migspawner.broker.views.json import (
    Timestamp,
    one_of,
    seconds,
    timestamp,
    timestamp_of,
)
from jupyterhub_migspawner.model.tickets import CANCELLED, LAPSED, OFFERED, TAKEN, WAITING
from jupyterhub_migspawner.policy.queue import HIGH, LOW, MEDIUM, Expectation


class Wait(TypedDict):
    """How long the wait for a tier may take."""

    likely: int | None
    """Seconds, from how long past sessions took."""
    latest: int | None
    """Seconds, from the ends of the sessions that run; null where one has none."""
    confidence: Annotated[str, one_of(LOW, MEDIUM, HIGH)]
    sessions: int
    """How many past sessions that is from."""
    stuck: int
    """How many sessions are left out, since they should have ended and still hold their GPU."""


class Ticket(TypedDict):
    """A ticket of the queue."""

    id: int
    user: str
    server: str
    """The server it is for; empty for the default one."""
    tier: str
    tiers: list[str]
    """The tiers that will do, best first."""
    start: bool
    """Whether the hub starts the server when it is its turn."""
    state: Annotated[
        str,
        one_of(WAITING, OFFERED, TAKEN, LAPSED, CANCELLED),
    ]
    since: Timestamp
    place: int | None
    """The queue position: 1 for the next one; null where it does not wait for its turn."""
    wait: Wait | None
    """How long it may take; null where it does not wait for its turn."""
    blocked: str
    """What keeps it from its turn; empty for nothing."""
    offered_tier: str | None
    offer_until: Timestamp | None
    """Until when something is held for it."""
    ended_at: Timestamp | None
    end_reason: str
    hub: str


def ticket_view(status: TicketStatus) -> Ticket:
    """Return a ticket of the queue; waits in seconds."""
    row, expectation = status.row, status.expectation
    return {
        "id": row.id,
        "user": row.user,
        "server": row.server,
        "tier": row.tier,
        "tiers": list(row.tiers),
        "start": row.start,
        "state": row.state,
        "since": timestamp_of(row.created_at),
        "place": status.place or None,
        "wait": None if expectation is None else _wait_view(expectation),
        "blocked": row.blocked,
        "offered_tier": status.lease.tier if status.lease else None,
        "offer_until": timestamp(status.lease.deadline) if status.lease else None,
        "ended_at": timestamp(row.ended_at),
        "end_reason": row.end_reason,
        "hub": row.hub,
    }


def _wait_view(expectation: Expectation) -> Wait:
    return {
        "likely": seconds(expectation.likely),
        "latest": seconds(expectation.latest),
        "confidence": expectation.confidence,
        "sessions": expectation.sessions,
        "stuck": expectation.stuck,
    }
