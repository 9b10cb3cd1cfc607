"""Slices as JSON; other people's leases are for admins."""

from __future__ import annotations

from typing import Annotated

from typing_extensions import TypedDict

from jupyterhub_migspawner.broker.statuses import (
    DRAINING,
    FREE,
    LEASED,
    MISSING,
    QUARANTINED,
    SliceStatus,
)
from jupyterhub_migspawner.broker.views.json import Timestamp, one_of, timestamp_of
from jupyterhub_migspawner.broker.views.leases import Unproven, unproven_view
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.isolation import KINDS
from jupyterhub_migspawner.policy.people import Person


class SliceLease(TypedDict):
    """The lease on a slice."""

    id: int
    user: str
    server: str
    tier: str
    since: Timestamp
    isolation: Annotated[str, one_of("", *KINDS)]
    """What keeps its server off other slices; empty if it is not known."""


class SeatLease(TypedDict):
    """One of the leases on a slice."""

    id: int
    user: str
    server: str
    tier: str
    since: Timestamp
    isolation: Annotated[str, one_of("", *KINDS)]
    """What keeps its server off other slices; empty if it is not known."""
    seat: int
    """The number of its seat; 0 on an unshared slice."""


class Slice(TypedDict):
    """A MIG slice, or a whole card."""

    id: int
    uuid: str | None
    """Null until the slice is cut."""
    node: str
    card_uuid: str
    card_index: int
    profile: str
    start: int
    size: int
    memory_mib: int
    state: Annotated[str, one_of(FREE, LEASED, DRAINING, QUARANTINED, MISSING)]
    why: str
    """Why it is not available, in a sentence; empty if it is free or leased."""
    lease: SliceLease | None
    """Also null for another person's lease, except for admins."""
    leases: list[SeatLease]
    """All leases that the person may see; several if a tier shares the slice. lease is the first of
    them."""
    unproven: list[Unproven]
    """Those of the leases whose session has ended while the slice is not proven empty."""


_QUARANTINED = "It is quarantined: it is not given out until an admin has checked what is on it."


def slice_view(status: SliceStatus, viewer: Person | None = None) -> Slice:
    """Return a slice; ``viewer`` None or an admin sees who holds it.

    Why a slice is quarantined names processes and people, which is for admins.
    """
    row = status.row
    admin = viewer is None or viewer.admin
    leases = [lease for lease in status.leases if admin or viewer_is(viewer, lease)]
    why = status.why
    if row.quarantined and not admin:
        why = _QUARANTINED if status.state == QUARANTINED else why.replace(row.quarantined, "")
    return {
        "id": row.id,
        "uuid": row.uuid,
        "node": row.node,
        "card_uuid": row.card_uuid,
        "card_index": row.card_index,
        "profile": row.profile,
        "start": row.start,
        "size": row.size,
        "memory_mib": row.memory_mib,
        "state": status.state,
        "why": why.strip(),
        "lease": _lease_of_slice(leases[0]) if leases else None,
        "leases": [{**_lease_of_slice(lease), "seat": lease.seat} for lease in leases],
        "unproven": [
            unproven_view(lease, row.quarantined, admin=admin) for lease in leases if lease.ending
        ],
    }


def viewer_is(viewer: Person | None, lease: LeaseRow) -> bool:
    """Tell whether a lease is the viewer's own."""
    return viewer is not None and viewer.name == lease.user


def _lease_of_slice(lease: LeaseRow) -> SliceLease:
    return {
        "id": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "since": timestamp_of(lease.since),
        "isolation": lease.isolation,
    }
