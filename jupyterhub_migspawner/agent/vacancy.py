"""Proof that a slice is empty, and the end of what is left on it.

Relies on ``/proc`` and on NVML, both of this machine, never on what somebody recorded. Promises
that a lease is only ever confirmed empty when no process of its server is left (nor a kernel, a
terminal or a background job started from it) and NVML lists no process on its slice but those of
other leases on it; that what
cannot be known counts as not empty; and that only processes that carry the lease's own mark are
ever signalled.

The mark is ``MIGSPAWNER_ATTEMPT`` in a process's environment (proc(5), ``/proc/PID/environ``): it
is inherited by everything a server starts, it needs no state that a crash could lose, and no other
lease has it.

Where a tier shares slices, other leases may be on the slice whose emptiness is to be proven. Then a
process that NVML lists there counts as theirs when it carries the mark of one of them, or descends
from a process that does; whatever belongs to nobody for certain keeps the ended lease waiting.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.errors import GpuError, Refusal
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.leases.rows import LeaseRow

log = logging.getLogger("migspawner.agent")

MARK = b"MIGSPAWNER_ATTEMPT="

#: NVML_ERROR_NOT_FOUND (nvml.h): no such device. A slice that does not exist holds no process.
NOT_FOUND = 6

#: Seconds after the end of a server until what it left is asked to end, and until it is made to.
#: Longer than a hub takes to stop a server in its own way, which loses less of people's work.
TERMINATE_AFTER = 45.0
KILL_AFTER = 60.0


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one with the same pid by its start time.

    ``started`` is in clock ticks since boot, field 22 of ``/proc/PID/stat`` (proc(5)).
    """

    pid: int
    started: int

    def signal(self, number: int, proc: Path) -> None:
        """Send a signal, unless the pid belongs to another process by now."""
        if start_time(proc / str(self.pid)) != self.started:
            return
        try:
            os.kill(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # gone by now, or not ours to end: the lease then waits for it, and says so


def start_time(entry: Path) -> int | None:
    """When the process of a ``/proc/PID`` folder started, or None when there is none."""
    fields = _stat(entry)
    return int(fields[19]) if fields else None


def parent_of(entry: Path) -> int:
    """The pid of a process's parent; 0 when there is none."""
    fields = _stat(entry)
    return int(fields[1]) if fields else 0


def cpu_ticks(entry: Path) -> int:
    """Clock ticks of CPU that the process of a ``/proc/PID`` folder has used, its children that it
    has waited for included: fields 14 to 17 of ``/proc/PID/stat`` (proc(5)); 0 when there is none.
    """
    fields = _stat(entry)
    return sum(int(field) for field in fields[11:15]) if len(fields) > 14 else 0


def _stat(entry: Path) -> list[bytes]:
    """What ``/proc/PID/stat`` says, from the third field on."""
    try:
        stat = (entry / "stat").read_bytes()
    except OSError:
        return []
    # The second field is the command's name in parentheses, and may itself hold both.
    return stat.rpartition(b")")[2].split()


def marked_processes(proc: Path = Path("/proc")) -> dict[str, list[Process]]:
    """Every process on this machine that belongs to a server with a lease, by attempt.

    A zombie has no environment any more and holds nothing. The environment of other people's
    processes is unreadable unless this runs as root, as a hub that starts servers for several
    system users does; a hub without root starts all servers as itself.
    """
    found: dict[str, list[Process]] = {}
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        attempt = mark_of(entry)
        if attempt:
            started = start_time(entry)
            if started is not None:
                found.setdefault(attempt, []).append(Process(int(entry.name), started))
    return found


def family_processes(proc: Path = Path("/proc")) -> dict[str, list[Process]]:
    """Every process on this machine that belongs to a server with a lease, by attempt: those that
    carry its mark, and those that descend from one that does, as after ``env -i`` or ``sudo``.
    """
    parents: dict[int, int] = {}
    owners: dict[int, str] = {}
    for entry in proc.iterdir():
        if entry.name.isdigit():
            pid = int(entry.name)
            parents[pid], owners[pid] = parent_of(entry), mark_of(entry)
    found: dict[str, list[Process]] = {}
    # Whoever was walked past has its owner by now: a long line of descent is walked once.
    known: set[int] = set()
    for pid in sorted(parents):
        line = []
        at = pid
        while at in parents and not owners[at] and at not in known:
            known.add(at)
            line.append(at)
            at = parents[at]
        attempt = owners.get(at, "")
        for each in line:
            owners[each] = attempt
        started = start_time(proc / str(pid)) if attempt else None
        if started is not None:
            found.setdefault(attempt, []).append(Process(pid, started))
    return found


def mark_of(entry: Path) -> str:
    """The attempt whose mark the process of a ``/proc/PID`` folder carries, or an empty string."""
    try:
        environ = (entry / "environ").read_bytes()
    except OSError:
        return ""
    for variable in environ.split(b"\0"):
        if variable.startswith(MARK) and len(variable) > len(MARK):
            return variable[len(MARK) :].decode("utf-8", "replace")
    return ""


def belongs_to(pid: int, proc: Path = Path("/proc")) -> str:
    """The attempt that a process belongs to: its own mark, or that of its nearest ancestor.

    An empty string when nothing proves any. A process that has lost its parent was given to another
    one (proc(5), ``PPID``), which is init or an ancestor of its own: it is never counted as
    somebody's of whom it does not descend.
    """
    seen = set()
    while pid > 1 and pid not in seen:
        seen.add(pid)
        entry = proc / str(pid)
        attempt = mark_of(entry)
        if attempt:
            return attempt
        pid = parent_of(entry)
    return ""


class Vacancy:
    """Looks whether the leases that are being released are empty, and confirms those that are.

    ``monotonic`` gives seconds; it is only ever compared with itself.
    """

    def __init__(
        self,
        broker: Broker,
        nvml: Nvml,
        *,
        node: str,
        proc: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._nvml = nvml
        self._node = node
        self._proc = proc
        self._monotonic = monotonic
        self._seen: dict[int, float] = {}

    def look(self, lease: LeaseRow, marked: Mapping[str, list[Process]] | None = None) -> LeaseRow:
        """Confirm one lease empty, or note what it waits for. Returns the lease as it is now.

        Leases of other nodes are theirs to prove, and come back untouched.
        """
        if lease.node != self._node or lease.state != "releasing":
            return lease
        left = (marked_processes(self._proc) if marked is None else marked).get(lease.attempt, [])
        why = self._why_not_empty(lease, left)
        if not why:
            self._seen.pop(lease.id, None)
            return self._broker.confirm_empty(lease.id)
        if why != lease.waiting_for:
            self._broker.note_waiting(lease.id, why)
        return lease

    def look_at_all(self) -> None:
        """One round over everything that is being released on this node; ends leftovers."""
        leases = self._broker.leases(node=self._node, states=("releasing",))
        self._seen = {lease.id: self._seen[lease.id] for lease in leases if lease.id in self._seen}
        if not leases:
            return
        marked = marked_processes(self._proc)
        for lease in leases:
            try:
                now = self.look(lease, marked)
            except Refusal as refusal:
                # Somebody else moved it on meanwhile; the others must not wait for that.
                log.info("Lease %d: %s", lease.id, refusal)
                continue
            if now.state == "releasing":
                self._end_leftovers(lease, marked.get(lease.attempt, []))

    def _why_not_empty(self, lease: LeaseRow, left: list[Process]) -> str:
        if left:
            pids = ", ".join(str(process.pid) for process in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            return f"processes of the ended server still run: pid {pids}{more}"
        if lease.slice_uuid is None:
            return ""
        try:
            on_slice = self._nvml.processes(lease.slice_uuid)
        except GpuError as error:
            return "" if error.code == NOT_FOUND else f"NVML cannot say who is on it: {error}"
        unclaimed = self._not_of_others(lease, [process.pid for process in on_slice])
        if unclaimed:
            pids = ", ".join(str(pid) for pid in unclaimed[:5])
            return f"NVML still lists processes on the slice: pid {pids}"
        return ""

    def _not_of_others(self, lease: LeaseRow, pids: list[int]) -> list[int]:
        """Those that do not provably belong to another live lease on the same slice."""
        if not pids:
            return []
        # Whose they are is read now, after NVML listed them: an older reading may be of another
        # process that had the same pid.
        owners = {pid: belongs_to(pid, self._proc) for pid in pids}
        others = {
            other.attempt
            for other in self._broker.leases(node=self._node)
            if other.slice_id == lease.slice_id and other.id != lease.id
        }
        return [pid for pid in pids if owners[pid] not in others]

    def _end_leftovers(self, lease: LeaseRow, left: list[Process]) -> None:
        """First patience, then SIGTERM, then SIGKILL; again in each round until they are gone."""
        waited = self._monotonic() - self._seen.setdefault(lease.id, self._monotonic())
        if waited < TERMINATE_AFTER:
            return
        number = signal.SIGTERM if waited < KILL_AFTER else signal.SIGKILL
        for process in left:
            process.signal(number, self._proc)
