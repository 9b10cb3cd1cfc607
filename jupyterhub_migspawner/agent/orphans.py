"""Servers of this machine by the marks of their processes, whatever the lease database knows.

Relies on ``/proc``. Promises that what cannot be read is not taken for gone: a process that belongs
to another user is named as unreadable, and any other failure is an error.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from jupyterhub_migspawner.agent.environments import AT_ONCE, Environments
from jupyterhub_migspawner.agent.processes import (
    PROC,
    Facts,
    Process,
    Unreadable,
    pids_of,
    read_facts,
    uids_of,
)
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.marks import NAMES, mark_in
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.model.orphans import OrphanRow

MOST_PIDS = 20
"""So many processes of a server are named."""

MOST_CLAIMS = 256
"""So many servers one user's processes may claim to be; those that began first."""


@dataclass(frozen=True)
class Marks:
    """What a look over all processes found.

    One mark an attempt, with its processes, the oldest first, and the processes that may not be
    read.
    """

    found: tuple[OrphanRow, ...]
    unreadable: frozenset[int] = frozenset()


def read_marks(proc: Path = PROC, environments: Environments | None = None) -> Marks:
    """Return the marks of all living processes, those of the oldest servers first.

    Environments are read in shares, by ``environments`` where that is given. Raises
    :exc:`.GpuError` when it cannot tell.
    """
    environments = environments or Environments(proc, AT_ONCE, NAMES)
    facts: dict[int, Facts] = {}
    unknown: dict[int, Unreadable] = {}
    try:
        pids, left_out = environments.some(pids_of(proc))
    except Unreadable as error:
        raise _ignorance(error) from error
    for pid in pids:
        try:
            found = read_facts(proc / str(pid))
        except Unreadable as error:
            unknown[pid] = error
            continue
        if found is not None and not found.dead and not found.kernel:
            facts[pid] = found
    read = environments.read(facts.values(), facts.values())
    unknown |= read.unknown
    lasting = next((each for each in unknown.values() if not each.passing), None)
    if lasting is not None:
        raise _ignorance(lasting) from lasting
    servers: dict[str, list[Process]] = {}
    for pid, environment in read.known.items():
        if environment.mark:
            servers.setdefault(environment.mark, []).append(facts[pid].process)
    unreadable = {*unknown, *left_out}
    claims: Counter[int] = Counter()
    marks = []
    for attempt, processes in sorted(
        servers.items(), key=lambda each: _age(min(each[1], key=_age))
    ):
        processes.sort(key=_age)
        uid = _uid_of(proc / str(processes[0].pid))
        claims[uid] += 1
        if claims[uid] > MOST_CLAIMS:
            unreadable |= {each.pid for each in processes}
            continue
        # The server itself was there first; what it started may have changed its own environment.
        texts = (read.known[each.pid].variables for each in processes)
        found_marks = (mark_in({name.decode(): text for name, text in e.items()}) for e in texts)
        mark = next((each for each in found_marks if each and each.attempt == attempt), None)
        pids = [each.pid for each in processes[:MOST_PIDS]]
        marks.append(replace(mark or OrphanRow(attempt), pids=tuple(pids)))
    return Marks(tuple(marks), frozenset(unreadable))


def _age(process: Process) -> tuple[int, int]:
    return process.started, process.pid


def _uid_of(entry: Path) -> int:
    """Return the user of a process; -1 where that cannot be read."""
    try:
        return min(uids_of(entry) or (-1,))
    except Unreadable:
        return -1


def _ignorance(error: Unreadable) -> GpuError:
    return GpuError(f"{error}, so it is not known which slices are in use.")


def shut_orphans(mig: MigBroker, broker: Broker) -> tuple[OrphanRow, ...]:
    """Quarantine slices of this machine that servers without a lease use; return those servers.

    Raises :exc:`.GpuError` when it cannot tell, and :exc:`.DatabaseError`.
    """
    return broker.orphans.note_marks(mig.node, read_marks().found)
