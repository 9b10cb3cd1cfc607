"""What a container that has just started really is, looked at from this machine.

Relies on ``/proc``. Promises to find out whether the container's processes can be recognised here,
as the proof that its slice is empty needs, and which of the cards' device nodes it has, whatever
added them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

from jupyterhub_migspawner.agent.processes import (
    PROC,
    Process,
    Unreadable,
    mark_of,
    start_time,
)
from jupyterhub_migspawner.gpu.devices import DeviceNode

MOST_ENTRIES = 4096
"""Entries of a container's folder of devices that are looked at."""

_MODESET = "/dev/nvidia-modeset"  # NVIDIA's specifications give it to everybody; it is no card


def process_of(pid: int, proc: Path = PROC) -> Process | None:
    """Return the process of this machine with that pid; None where there is none."""
    try:
        started = start_time(proc / str(pid)) if pid > 0 else None
    except Unreadable:
        return None
    return None if started is None else Process(pid, started)


def is_marked(process: Process, attempt: str, proc: Path = PROC) -> bool:
    """Return whether a process carries the mark of a start, as the agent will look for it."""
    try:
        return mark_of(proc / str(process.pid)) == attempt
    except Unreadable:
        return False


def foreign_nodes(
    process: Process, nodes: Collection[DeviceNode], proc: Path = PROC, root: Path = Path("/")
) -> list[str]:
    """Return the device nodes of cards that a container has and that are not of its slice.

    ``process`` is its first process, ``nodes`` those of the slice. ``root`` is where the machine's
    ``dev`` lies. Raises :exc:`OSError` when the container's devices cannot be read.
    """
    allowed = {
        number for path in (*(n.path for n in nodes), _MODESET) if (number := _at(root, path))
    }
    found = []
    for name, number in _nodes_in(proc / str(process.pid) / "root" / "dev"):
        if number not in allowed:
            found.append(f"/dev/{name}")
    return sorted(found)


def _at(root: Path, path: str) -> int:
    try:
        return os.stat(root / path.lstrip("/")).st_rdev
    except OSError:
        return 0


def _nodes_in(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield name and number of the cards' nodes in a container's ``/dev``."""
    with os.scandir(folder) as entries:
        for entry in islice(entries, MOST_ENTRIES):
            if not entry.name.startswith("nvidia"):
                continue
            # Never through a link: what it leads to would be looked up on this machine.
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISCHR(status.st_mode):
                yield entry.name, status.st_rdev
            elif stat.S_ISDIR(status.st_mode):
                with os.scandir(entry.path) as inner:
                    for each in islice(inner, MOST_ENTRIES):
                        status = each.stat(follow_symlinks=False)
                        if stat.S_ISCHR(status.st_mode):
                            yield f"{entry.name}/{each.name}", status.st_rdev
