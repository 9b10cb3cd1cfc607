"""What a server's processes and its hub remember of its lease, apart from the lease database.

The processes carry it in their environment, the hub in the spawner's saved state. Should the
database be deleted, or restored from an older copy, it still says which slice is in use, by whom.
Nothing in it is secret. Pure; what is read back is bounded, and may be anything: processes are
their users' own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from jupyterhub_migspawner.broker.checks import NAME_LIMIT, REASON_LIMIT, stored
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow

ATTEMPT = "MIGSPAWNER_ATTEMPT"

STATE = "migspawner"
"""The key of it in a spawner's saved state."""

_PLACES = {
    "node": "MIGSPAWNER_NODE",
    "card_uuid": "MIGSPAWNER_CARD_UUID",
    "profile": "MIGSPAWNER_PROFILE",
    "slice_uuid": "MIGSPAWNER_SLICE_UUID",
    "hub": "MIGSPAWNER_HUB",
    "tier": "MIGSPAWNER_TIER",
    # The hub's own names for them.
    "user": "JUPYTERHUB_USER",
    "server": "JUPYTERHUB_SERVER_NAME",
}
_START = "MIGSPAWNER_START"
_DATABASE = "MIGSPAWNER_DATABASE"

NAMES = frozenset({ATTEMPT, _START, _DATABASE, *_PLACES.values()})
"""The variables that a mark consists of."""


def environment_of(lease: LeaseRow | None, database: Position | None) -> dict[str, str]:
    """Return the part of a server's environment that names its lease; empty texts without one."""
    if lease is None:
        lease_id = attempt = node = card = start = hub = origin = ""
    else:
        lease_id, attempt, node = str(lease.id), lease.attempt, lease.node
        card, start, hub = lease.card_uuid, str(lease.start), lease.hub
        origin = f"{database.identity}:{database.generation}" if database is not None else ""
    return {
        "MIGSPAWNER_LEASE": lease_id,
        ATTEMPT: attempt,
        _DATABASE: origin,
        _PLACES["node"]: node,
        _PLACES["card_uuid"]: card,
        _START: start,
        _PLACES["hub"]: hub,
    }


def mark_in(environ: Mapping[str, str]) -> OrphanRow | None:
    """Return the mark in the environment of a process; None where it names no attempt."""
    attempt = environ.get(ATTEMPT, "")[:NAME_LIMIT]
    if not attempt:
        return None
    identity, _, generation = environ.get(_DATABASE, "").partition(":")
    texts = {key: stored(environ.get(name, "")[:NAME_LIMIT]) for key, name in _PLACES.items()}
    if texts["profile"] == "none":
        texts["profile"] = ""
    return OrphanRow(
        attempt=stored(attempt),
        start=_number(environ.get(_START, "")),
        identity=stored(identity[:NAME_LIMIT]),
        generation=_number(generation) or 0,
        **texts,  # type: ignore[arg-type]
    )


def state_of(
    lease: LeaseRow, database: Position, url: str = "", sealed: str = ""
) -> dict[str, Any]:
    """Return what a spawner saves of its lease, and of how its server is asked.

    ``sealed`` is the server's token, sealed for the attempt and ``url`` without a lease.
    """
    return {
        "database": database.identity,
        "generation": database.generation,
        "lease": lease.id,
        "attempt": lease.attempt,
        "node": lease.node,
        "card": lease.card_uuid,
        "profile": lease.profile,
        "start": lease.start,
        "slice": lease.slice_uuid,
        "hub": lease.hub,
        "tier": lease.tier,
        "since": lease.since.isoformat(),
        "ends_at": None if lease.ends_at is None else lease.ends_at.isoformat(),
        "request": lease.request_id,
        "started": None if lease.started is None else lease.started.isoformat(),
        "url": url,
        "sealed": sealed,
    }


def mark_in_state(state: object, user: str, server: str, hub: str) -> OrphanRow | None:
    """Return the lease that a spawner's saved state names; None when it names none.

    ``user``, ``server`` and ``hub`` are as the hub calls them now: they may have been renamed.
    """
    if not isinstance(state, dict) or not isinstance(state.get("attempt"), str):
        return None

    def text(key: str, limit: int = NAME_LIMIT) -> str:
        value = state.get(key)
        return stored(value[:limit]) if isinstance(value, str) else ""

    return OrphanRow(
        attempt=text("attempt"),
        node=text("node"),
        card_uuid=text("card"),
        profile=text("profile"),
        start=_number(state.get("start")),
        slice_uuid=text("slice"),
        identity=text("database"),
        generation=_number(state.get("generation")) or 0,
        hub=hub,
        user=user,
        server=server,
        tier=text("tier"),
        since=_time(state.get("since")),
        ends_at=_time(state.get("ends_at")),
        request_id=_number(state.get("request")),
        vouched=True,
        started=_time(state.get("started")),
        url=text("url", REASON_LIMIT),
        sealed=text("sealed", REASON_LIMIT),
    )


def _number(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return None if found.tzinfo is None else found.astimezone(timezone.utc)


def strangeness(marks: Sequence[OrphanRow], database: Position) -> str:
    """Explain in a sentence why a database may not know these leases, by where they come from."""
    if any(each.identity and each.identity != database.identity for each in marks):
        return "Their leases are in another database: it was deleted, or database_url was changed."
    if any(each.generation and each.generation < database.generation for each in marks):
        return "They were started before it was restored from a backup."
    return "It is an older copy of the database with their leases."
