"""The unit, container or job that a lease's server runs in."""

from __future__ import annotations

from collections.abc import Callable, Collection

from jupyterhub_migspawner.model.leases import LeaseRow

Units = Callable[[LeaseRow], Collection[int]]
"""The pids of the unit, container or job that a lease's server runs in."""


def no_units(lease: LeaseRow) -> Collection[int]:
    """Return no pids: servers that are plain processes of the machine have no unit."""
    return ()
