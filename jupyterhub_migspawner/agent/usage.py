"""Whether the processes of sessions work: the CPU time that they use, over time.

Relies on ``/proc`` and NVML of this machine, on the mark that all processes of a server carry, and
on descent where one has lost it (:mod:`.vacancy`). Promises that work without a word is seen, in a
kernel, a terminal or the background; and that where a session's processes cannot be seen, that is
said and not taken for idleness.

A process that waits uses next to no CPU, one that computes on a GPU some: its thread that feeds
the card. So on a slice less is enough to count as work than elsewhere. The server itself does not
count: an open page keeps it a little busy for ever. How much a slice is used, where that can be
measured (:mod:`.measuring`), counts beside that; of a shared one for everybody who is on it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner.agent.measuring import Measuring
from jupyterhub_migspawner.agent.vacancy import (
    NOT_FOUND,
    Process,
    cpu_ticks,
    family_processes,
    parent_of,
    start_time,
)
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.reclaiming import LOOK_SECONDS, Answer
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.leases.rows import ACTIVE, LeaseRow
from jupyterhub_migspawner.policy.reclaim import PROCESSES

ON_SLICE = 0.02
"""Share of one CPU from which on the processes on a slice are at work, all together."""

ELSEWHERE = 0.10
"""The same for a session's other processes."""

TICKS = float(os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True)
class _Sample:
    """CPU seconds of every process of a session at one moment."""

    at: float
    used: dict[Process, float]


class Usage:
    """Looks at the processes of this node's sessions, now and then.

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
        self._pause = min(LOOK_SECONDS, broker.settings.examine_seconds)
        self._next = monotonic()
        self._before: dict[int, _Sample] = {}
        self._measuring = Measuring(broker, nvml, node=node)

    def look(self) -> None:
        """Say of each session how its processes are, where its tier ends idle ones.

        Raises :exc:`.DatabaseError`. Sooner than a moment after the last look it does nothing.
        """
        if self._monotonic() < self._next:
            return
        self._next = self._monotonic() + self._pause
        leases = [
            lease
            for lease in self._broker.leases(node=self._node, states=(ACTIVE,))
            if (tier := self._broker.settings.tier(lease.tier)) and tier.idle_minutes is not None
        ]
        before, self._before = self._before, {}
        if not leases:
            return
        families = family_processes(self._proc)
        self._measuring.begin()
        answers: list[Answer | None] = []
        for lease in leases:
            mine = families.get(lease.attempt, [])
            on_slice, trouble = self._on_slice(lease)
            answers.append(self._answer(lease, mine, before.get(lease.id), on_slice, trouble))
            is_there = any(each.pid in on_slice for each in mine)
            answers.append(self._measuring.answer(lease, is_there or not self._shares(lease)))
        self._broker.note_answers([answer for answer in answers if answer is not None])

    def _answer(
        self,
        lease: LeaseRow,
        mine: list[Process],
        before: _Sample | None,
        on_slice: dict[int, int],
        trouble: str,
    ) -> Answer | None:
        if not mine:
            trouble = "no process of this server can be seen on its node"
        if trouble:
            return Answer(lease.id, PROCESSES, trouble=trouble)
        strangers = self._strangers(lease, mine, on_slice)
        now = _Sample(
            self._monotonic(),
            {each: cpu_ticks(self._proc / str(each.pid)) / TICKS for each in (*mine, *strangers)},
        )
        self._before[lease.id] = now
        if before is None or now.at <= before.at:
            return None  # one look alone says nothing about time
        seconds = now.at - before.at
        server = self._server(mine)
        there = [each for each in mine if each.pid in on_slice] + strangers
        others = [each for each in mine if each.pid not in on_slice and each != server]
        on, off = (_used(each, before, now) / seconds for each in (there, others))
        memory = sum(on_slice[each.pid] for each in there)
        said = f"{100 * on:.0f} % of a CPU by {len(there)} on the slice"
        if memory:
            said += f" with {memory} MiB of it"
        said += f", {100 * off:.0f} % by {len(others)} others"
        return Answer(
            lease.id,
            PROCESSES,
            # Whoever comes or goes on the slice does something there.
            mark=" ".join(str(each.pid) for each in there),
            busy=on >= ON_SLICE or off >= ELSEWHERE,
            said=said,
        )

    def _on_slice(self, lease: LeaseRow) -> tuple[dict[int, int], str]:
        """MiB of memory of it by pid of whoever is on the slice, others of a shared one, too; and
        why that cannot be said."""
        if lease.slice_uuid is None:
            return {}, ""
        try:
            found = self._nvml.processes(lease.slice_uuid)
        except GpuError as error:
            if error.code == NOT_FOUND:
                return {}, ""
            return {}, f"NVML cannot say who is on the slice: {error}"
        return {each.pid: each.memory_mib or 0 for each in found}, ""

    def _shares(self, lease: LeaseRow) -> bool:
        tier = self._broker.settings.tier(lease.tier)
        return tier is None or tier.shares

    def _strangers(
        self, lease: LeaseRow, mine: list[Process], on_slice: dict[int, int]
    ) -> list[Process]:
        """Processes on the slice that carry no mark, as after ``env -i``. Where nobody else may be
        there they are this session's all the same.
        """
        if self._shares(lease):
            return []
        known = {each.pid for each in mine}
        found = []
        for pid in sorted(on_slice.keys() - known):
            started = start_time(self._proc / str(pid))
            if started is not None:
                found.append(Process(pid, started))
        return found

    def _server(self, mine: Iterable[Process]) -> Process | None:
        """The server itself: the first of a session's processes, and started by none of them.

        One that has lost its parent was started by none either, but later.
        """
        pids = {each.pid for each in mine}
        roots = [each for each in mine if parent_of(self._proc / str(each.pid)) not in pids]
        return min(roots, key=lambda each: each.started, default=None)


def _used(processes: Iterable[Process], before: _Sample, now: _Sample) -> float:
    """CPU seconds that they have used since; all of it for those that are new."""
    return sum(max(0.0, now.used[each] - before.used.get(each, 0.0)) for each in processes)
