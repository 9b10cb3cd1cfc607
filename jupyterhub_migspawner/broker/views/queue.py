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
    """Expected seconds, estimated from past sessions."""
    latest: int | None
    """Seconds at the latest, from the ends of running sessions; null if a session has no end."""
    confidence: Annotated[str, one_of(LOW, MEDIUM, HIGH)]
    sessions: int
    """How many past sessions the estimate is based on."""
    stuck: int
    """How many sessions are left out because they should have ended but still hold their GPU."""


class Ticket(TypedDict):
    """A ticket of the queue."""

    id: int
    user: str
    server: str
    """Its server; empty for the default server."""
    tier: str
    tiers: list[str]
    """The accepted tiers, best first."""
    start: bool
    """Whether the hub starts the server when it is its turn."""
    state: Annotated[
        str,
        one_of(WAITING, OFFERED, TAKEN, LAPSED, CANCELLED),
    ]
    since: Timestamp
    place: int | None
    """The queue position: The position in the queue, from 1; null if it is not waiting."""
    wait: Wait | None
    """The expected wait; null if it is not waiting."""
    blocked: str
    """Why it is blocked; empty if it is not."""
    offered_tier: str | None
    offer_until: Timestamp | None
    """Until when an offer is held for it."""
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
