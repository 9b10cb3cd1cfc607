"""What a server learns about its slice: its environment, and a line for the person who waits."""

from __future__ import annotations

from jupyterhub_migspawner.broker.marks import environment_of
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import memory


def slice_environment(
    tier: Tier | None, lease: LeaseRow | None, database: Position | None = None
) -> dict[str, str]:
    """Return what a server learns about its slice; with no lease, that it has none.

    ``database`` is the one that has the lease.

    ``CUDA_VISIBLE_DEVICES`` takes the UUID of a MIG device, exactly one (MIG User Guide, "CUDA
    device enumeration"); the empty string hides every device. ``NVIDIA_VISIBLE_DEVICES=void`` is
    the container toolkit's word for no GPU at all.
    """
    env = {
        "MIGSPAWNER_TIER": tier.name if tier else "",
        # How many may be on the slice at a time. Nothing divides its memory among them.
        "MIGSPAWNER_SEATS": "0" if lease is None else str(tier.seats if tier else 1),
    }
    if lease is None or lease.slice_uuid is None:
        return {
            **env,
            "CUDA_VISIBLE_DEVICES": "",
            "NVIDIA_VISIBLE_DEVICES": "void",
            "MIGSPAWNER_PROFILE": "none",
            "MIGSPAWNER_SLICE_UUID": "",
            "MIGSPAWNER_MEMORY_MIB": "0",
            **environment_of(None, None),
        }
    return {
        **env,
        "CUDA_VISIBLE_DEVICES": lease.slice_uuid,
        "NVIDIA_VISIBLE_DEVICES": lease.slice_uuid,
        "MIGSPAWNER_PROFILE": lease.profile,
        "MIGSPAWNER_SLICE_UUID": lease.slice_uuid,
        "MIGSPAWNER_MEMORY_MIB": str(lease.memory_mib),
        **environment_of(lease, database),
    }


def describe(lease: LeaseRow, tier: Tier | None = None) -> str:
    """Return a lease's slice in the words a researcher reads."""
    seat = f"one of {tier.seats} seats on a " if tier is not None and tier.shares else ""
    slice_ = f"slice {lease.profile} with {memory(lease.memory_mib)}"
    return f"{seat}{'shared ' if seat else ''}{slice_} on node {lease.node}"
