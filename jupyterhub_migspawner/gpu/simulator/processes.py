"""Which of the processes written into a simulated machine still live on this one.

A driver drops a process from its lists when its last file descriptor closes, hence also when it is
a zombie. The simulator asks ``/proc`` for the same; the start time (field 22 of
``/proc/PID/stat``, in clock ticks since boot) tells a process from a later one with its number.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from jupyterhub_migspawner.gpu.simulator.schema import HolderState, ProcessState

_Entry = TypeVar("_Entry", ProcessState, HolderState)


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None when gone or a zombie.

    Raises :exc:`OSError` when that cannot be read.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name stands in parentheses and may itself hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or (fields[0] in "ZXx" and int(fields[17]) <= 1):
        return None
    return int(fields[19])


def use_of(processes: list[ProcessState]) -> float:
    """Return the per cent of the time in which the engine works for all of them together."""
    return min(100.0, sum(each.get("used", 0.0) for each in living(processes)))


def living(entries: list[_Entry]) -> list[_Entry]:
    """Return those entries whose process still runs."""
    return [each for each in entries if _lives(each["pid"], each["started"])]


def _lives(pid: int, started: int) -> bool:
    try:
        return start_time(pid) == started
    except OSError:
        return True
