"""All processes of this machine at one moment, and the session that each belongs to.

Relies on :mod:`.processes` for what ``/proc`` tells, and on :mod:`.environments` for how much of it
is read. Promises that what cannot be read, or was not, is reported as unknown.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner.agent.environments import AT_ONCE, Environments
from jupyterhub_migspawner.agent.processes import (
    PROC,
    Environment,
    Facts,
    Process,
    Unread,
    Unreadable,
    mark_of,
    pids_of,
    read_facts,
)

PASSES = 20
"""How often the list of processes is read again for those that ended and started others meanwhile.

A pass over what is new takes a millisecond or less: one in which none ended is found, unless tens
of thousands end each second."""

TRIES = 3
"""How often one that cannot be read at the moment is read."""

MOST_ANCESTORS = 256
"""A process with more ancestors that are not known is nobody's for certain."""


@dataclass(frozen=True)
class Snapshot:
    """The living processes of the machine, and the attempt that each belongs to, by pid.

    ``unknown`` are those of which neither mark nor descent can be read. ``complete`` says that
    none ended before it was read in the end: what that process has started may be missing.
    """

    facts: Mapping[int, Facts]
    owners: Mapping[int, str]
    unknown: Mapping[int, Unreadable]
    complete: bool = True

    def family(self, attempt: str) -> list[Process]:
        """Return the processes of an attempt."""
        pids = (pid for pid, owner in self.owners.items() if owner == attempt)
        return [self.facts[pid].process for pid in pids]


def scan(
    proc: Path = PROC,
    remembered: Mapping[Process, str] | None = None,
    environments: Environments | None = None,
    first: Collection[int] = (),
    attempts: Collection[str] | None = None,
    hub: int = 0,
) -> Snapshot:
    """Read every process of this machine; ``remembered`` says what some are known to belong to.

    ``attempts`` are those that there are: a mark that names another one is none. A process could
    give itself any, and would not count as a descendant of its session. None takes every mark.
    ``hub`` is the pid of the hub, which is nobody's: see :func:`_set_apart`.

    Environments are read in shares, by ``environments`` where that is given, and those of the users
    in ``first`` before others'. Raises :exc:`Unreadable` when the processes cannot even be listed.
    """
    remembered = remembered or {}
    environments = environments or Environments(proc, AT_ONCE)
    facts: dict[int, Facts] = {}
    owners: dict[int, str] = {}
    unknown: dict[int, Unreadable] = {}
    seen, tries = set[int](), Counter[int]()

    def failed(pid: int, error: Unreadable) -> bool:
        """Note what cannot be read; return whether that is over soon, as in the middle of exec."""
        unknown[pid] = error
        tries[pid] += 1
        soon = error.passing and not error.denied and not isinstance(error, Unread)
        if soon and tries[pid] < TRIES:
            seen.discard(pid)
            return True
        seen.add(pid)
        return False

    listed = set(pids_of(proc))
    left_out = frozenset(environments.some(listed)[1])
    unknown |= {pid: Unread(proc / str(pid)) for pid in left_out}
    for _ in range(PASSES):
        complete, fresh = True, []
        for pid in unknown.keys() - listed:
            del unknown[pid]
            facts.pop(pid, None)
        for pid in sorted(listed - seen - left_out):
            unknown.pop(pid, None)
            try:
                found = read_facts(proc / str(pid))
            except Unreadable as error:
                complete = not failed(pid, error) and complete
                continue
            if found is None:
                complete = False
                continue
            seen.add(pid)
            if found.dead or found.kernel:
                continue
            facts[pid] = found
            owners[pid] = remembered.get(found.process, "")
            if not owners[pid]:
                fresh.append(found)
        read = environments.read(fresh, facts.values(), first)
        for pid in (each.process.pid for each in fresh):
            if pid in read.unknown:
                complete = not failed(pid, read.unknown[pid]) and complete
                continue
            environment = read.known.get(pid, Environment())
            if not environment.mark and environment.place is None and _is_gone(proc / str(pid)):
                # It ended while it was read.
                del facts[pid], owners[pid]
                seen.discard(pid)
                complete = False
            elif attempts is None or environment.mark in attempts:
                owners[pid] = environment.mark
        # One that ended before it was read may have started another one, which the list lacks.
        if complete:
            break
        listed = set(pids_of(proc))
    _set_apart(hub, facts, owners)
    _inherit(facts, owners, hub)
    strangers = {pid: error for pid, error in unknown.items() if not owners.get(pid)}
    return Snapshot(facts, owners, strangers, complete)


