"""Leases as JSON: live and past ones, and those whose slice is not proven empty."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.statuses import Adoption
from jupyterhub_migspawner.broker.views.json import Timestamp, one_of, timestamp, timestamp_of
from jupyterhub_migspawner.model.leases import ACTIVE, LOST, PENDING, RELEASED, RELEASING, LeaseRow
from jupyterhub_migspawner.policy import proof
from jupyterhub_migspawner.policy.isolation import KINDS


class Lease(TypedDict):
    """A slice or card held by one server of one user."""

    id: int
    user: str
    server: str
    """Empty for the default server."""
    tier: str
    state: Annotated[str, one_of(PENDING, ACTIVE, RELEASING, RELEASED, LOST)]
    profile: str
    memory_mib: int
    node: str
    card_uuid: str
    slice_uuid: str | None
    seat: int
    """The number of its seat on the slice; 0 on an unshared slice."""
    since: Timestamp
    ends_at: Timestamp | None
    ended_at: Timestamp | None
    end_reason: str
    releasing_at: Timestamp | None
    """When its session ended; null if it has not."""
    waiting_for: str
    """Why the slice of a lease that is being released is not proven empty; with all details for
    admins, in brief for its holder."""
    mend: str
    """For admins: what to do about a slice that is not proven empty; empty otherwise."""
    request_id: int | None
    hub: str
    """The hub of its server; several hubs can share the database."""
    isolation: Annotated[str, one_of("", *KINDS)]
    """What keeps its server off other slices; empty if it is not known."""
    ticket: int | None
    """For an offer: its ticket, until a server starts on it."""


class Unproven(TypedDict):
    """A lease whose session has ended and whose slice is not proven empty."""

    lease: int
    user: str
    server: str
    tier: str
    node: str
    slice_uuid: str | None
    releasing_at: Timestamp | None
    """When its session ended."""
    end_reason: str
    waiting_for: str
    """Why the slice is not proven empty; with all details for admins, in brief for its holder."""
    quarantined: str
    """For admins: why the slice is quarantined, if it is."""
    mend: str
    """For admins: what to do about it."""


class Adopted(TypedDict):
    """What became of a server that ran without a lease."""

    attempt: str
    user: str
    server: str
    hub: str
    tier: str
    node: str
    card_uuid: str
    profile: str
    start: int | None
    slice_uuid: str
    process: int | None
    vouched: bool
    lease: int | None
    adopted: bool
    why: str


def lease_view(lease: LeaseRow, *, admin: bool = True) -> Lease:
    """Return a lease, live or past.

    ``admin`` says who reads it: what keeps its slice from being proven empty is in full for admins.
    """
    return {
        "id": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "state": lease.state,
        "profile": lease.profile,
        "memory_mib": lease.memory_mib,
        "node": lease.node,
        "card_uuid": lease.card_uuid,
        "slice_uuid": lease.slice_uuid,
        "seat": lease.seat,
        "since": timestamp_of(lease.since),
        "ends_at": timestamp(lease.ends_at),
        "ended_at": timestamp(lease.ended_at),
        "end_reason": lease.end_reason,
        "releasing_at": timestamp(lease.releasing_at),
        "waiting_for": _waiting_for(lease, admin=admin),
        "mend": proof.mend(lease.waiting_for, lease.node) if lease.ending and admin else "",
        "request_id": lease.request_id,
        "hub": lease.hub,
        "isolation": lease.isolation,
        "ticket": lease.ticket_id,
    }


def unproven_view(lease: LeaseRow, quarantined: str = "", *, admin: bool = True) -> Unproven:
    """Return a lease whose session has ended and whose slice is not proven empty.

    ``quarantined`` is the reason for which its slice is, if it is; ``admin`` says who reads it.
    """
    return {
        "lease": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "node": lease.node,
        "slice_uuid": lease.slice_uuid,
        "releasing_at": timestamp(lease.releasing_at),
        "end_reason": lease.end_reason,
        "waiting_for": _waiting_for(lease, admin=admin),
        "quarantined": quarantined if admin else "",
        "mend": proof.mend(f"{quarantined} {lease.waiting_for}", lease.node) if admin else "",
    }


def adoption_view(adoption: Adoption) -> Adopted:
    """Return what became of a server without a lease; ``why`` says why it still has none."""
    orphan, lease = adoption.orphan, adoption.lease
    return {
        "attempt": orphan.attempt,
        "user": orphan.user,
        "server": orphan.server,
        "hub": orphan.hub,
        "tier": orphan.tier,
        "node": orphan.node,
        "card_uuid": orphan.card_uuid,
        "profile": orphan.profile,
        "start": orphan.start,
        "slice_uuid": orphan.slice_uuid,
        "process": orphan.pids[0] if orphan.pids else None,
        "vouched": orphan.vouched,
        "lease": lease.id or None if lease is not None else None,
        "adopted": lease is not None,
        "why": adoption.why,
    }


def _waiting_for(lease: LeaseRow, *, admin: bool) -> str:
    """Return why a slice is not proven empty: pids, users and commands are for admins."""
    if not lease.ending or admin:
        return lease.waiting_for
    return proof.cause(lease.waiting_for)
