"""Whether the processes of sessions work: the CPU time that they use, over time.

Relies on ``/proc`` and NVML of this machine, and on :mod:`.families` for which processes are a
session's. Promises that work without a word is seen, in a kernel, a terminal or the background;
that where a session's processes cannot be seen, that is reported and not taken for idleness; and
that another system user's process on the slice keeps no session.

A process that waits uses next to no CPU, one that computes on a GPU some: its thread that feeds the
card. So on a slice less is enough to count as work than elsewhere. The server itself does not
count: an open page keeps it a little busy all the time. How much a slice is used, where that can be
measured (:mod:`.utilisation`), counts beside that; of a shared one for everybody who is on it.
While another user's process is on a slice nobody can tell whose use that is, and it counts for
nothing: the session's own processes are judged by their CPU time, as on cards that are not
measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_migspawner.agent.families import Families
from jupyterhub_migspawner.agent.processes import PROC, TICKS, Process, Unreadable, read_facts
from jupyterhub_migspawner.agent.utilisation import Meter
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.broker.sessions import LOOK_SECONDS
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.leases import ACTIVE, LeaseRow
from jupyterhub_migspawner.policy.reclaim import PROCESSES

ON_SLICE = 0.02
"""Share of one CPU from which on the processes on a slice are at work, all together."""

ELSEWHERE = 0.10
"""The same for a session's other processes."""


@dataclass(frozen=True)
class _Sample:
    """CPU seconds of every process of a session at one moment."""

    at: float
    used: Mapping[Process, float]


@dataclass(frozen=True)
class Look:
    """A session at one moment: its processes, MiB of those on the slice, CPU seconds of all.

    ``foreign`` says that another system user's process is on the slice too; ``problem`` why some
    of this is unknown.
    """

    mine: tuple[Process, ...] = ()
    own: Mapping[Process, int] = field(default_factory=dict)
    used: Mapping[Process, float] = field(default_factory=dict)
    foreign: bool = False
    problem: str = ""


