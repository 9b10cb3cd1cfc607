"""The processes of sessions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessesRow:
    """The processes of a lease's session: pids with start times, in clock ticks since boot.

    ``uid`` is the system user that its server runs as, None while unknown. ``boot_id`` is the boot
    of the node's kernel that the start times count from. ``reported`` are uids of other users
    whose processes on the slice were reported.
    """

    lease_id: int
    uid: int | None = None
    boot_id: str = ""
    known: tuple[tuple[int, int], ...] = ()
    reported: tuple[int, ...] = ()