def _is_gone(entry: Path) -> bool:
    try:
        return read_facts(entry) is None
    except Unreadable:
        return False


def marked_processes(proc: Path = PROC) -> dict[str, list[Process]]:
    """Return every process on this machine that carries a mark, by attempt.

    What may not be read here (other people's processes, without root) is left out. Raises
    :exc:`Unreadable` when something else keeps a process from being read.
    """
    found: dict[str, list[Process]] = {}
    for pid in pids_of(proc):
        try:
            facts = read_facts(proc / str(pid))
            attempt = mark_of(proc / str(pid)) if facts else ""
        except Unreadable as error:
            if not error.denied:
                raise
            continue
        if facts and attempt:
            found.setdefault(attempt, []).append(facts.process)
    return found


def family_processes(proc: Path = PROC) -> dict[str, list[Process]]:
    """Return every process here that carries a mark or descends from one that does, by attempt.

    Raises :exc:`Unreadable` when the processes cannot be listed.
    """
    snapshot = scan(proc)
    attempts = sorted(set(snapshot.owners.values()) - {""})
    return {attempt: snapshot.family(attempt) for attempt in attempts}


def belongs_to(pid: int, proc: Path = PROC) -> str:
    """Return the attempt that a process belongs to: its own mark, or its nearest ancestor's.

    An empty string when nothing proves any. A process that has lost its parent was given to another
    one (proc(5), ``PPID``), which is init or an ancestor of its own: it is never counted as a
    descendant of a session from which it does not descend. Raises :exc:`Unreadable`.
    """
    seen: set[int] = set()
    while pid > 1 and pid not in seen:
        if len(seen) >= MOST_ANCESTORS:
            raise endless(proc / str(pid))
        seen.add(pid)
        entry = proc / str(pid)
        facts = read_facts(entry)
        if facts is None:
            return ""
        attempt = mark_of(entry)
        if attempt:
            return attempt
        pid = facts.parent
    return ""


def endless(entry: Path) -> Unreadable:
    """Return the error for a process whose ancestors are too many."""
    return Unreadable(entry, OSError(errno.ELOOP, f"more than {MOST_ANCESTORS} ancestors"))


def _set_apart(hub: int, facts: Mapping[int, Facts], owners: dict[int, str]) -> None:
    """Take the hub, and what it starts beside the sessions, for nobody's.

    An admin may start a hub in a terminal of a notebook. It then has the mark of that session, or
    descends from it, as do its proxy and the servers of others that have no slice: the end of that
    session would end them all. What the hub starts with a mark of its own keeps that.
    """
    own = owners.get(hub, "")
    if hub not in facts:
        return
    owners[hub] = ""
    if not own:
        return
    for pid in [pid for pid, owner in owners.items() if owner == own]:
        at, seen = pid, set[int]()
        while at in facts and at != hub and at not in seen:
            seen.add(at)
            at = facts[at].parent
        if at == hub:
            owners[pid] = ""


def _inherit(facts: Mapping[int, Facts], owners: dict[int, str], hub: int) -> None:
    """Give each process without an owner that of its nearest ancestor with one, up to the hub."""
    # Every process walked past has its owner by now: a long line of descent is walked once.
    known: set[int] = set()
    for pid in sorted(facts):
        line = []
        at = pid
        while at in facts and at != hub and not owners.get(at) and at not in known:
            known.add(at)
            line.append(at)
            at = facts[at].parent
        owner = owners.get(at, "")
        for each in line:
            owners[each] = owner
