"""What is left of a lease: the evidence that a slice is empty, or why it is not."""

from __future__ import annotations

from dataclasses import dataclass

from jupyterhub_migspawner.agent.processes import Process

MOST_NAMED = 5
"""Processes that a sentence names."""


@dataclass(frozen=True)
class Occupant:
    """A process that NVML lists on a slice; ``process`` is None where ``/proc`` has none.

    ``own`` says that it may be ended as the session's own, ``foreign`` that another system user's
    process is known to be none of the session's. ``whose`` says more, or is empty.
    """

    pid: int
    process: Process | None = None
    own: bool = False
    foreign: bool = False
    whose: str = ""


@dataclass(frozen=True)
class Finding:
    """What is left of a lease.

    The session's processes, who else is on the slice, and what cannot be read, in words. Nothing of
    all three is the proof that it is empty.
    """

    left: tuple[Process, ...] = ()
    occupants: tuple[Occupant, ...] = ()
    doubts: tuple[str, ...] = ()
    unreadable: str = ""

    @property
    def why(self) -> str:
        """Why the slice is not proven empty; an empty text when it is."""
        parts = []
        if self.left:
            parts.append(f"processes of the ended server are still running: {_pids(self.left)}")
        if self.occupants:
            parts.append(f"NVML still lists processes on the slice: {_pids(self.occupants)}")
        if self.doubts:
            more = f" and {len(self.doubts) - 1} more" if len(self.doubts) > 1 else ""
            parts.append(f"the session of a process cannot be determined: {self.doubts[0]}{more}")
        if self.unreadable:
            parts.append(self.unreadable)
        return "; ".join(parts)

    @property
    def kind(self) -> tuple[bool, ...]:
        """The same for reasons that differ in numbers only."""
        lists = (self.left, self.occupants, self.doubts)
        return (*map(bool, lists), bool(self.unreadable))


def _pids(found: tuple[Process, ...] | tuple[Occupant, ...]) -> str:
    pids = sorted(each.pid for each in found)
    more = f" and {len(pids) - MOST_NAMED} more" if len(pids) > MOST_NAMED else ""
    return f"pid {', '.join(map(str, pids[:MOST_NAMED]))}{more}"