class Usage:
    """The look, now and then, at the processes of this node's sessions.

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
        self._pause = min(LOOK_SECONDS, broker.settings.examine_seconds)
        self._next = monotonic()
        self._before: dict[int, _Sample] = {}
        self._shared: frozenset[int] = frozenset()
        self._meter = Meter(broker, nvml, node=node)
        self._families = families or Families(broker, node=node, proc=proc)

    def look(self) -> None:
        """Report for each session how its processes are, unless its tier ends no idle ones.

        Sooner than a moment after the last look it does nothing. Raises :exc:`.DatabaseError`.
        """
        if self._monotonic() < self._next:
            return
        self._next = self._monotonic() + self._pause
        live = self._broker.leases.find(node=self._node)
        leases = [lease for lease in live if lease.state == ACTIVE and self._may_end_idle(lease)]
        before, self._before = self._before, {}
        if not leases:
            return
        self._shared = self._broker.slices.shared(self._node)
        unreadable = ""
        try:
            self._families.look(live)
        except Unreadable as error:
            unreadable = f"the processes of its node cannot be read: {error}"
        self._meter.begin()
        answers: list[Answer | None] = []
        for lease in leases:
            look = Look(problem=unreadable) if unreadable else self._look_at(lease, live)
            answers.append(self._answer(lease, look, before.get(lease.id)))
            # Of a slice that others share, use counts for those who are on it.
            counts = bool(look.own) or not self._shares(lease)
            answers.append(self._meter.answer(lease, counts, foreign=look.foreign))
        self._broker.readings.note([answer for answer in answers if answer is not None])

    def _look_at(self, lease: LeaseRow, live: Collection[LeaseRow]) -> Look:
        """Return the processes of a session and those on its slice, as they are now."""
        mine = self._families.members(lease)
        if not mine:
            return Look(problem="no process of this server is visible on its node")
        on_slice, problem = self._on_slice(lease)
        try:
            own, foreign = self._whose(lease, live, on_slice)
            ticks = {each: self._ticks(each) for each in {*mine, *own}}
        except Unreadable as error:
            return Look(problem=problem or f"its processes cannot be read: {error}")
        # A process that is gone by now has used what it has used; the next look does not see it.
        used = {each: found / TICKS for each, found in ticks.items() if found is not None}
        mine = [each for each in mine if each in used]
        memory = {each: on_slice[each.pid] for each in own if each in used}
        return Look(tuple(mine), memory, used, bool(foreign), problem)

    def _answer(self, lease: LeaseRow, look: Look, before: _Sample | None) -> Answer | None:
        if look.problem:
            return Answer(lease.id, PROCESSES, problem=look.problem)
        now = _Sample(self._monotonic(), look.used)
        self._before[lease.id] = now
        if before is None or now.at <= before.at:
            return None  # one look alone says nothing about time
        seconds = now.at - before.at
        server = self._server(look.mine)
        there = list(look.own)
        others = [each for each in look.mine if each not in look.own and each != server]
        on, off = (_used(each, before, now) / seconds for each in (there, others))
        memory = sum(look.own.values())
        said = f"{100 * on:.0f} % of a CPU by {len(there)} on the slice"
        if memory:
            said += f" with {memory} MiB of it"
        said += f", {100 * off:.0f} % by {len(others)} others"
        return Answer(
            lease.id,
            PROCESSES,
            # A process that comes or goes on the slice does something there.
            fingerprint=" ".join(str(each.pid) for each in there),
            busy=on >= ON_SLICE or off >= ELSEWHERE,
            said=said,
        )

    def _on_slice(self, lease: LeaseRow) -> tuple[dict[int, int], str]:
        """Return MiB of memory of each process on the slice, by pid, and why that is unknown.

        On a shared slice, processes of others are among them.
        """
        if lease.slice_uuid is None:
            return {}, ""
        try:
            found = self._nvml.processes(lease.slice_uuid)
        except GpuError as error:
            return {}, f"NVML cannot say who is on the slice: {error}"
        return {each.pid: each.memory_mib or 0 for each in found}, ""

    def _whose(
        self, lease: LeaseRow, live: Collection[LeaseRow], on_slice: Mapping[int, int]
    ) -> tuple[list[Process], list[int]]:
        """Return those on the slice that are the session's, and the pids of other users' processes.

        Other users are those without a lease on the slice. If the slice is not shared, a process
        that runs as the session's user is the session's even without a mark. Raises
        :exc:`.Unreadable`.
        """
        shares = self._shares(lease)
        there = [each for each in live if each.slice_id == lease.slice_id]
        own, foreign = [], []
        for pid in sorted(on_slice):
            facts = read_facts(self._proc / str(pid))
            if facts is None:
                continue
            mine = not shares or self._families.owner(pid) == lease.attempt
            if mine and self._families.is_own(pid, [lease]):
                own.append(facts.process)
            elif self._families.is_own(pid, there) is False:
                foreign.append(pid)
        return own, foreign

    def _ticks(self, process: Process) -> int | None:
        facts = read_facts(self._proc / str(process.pid))
        return facts.ticks if facts is not None and facts.process == process else None

    def _may_end_idle(self, lease: LeaseRow) -> bool:
        """Tell whether idle sessions may end; on a node without the tiers, the service knows."""
        tier = self._broker.settings.tier(lease.tier)
        return tier is None or tier.idle_minutes is not None

    def _shares(self, lease: LeaseRow) -> bool:
        return lease.slice_id in self._shared

    def _server(self, mine: Iterable[Process]) -> Process | None:
        """Return the server itself: the first of a session's processes, started by none of them.

        One that has lost its parent was started by none either, but later.
        """
        pids, facts = {each.pid for each in mine}, self._families.snapshot.facts
        roots = [each for each in mine if each.pid in facts and facts[each.pid].parent not in pids]
        return min(roots, key=lambda each: each.started, default=None)


def _used(processes: Iterable[Process], before: _Sample, now: _Sample) -> float:
    """Return the CPU seconds that they have used since; all of it for those that are new."""
    return sum(max(0.0, now.used[each] - before.used.get(each, 0.0)) for each in processes)
