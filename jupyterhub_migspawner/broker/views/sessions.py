"""Running sessions as JSON: when they end and why, and what keeps them."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.broker.views.json import Timestamp, one_of, timestamp, timestamp_of
from jupyterhub_migspawner.model.leases import LOST, LeaseRow
from jupyterhub_migspawner.policy.doubts import UNKNOWN, UNPROVEN
from jupyterhub_migspawner.policy.reclaim import IDLE, TIME


class Signal(TypedDict):
    """What one source last reported about the use of a session."""

    source: str
    seen_at: Timestamp | None
    active_at: Timestamp | None
    said: str
    """What it reported, in words."""
    problem: str
    """Why it cannot report; empty when it can."""


class Doubt(TypedDict):
    """Why admins should check a session; it is not ended for that."""

    kind: Annotated[str, one_of(UNKNOWN, UNPROVEN, LOST)]
    """`lost`: its card has failed, and its server keeps running without a GPU until it is stopped
    or restarted."""
    since: Timestamp
    why: str


class Session(TypedDict):
    """A running session of a user on a slice."""

    lease: int
    user: str
    server: str
    """Empty for the default server."""
    tier: str
    since: Timestamp
    idle_since: Timestamp | None
    """Since when it has not been used; null while it is in use."""
    ends_at: Timestamp | None
    """When it ends as things are; null where no end is known."""
    rule: Annotated[str, one_of(IDLE, TIME)] | None
    """Which rule ends it then: not in use, or out of time."""
    why: str
    """Why it ends then, in a sentence."""
    unknown: list[str]
    """Sources of signals that do not answer."""
    unknown_since: Timestamp | None
    new: bool
    """Whether it has just started, so that its use has not been checked yet."""
    doubt: Doubt | None
    extended_until: Timestamp | None
    protected_until: Timestamp | None
    protected_by: str
    protected_why: str
    signals: list[Signal]


def standing_view(standing: Standing) -> Session:
    """Return a running session: whether it is in use, when it ends, and what keeps it."""
    lease, stay, found = standing.lease, standing.stay, standing.verdict
    doubt = standing.doubt
    return {
        "lease": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "since": timestamp_of(lease.since),
        "idle_since": timestamp(found.idle_since),
        "ends_at": timestamp(found.ends_at),
        "rule": found.rule or None,
        "why": found.why,
        "unknown": list(found.unknown),
        "unknown_since": timestamp(found.unknown_since),
        "new": found.new,
        "doubt": None
        if doubt is None
        else {"kind": doubt.kind, "since": timestamp_of(doubt.since), "why": doubt.why},
        "extended_until": timestamp(stay.extended_until),
        "protected_until": timestamp(stay.protected_until),
        "protected_by": stay.protected_by,
        "protected_why": stay.protected_why,
        "signals": [
            {
                "source": row.source,
                "seen_at": timestamp(row.seen_at),
                "active_at": timestamp(row.active_at),
                "said": row.said,
                "problem": row.problem,
            }
            for row in standing.readings
        ],
    }


def stranded_view(lease: LeaseRow) -> Session:
    """Return a session whose card was lost, in the shape of one that runs; nothing ends it."""
    return {
        "lease": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "since": timestamp_of(lease.since),
        "idle_since": None,
        "ends_at": None,
        "rule": None,
        "why": "",
        "unknown": [],
        "unknown_since": None,
        "new": False,
        "doubt": {
            "kind": LOST,
            "since": timestamp_of(lease.ended_at or lease.since),
            "why": lease.end_reason,
        },
        "extended_until": None,
        "protected_until": None,
        "protected_by": "",
        "protected_why": "",
        "signals": [],
    }
