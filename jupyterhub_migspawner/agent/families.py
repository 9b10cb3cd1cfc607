"""Which processes of this machine belong to which session.

A session's processes carry its mark, or descend from one that does; and whatever was once seen to
do so is remembered, for as long as it lives, also after the agent has started again. So a process
that later drops its environment (``env -i``, a program that writes its title over it) and its
parent stays the session's. What a session starts and hides within one round is not seen by this;
while it has the slice open, NVML lists it.

Relies on :mod:`.processes` for what ``/proc`` tells. Promises that what cannot be read is never
taken for gone, nor for another's: it is a doubt about every session that it may belong to. A
system user's process cannot be one of another user's session, except by descent (``sudo``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from jupyterhub_migspawner.agent.descriptions import describe
from jupyterhub_migspawner.agent.environments import AT_ONCE, Environments
from jupyterhub_migspawner.agent.processes import (
    PROC,
    TICKS,
    Process,
    Unread,
    Unreadable,
    boot_time,
    control_group,
    is_alive,
    read_facts,
    uids_of,
)
from jupyterhub_migspawner.agent.snapshot import MOST_ANCESTORS, Snapshot, endless, scan
from jupyterhub_migspawner.agent.units import Units, no_units
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.orphans import Guests
from jupyterhub_migspawner.gpu.boot import boot_id
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.processes import ProcessesRow

HUB_PID = "MIGSPAWNER_HUB_PID"
"""The variable that names the hub's process to its service and the node's agent."""

MOST_DESCRIBED = 5
"""So many of the processes in doubt are described; the others are only named."""

SLACK = timedelta(minutes=1)
"""Processes that began so long before a lease are none of its session's, whatever clocks say."""


def first_process(process: Process, proc: Path = PROC) -> ProcessesRow:
    """Return what is to be stored of a server that has just been launched as this process."""
    try:
        uids = uids_of(proc / str(process.pid)) or frozenset()
    except Unreadable:
        uids = frozenset()
    uid = min(uids) if len(uids) == 1 else None
    return ProcessesRow(0, uid, boot_id(), ((process.pid, process.started),))


@dataclass
class _Known:
    """What is known of one lease's session.

    ``new`` are those of its processes that the last look was the first to see, and ``oldest`` is
    the first that there was, also when it has ended. ``ending_in`` is the round of reading in which
    the lease was first seen to end, 0 before. ``read_in`` is the state of the lease in which
    all this was last read, and ``written`` what is in the database.
    """

    uid: int | None = None
    ending_in: int = 0
    processes: set[Process] = field(default_factory=set)
    new: set[Process] = field(default_factory=set)
    oldest: Process | None = None
    read_in: str = ""
    written: frozenset[Process] = frozenset()
    uid_written: bool = False

    def add(self, *processes: Process) -> None:
        """Add these to the known processes."""
        self.processes.update(processes)
        known = [*processes, self.oldest] if self.oldest else processes
        self.oldest = min(known, key=lambda each: (each.started, each.pid), default=None)


