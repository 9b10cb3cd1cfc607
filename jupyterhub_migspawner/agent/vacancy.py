"""Proof that a slice is empty, and the end of what is left on it.

Relies on ``/proc`` and on NVML, both of this machine. Promises that a lease is only ever confirmed
empty when no process of its session is left (:mod:`.families`) and NVML lists no process on its
slice but those of other leases on it, and of servers without a lease that their hub runs, for which
the slice stays quarantined; and that what cannot be known counts as not empty.

What is left over is ended once the hub has had its time to stop the server in its own way: first
SIGTERM, then SIGKILL. That is done to the session's processes, wherever they are; and, where a
lease had the slice alone, to every process that NVML lists there and that runs as the session's
system user, whatever its environment says. What belongs to another user, to another live lease or
to a server that runs without one, or cannot be ended, is left alone: the slice is quarantined with
the process, its user and the command that ends it, until it is gone.

Where a tier shares slices, a process that NVML lists counts as another live lease's when it
provably belongs to it; whatever belongs to nobody for certain keeps the ended lease waiting, and
only what provably belongs to the ended lease is ended.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner.agent.descriptions import describe
from jupyterhub_migspawner.agent.families import Families
from jupyterhub_migspawner.agent.findings import MOST_NAMED, Finding, Occupant
from jupyterhub_migspawner.agent.processes import (
    MARK,
    PROC,
    Process,
    Unreadable,
    parent_of,
    read_facts,
    start_time,
)
from jupyterhub_migspawner.agent.snapshot import belongs_to, family_processes, marked_processes
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.quarantine import LEFTOVER
from jupyterhub_migspawner.errors import GpuError, Refusal
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.leases import RELEASING, LeaseRow
from jupyterhub_migspawner.policy.wording import listed

__all__ = [
    "MARK",
    "Process",
    "Vacancy",
    "belongs_to",
    "family_processes",
    "marked_processes",
    "parent_of",
    "start_time",
]

log = logging.getLogger("migspawner.agent")

#: Seconds after the end of a server until what it left is asked to end, and until it is made to.
#: Longer than a hub takes to stop a server in its own way, which loses less of people's work.
TERMINATE_AFTER = 45.0
KILL_AFTER = 60.0

STUCK_SECONDS = 15.0
"""What is still there so long after SIGKILL cannot be ended from here."""

FOLLOW_SECONDS = 2.0
"""How often the processes of sessions are read while no lease is ending."""

SAME_SECONDS = 60.0
"""A lease that waits for the same kind of thing, in other processes, says so this often."""

QUARANTINE_SECONDS = 5.0
"""How often the reason of a quarantine may change."""


@dataclass
class _Ending:
    """What this agent remembers of a lease that ends: times are of the monotonic clock."""

    since: float
    noted: float | None = None
    kind: tuple[bool, ...] = ()
    # On the slice and of the session's user, as of the last look.
    own: frozenset[Process] = frozenset()
    # Why the slice is quarantined for it, and when that was last written down.
    quarantine: str = ""
    written: float = 0.0


class Vacancy:
    """The proof that leases being released are empty, and the confirmation of those that are.

    ``monotonic`` gives seconds; it is only ever compared with itself.
    """

    def __init__(
        self,
        broker: Broker,
        nvml: Nvml,
        *,
        node: str,
        proc: Path = PROC,
        monotonic: Callable[[], float] = time.monotonic,
        families: Families | None = None,
    ) -> None:
        self._broker = broker
        self._nvml = nvml
        self._node = node
        self._proc = proc
        self._monotonic = monotonic
        self._families = families or Families(broker, node=node, proc=proc)
        self._endings: dict[int, _Ending] = {}
        self._next_follow = monotonic()

    def look(self, lease: LeaseRow) -> LeaseRow:
        """Confirm one lease empty, or record what it waits for; return the lease as it is now.

        Leases of other nodes are theirs to prove, and come back untouched. Ends nothing.
        """
        if lease.node != self._node or lease.state != RELEASING:
            return lease
        live = self._broker.leases.find(node=self._node)
        unreadable = self._read(live)
        return self._confirm(lease, self._find(lease, live, unreadable))

    def look_at_all(self) -> None:
        """Look once at everything that is being released on this node; end leftovers."""
        live = self._broker.leases.find(node=self._node)
        ending = [lease for lease in live if lease.state == RELEASING]
        now = self._monotonic()
        self._endings = {
            lease.id: self._endings.get(lease.id) or _Ending(since=now) for lease in ending
        }
        if not live or (not ending and now < self._next_follow):
            return
        self._next_follow = now + FOLLOW_SECONDS
        unreadable = self._read(live)
        for lease in ending:
            try:
                found = self._find(lease, live, unreadable)
                if self._confirm(lease, found).state == RELEASING:
                    self._end_leftovers(lease, found)
            except Refusal as refusal:
                # Another process moved it on meanwhile; the others must not wait for that.
                log.info("Lease %d: %s", lease.id, refusal)

    # -- the proof -------------------------------------------------------------------------------

    def _read(self, live: tuple[LeaseRow, ...]) -> str:
        """Read the machine's processes; return why that is not possible, or an empty text."""
        try:
            self._families.look(live)
        except Unreadable as error:
            return f"the processes of node {self._node} cannot be read: {error}"
        return ""

    def _find(self, lease: LeaseRow, live: tuple[LeaseRow, ...], unreadable: str) -> Finding:
        if unreadable:
            return Finding(unreadable=unreadable)
        left = self._families.left(lease)
        doubts = self._families.doubts(lease)
        if not left and not doubts and not self._families.snapshot.complete:
            unreadable = self._read(live)
            if unreadable:
                return Finding(unreadable=unreadable)
            left, doubts = self._families.left(lease), self._families.doubts(lease)
            if not left and not doubts and not self._families.snapshot.complete:
                # A program that starts another and ends, again and again, shows in no list.
                return Finding(
                    unreadable=(
                        f"processes of node {self._node} start and end faster than they can be read"
                    )
                )
        try:
            pids = self._on_slice(lease)
        except GpuError as error:
            unreadable, pids = f"NVML cannot say who is on it: {error}", []
        occupants = self._occupants(lease, live, pids, left)
        return Finding(tuple(left), tuple(occupants), tuple(doubts), unreadable)

    def _on_slice(self, lease: LeaseRow) -> list[int]:
        """Return the pids that NVML lists on a lease's slice.

        A slice that does not exist holds no process; but one that cannot be found by its UUID may
        be on a card that does not answer, or have another UUID since it was created again. Raises
        :exc:`.GpuError` when it cannot say.
        """
        if lease.slice_uuid is None:
            return []
        try:
            return [each.pid for each in self._nvml.processes(lease.slice_uuid)]
        except GpuError as error:
            if error.code != Code.NOT_FOUND or lease.slice_uuid == lease.card_uuid:
                raise
        card = self._nvml.card(lease.card_uuid)
        if card.problem:
            raise GpuError(card.problem, code=card.code)
        return [
            each.pid
            for instance in card.instances
            if (instance.profile, instance.start) == (lease.profile, lease.start)
            for each in instance.processes
        ]

    def _occupants(
        self, lease: LeaseRow, live: tuple[LeaseRow, ...], pids: list[int], left: list[Process]
    ) -> list[Occupant]:
        """Return who is on the slice besides the session's processes and its neighbours'."""
        known = {process.pid: process for process in left}
        others = {each.attempt: each for each in live if each.id != lease.id}
        neighbours = {a for a, each in others.items() if each.slice_id == lease.slice_id}
        guests = self._families.guests
        neighbours |= guests.on(lease)
        found = []
        for pid in pids:
            # Whose they are is read now, after NVML listed them: an older reading may be of
            # another process that had the same pid.
            try:
                facts = read_facts(self._proc / str(pid))
                owner = self._families.owner(pid)
                own = self._families.is_own(pid, [lease])
            except Unreadable as error:
                found.append(Occupant(pid, known.get(pid), whose=str(error)))
                continue
            if facts is None:
                found.append(Occupant(pid))
            elif known.get(pid) == facts.process or owner in neighbours:
                continue
            else:
                other, whose = others.get(owner), ""
                if other is not None:
                    whose = f"of lease {other.id}, which continues"
                elif owner in guests.attempts:
                    whose = "of a server that has no lease here"
                found.append(
                    Occupant(
                        pid,
                        facts.process,
                        own=bool(own) and not whose and not self._shares(lease, neighbours),
                        foreign=own is False and other is None,
                        whose=whose,
                    )
                )
        return found

    def _shares(self, lease: LeaseRow, neighbours: set[str]) -> bool:
        """Tell whether others may be on the slice, so that being there proves nothing."""
        return bool(neighbours) or lease.slice_id in self._broker.slices.shared(self._node)

    def _confirm(self, lease: LeaseRow, found: Finding) -> LeaseRow:
        ending = self._endings.get(lease.id)
        if not found.why:
            after = self._broker.leases.confirm_empty(lease.id)
            if ending is not None and ending.quarantine:
                self._broker.slices.let_in_again(lease.slice_id)
            return after
        if found.why != lease.waiting_for and self._is_news(ending, found):
            self._broker.leases.note_waiting(lease.id, found.why)
        return lease

    def _is_news(self, ending: _Ending | None, found: Finding) -> bool:
        """Tell whether a finding is to be stored now.

        Processes that start others again and again are not stored with each.
        """
        if ending is None:
            return True
        now = self._monotonic()
        noted = ending.noted if ending.kind == found.kind else None
        if noted is not None and now - noted < SAME_SECONDS:
            return False
        ending.kind, ending.noted = found.kind, now
        return True

    # -- the end ---------------------------------------------------------------------------------

    def _end_leftovers(self, lease: LeaseRow, found: Finding) -> None:
        """End what is left: first patience, then SIGTERM, then SIGKILL.

        Signals are sent again in each round until it is gone.
        """
        ending = self._endings[lease.id]
        waited = self._monotonic() - ending.since
        own = {each.process for each in found.occupants if each.own and each.process is not None}
        # Seen there twice: one look may be at another process that just got the pid.
        targets = [*found.left, *sorted(own & ending.own, key=lambda each: each.pid)]
        ending.own = frozenset(own)
        protected = _line_of(os.getpid())
        stuck: list[str] = []
        pids: list[int] = []
        if waited >= TERMINATE_AFTER:
            number = signal.SIGTERM if waited < KILL_AFTER else signal.SIGKILL
            for process in targets:
                why = "is this service itself" if process.pid in protected else ""
                why = why or process.signal(number, self._proc)
                if why or waited >= KILL_AFTER + STUCK_SECONDS:
                    stuck.append(_in_words(process, why, self._proc))
                    if process.pid not in protected:
                        pids.append(process.pid)
        for each in found.occupants:
            late = waited >= KILL_AFTER + STUCK_SECONDS and not each.own
            if each.foreign or late:
                stuck.append(_occupant_in_words(each, self._proc))
                pids.append(each.pid)
        if waited >= KILL_AFTER + STUCK_SECONDS:
            stuck += found.doubts
        self._quarantine(lease, ending, stuck, pids)

    def _quarantine(
        self, lease: LeaseRow, ending: _Ending, stuck: list[str], pids: list[int]
    ) -> None:
        if not stuck:
            if ending.quarantine:
                self._broker.slices.let_in_again(lease.slice_id)
                ending.quarantine = ""
            return
        more = [f"{len(stuck) - MOST_NAMED} more"] if len(stuck) > MOST_NAMED else []
        why = f"{LEFTOVER} lease {lease.id} of {lease.user}: "
        why += listed([*stuck[:MOST_NAMED], *more])
        if pids:
            numbers = " ".join(map(str, pids[:MOST_NAMED]))
            why += f"; on node {lease.node}, `sudo kill -9 {numbers}` ends those that still run"
        why += "."
        now = self._monotonic()
        pause = QUARANTINE_SECONDS if why != ending.quarantine else SAME_SECONDS
        if not ending.quarantine or now - ending.written >= pause:
            self._broker.slices.keep_back(lease.slice_id, why)
            ending.quarantine, ending.written = why, now


def _in_words(process: Process, why: str, proc: Path) -> str:
    return describe(process, proc) + (f", which {why}" if why else "")


def _occupant_in_words(occupant: Occupant, proc: Path) -> str:
    process = occupant.process
    who = f"process {occupant.pid}" if process is None else describe(process, proc)
    return f"{who}, {occupant.whose}" if occupant.whose else who


def _line_of(pid: int) -> set[int]:
    """Return a process of this machine and its ancestors, as far as they can be read."""
    line: set[int] = set()
    while pid > 0 and pid not in line:
        line.add(pid)
        try:
            pid = parent_of(PROC / str(pid))
        except Unreadable:
            break
    return line