class Families:
    """The processes of the sessions of one node, and the memory of them.

    ``keep`` says whether what is remembered is written down for the time after a restart. The
    caller that gives ``environments`` begins its rounds; otherwise each look is one. ``hub`` is the
    pid of the hub that this process is, or was started by.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        node: str,
        proc: Path = PROC,
        keep: bool = False,
        units: Units = no_units,
        environments: Environments | None = None,
        hub: int | None = None,
    ) -> None:
        self._broker = broker
        self._node = node
        self._proc = proc
        self._keep = keep
        self._units = units
        if hub is None:
            hub = int(os.environ.get(HUB_PID) or os.getpid()) if proc == PROC else 0
        self._hub = hub
        self._boot = boot_id()
        self._known: dict[int, _Known] = {}
        self._environments = environments or Environments(proc, AT_ONCE)
        self._begins = environments is None
        self._attempts: frozenset[str] = frozenset()
        self._owned_by: dict[int, frozenset[int] | None] = {}
        self.guests = Guests()
        self.snapshot = Snapshot({}, {}, {})

    def look(self, leases: Collection[LeaseRow]) -> None:
        """Read all processes again, and remember those of these leases, of this node.

        The leases have to be read before: what is then not found of one whose server has ended
        does not exist. Raises :exc:`Unreadable` and :exc:`.DatabaseError`.
        """
        if self._begins:
            self._environments.begin()
        self._recall(leases)
        attempts = {lease.id: lease.attempt for lease in leases}
        remembered = {
            process: attempts[lease_id]
            for lease_id, known in self._known.items()
            for process in known.processes
        }
        first = frozenset[int]().union(*(self.uids(lease) for lease in leases))
        self.guests = self._broker.orphans.guests(self._node)
        self._attempts = frozenset({*attempts.values(), *self.guests.attempts})
        self.snapshot = scan(
            self._proc, remembered, self._environments, first, self._attempts, self._hub
        )
        self._owned_by = {}
        for lease in leases:
            if lease.ending and not self._known[lease.id].ending_in:
                self._known[lease.id].ending_in = self._environments.round
            self._remember(lease)
        if self._keep:
            self._write()

    def left(self, lease: LeaseRow) -> list[Process]:
        """Return the living processes of a lease's session, as of the last look."""
        known = self._known.get(lease.id, _Known())
        found = {*self.snapshot.family(lease.attempt), *known.processes}
        return sorted(found, key=lambda each: (each.started, each.pid))

    def members(self, lease: LeaseRow) -> list[Process]:
        """Return those of :meth:`left` that are the session's by their user or descent."""
        known = self._known.get(lease.id, _Known())
        return sorted(known.processes, key=lambda each: (each.started, each.pid))

    def uids(self, lease: LeaseRow) -> frozenset[int]:
        """Return the system user of a lease's server; empty while unknown."""
        known = self._known.get(lease.id)
        if known is not None and known.uid is not None:
            return frozenset({known.uid})
        # Without root, every server runs as the hub's own user.
        return frozenset({os.geteuid()}) if os.geteuid() else frozenset()

    def doubts(self, lease: LeaseRow) -> list[str]:
        """Return processes that may be the session's, for all that can be read, each in words.

        The first few are described.
        """
        if lease.ticket_id is not None:
            # It was held for a ticket in the queue, and no server was ever started on it.
            # With no user to compare, anybody's unreadable process would keep the slice.
            return []
        uids, first, last = self.uids(lease), self._first(lease), self._last(lease)
        found: list[str] = []
        for pid, error in sorted(self.snapshot.unknown.items()):
            try:
                if not self._may_be(pid, error, lease, uids, first, last):
                    continue
            except Unreadable:
                pass  # then it may
            facts = self.snapshot.facts.get(pid)
            many = len(found) >= MOST_DESCRIBED or facts is None
            who = f"process {pid}" if many or facts is None else describe(facts.process, self._proc)
            found.append(f"{who}: {error}")
        return found

    def owner(self, pid: int) -> str:
        """Return the attempt that a process belongs to now; it may be one of after the last look.

        Raises :exc:`Unreadable`.
        """
        now = read_facts(self._proc / str(pid))
        for _ in range(MOST_ANCESTORS):
            if now is None:
                return ""
            seen = self.snapshot.facts.get(now.process.pid)
            known = now.process.pid not in self.snapshot.unknown
            if seen is not None and seen.process == now.process and known:
                return self.snapshot.owners[now.process.pid]
            attempt = self._environments.one(now).mark
            if attempt in self._attempts:
                return attempt
            if now.parent <= 1:
                return ""
            pid = now.parent
            now = read_facts(self._proc / str(pid))
            if now is None:
                # A parent that has ended since belonged to a session all the same.
                return self.snapshot.owners.get(pid, "")
        raise endless(self._proc / str(pid))

    def is_own(self, pid: int, leases: Iterable[LeaseRow]) -> bool | None:
        """Tell whether a process is of the sessions of these leases, by its user or by descent.

        A mark alone makes no other user's process one of theirs: anybody can set one. Returns None
        when that is not known: the users of the sessions are not, or the process is gone. Raises
        :exc:`Unreadable`.
        """
        entry = self._proc / str(pid)
        facts, uids = read_facts(entry), uids_of(entry)
        if facts is None or uids is None:
            return None
        unsure = False
        for lease in leases:
            mine, known = self.uids(lease), self._known.get(lease.id, _Known())
            descends = self.snapshot.owners.get(facts.parent) == lease.attempt
            if uids <= mine or descends or facts.process in known.processes:
                return True
            unsure = unsure or not mine
        return None if unsure else False

    # -- memory ----------------------------------------------------------------------------------

    def _recall(self, leases: Collection[LeaseRow]) -> None:
        """Read what is stored of leases that are new here, or in another state."""
        self._known = {lease.id: self._known.get(lease.id, _Known()) for lease in leases}
        if all(self._known[lease.id].read_in == lease.state for lease in leases):
            return
        rows = self._broker.processes.of_node(self._node)
        for lease in leases:
            known, row = self._known[lease.id], rows.get(lease.id, ProcessesRow(lease.id))
            known.read_in = lease.state
            if row.uid is not None:
                known.uid, known.uid_written = row.uid, True
            # After a restart of the machine, the same numbers are other processes.
            if row.boot_id == self._boot or not row.boot_id or not self._boot:
                written = {Process(pid, started) for pid, started in row.known}
                known.add(*written)
                known.written = frozenset(written)

    def _remember(self, lease: LeaseRow) -> None:
        known = self._known[lease.id]
        known.processes = {
            each for each in known.processes if self._may_live(each) and not self._is_hubs(each)
        }
        family = set(self.snapshot.family(lease.attempt))
        for pid in self._units(lease):
            if pid in self.snapshot.facts:
                family.add(self.snapshot.facts[pid].process)
        known.new = set()
        for process in sorted(family - known.processes, key=lambda each: each.started):
            try:
                uids = uids_of(self._proc / str(process.pid))
            except Unreadable:
                continue  # in the next round
            if not uids:
                continue
            if known.uid is None and len(uids) == 1:
                known.uid = min(uids)
            if known.uid in uids or self._descends(process, lease):
                known.add(process)
                known.new.add(process)

    def _may_live(self, process: Process) -> bool:
        found = self.snapshot.facts.get(process.pid)
        if found is not None and found.process == process:
            return True
        try:
            return is_alive(process, self._proc)
        except Unreadable:
            return True

    def _is_hubs(self, process: Process) -> bool:
        """Tell whether what was taken for a session's is the hub itself, or a part of it."""
        found = self.snapshot.facts.get(process.pid)
        return (
            found is not None
            and found.process == process
            and self.snapshot.owners.get(process.pid) == ""
        )

    def _descends(self, process: Process, lease: LeaseRow) -> bool:
        parent = self.snapshot.facts[process.pid].parent
        return self.snapshot.owners.get(parent) == lease.attempt

    def _write(self) -> None:
        """Store what has changed: those first that only this memory knows."""
        rows = []
        for lease_id, known in self._known.items():
            living = frozenset(known.processes)
            # Most processes live for a moment only and are never written down.
            news = bool(living - known.written - known.new)
            news = news or (known.uid is not None and not known.uid_written)
            if not news and len(known.written) < 2 * len(living) + 8:
                continue
            first = sorted(living, key=lambda each: (not self._is_orphan(each), each.started))
            if known.oldest is not None and known.oldest not in living:
                first.insert(0, known.oldest)
            pairs = tuple((each.pid, each.started) for each in first)
            rows.append(ProcessesRow(lease_id, known.uid, self._boot, pairs))
        self._broker.processes.note(rows)
        for row in rows:
            known = self._known[row.lease_id]
            known.written = frozenset(known.processes)
            known.uid_written = known.uid is not None

    def _is_orphan(self, process: Process) -> bool:
        facts = self.snapshot.facts.get(process.pid)
        return facts is None or not self.snapshot.owners.get(facts.parent)

    # -- doubts ----------------------------------------------------------------------------------

    def _first(self, lease: LeaseRow) -> float | None:
        """Return when the session's first process began, in clock ticks since boot, or no later."""
        known = self._known.get(lease.id, _Known())
        if known.oldest is not None:
            return float(known.oldest.started)
        boot = boot_time(self._proc)
        if boot is None:
            return None
        return ((lease.since - SLACK).timestamp() - boot) * TICKS

    def _last(self, lease: LeaseRow) -> float:
        """Return the latest start of a process of the session, in clock ticks since boot.

        What began after the session's end descends from what was there before.
        """
        boot = boot_time(self._proc)
        if boot is None or lease.releasing_at is None:
            return math.inf
        return ((lease.releasing_at + SLACK).timestamp() - boot) * TICKS

    def _may_be(
        self,
        pid: int,
        error: Unreadable,
        lease: LeaseRow,
        uids: frozenset[int],
        first: float | None,
        last: float,
    ) -> bool:
        """Tell whether a process that cannot be read may be of this lease's session."""
        theirs, entry = self._uids_of(pid), self._proc / str(pid)
        if theirs is None or (uids and uids.isdisjoint(theirs)):
            return False
        facts = read_facts(entry)
        if facts is None or facts.dead:
            return False
        process = facts.process
        if first is not None and process.started < first:
            return False
        if not uids and isinstance(error, Unread):
            # Whose the session's processes are is not known, so that they may be anybody's. Those
            # there were at its end are each read in a few rounds, whatever else is started.
            ending_in = self._known.get(lease.id, _Known()).ending_in
            if process.started > last or self._environments.read_in(process) > ending_in:
                return False
        # What the kernel does not show to anybody but root (a browser's helpers, a key agent) began
        # elsewhere if it is in other control groups than the hub and the session.
        return not error.denied or self._shares_group(entry, lease)

    def _uids_of(self, pid: int) -> frozenset[int] | None:
        """Return the users of a process, read once in a look.

        Raises :exc:`Unreadable`.
        """
        if pid not in self._owned_by:
            self._owned_by[pid] = uids_of(self._proc / str(pid))
        return self._owned_by[pid]

    def _shares_group(self, entry: Path, lease: LeaseRow) -> bool:
        groups = {control_group(self._proc / "self")}
        for process in self.left(lease)[:8]:
            groups.add(control_group(self._proc / str(process.pid)))
        return control_group(entry) in groups
