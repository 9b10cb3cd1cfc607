"""What processes carry in their environments, read in shares: no user can make the others wait.

Any local user may have thousands of processes, each with megabytes of environment, that replace
themselves again and again. So each system user has a share of every round, in processes and bytes,
and all together have one; what is not reached is :exc:`.Unread` and comes in a later round. A read
begins as long as its user's share is not used up. What it takes beyond that is owed, and comes off
the shares of the following rounds.

Who comes first: users whose processes decide about slices (:meth:`Environments.read`), then those
one of whose processes has waited for longest; of one user's processes those that have waited for
longest, the oldest first. So each process is read after a bounded number of rounds, whatever others
start meanwhile, and a server is read before what it has started.

An environment is read once, and again only when the process has it in another place: it runs
another program then. What a process is charged to is its real user, as the kernel says.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_migspawner.agent.processes import (
    PROC,
    Environment,
    Facts,
    Process,
    Unread,
    Unreadable,
    environment_of,
    uids_of,
)

MOST_PIDS = 8192
"""Processes of one user that are looked at in a round; kernel threads are root's."""


@dataclass(frozen=True)
class Share:
    """How much may be read in a round: of one user's processes, and of all."""

    processes: int = 256
    size: int = 4 << 20
    all_processes: int = 1024
    all_size: int = 16 << 20


AT_ONCE = Share(4096, 64 << 20, 8192, 128 << 20)
"""For those who look once only: a spawner after a stop, the service when it starts, ``doctor``."""


@dataclass
class _Waiting:
    """A process that is to be read: since which round, and how its last reading failed."""

    since: int
    uid: int
    error: Unreadable | None = None


@dataclass
class _Account:
    """What a user has had: bytes that are owed, and processes read in this round."""

    size: int = 0
    processes: int = 0
    served: int = -1


@dataclass(frozen=True)
class _Read:
    place: tuple[int, int]
    environment: Environment
    round: int


@dataclass
class Reading:
    """What was found out about processes: by pid, their environments, and what is unknown."""

    known: dict[int, Environment] = field(default_factory=dict)
    unknown: dict[int, Unreadable] = field(default_factory=dict)


class Environments:
    """The processes' environments, of which each round reads a share, and the memory of them.

    ``names`` are the variables to keep beside the mark.
    """

    def __init__(
        self, proc: Path = PROC, share: Share = Share(), names: Collection[str] = ()
    ) -> None:
        self._proc = proc
        self._share = share
        self._names = frozenset(name.encode() for name in names)
        self._read: dict[Process, _Read] = {}
        self._waiting: dict[Process, _Waiting] = {}
        self._accounts: dict[int, _Account] = {}
        self._all = _Account()
        self._living: set[Process] = set()
        # Where the next round begins among the pids of a user who has too many.
        self._begins: dict[int, int] = {}
        self.round = 0

    def begin(self) -> None:
        """Begin another round: everybody has their share again, and the dead are forgotten."""
        self.round += 1
        if self._living:
            self._read = {p: self._read[p] for p in self._read if p in self._living}
            self._waiting = {p: self._waiting[p] for p in self._waiting if p in self._living}
            self._living = set()
        for account in self._accounts.values():
            account.size = max(0, account.size - self._share.size)
            account.processes = 0
        self._all.size = max(0, self._all.size - self._share.all_size)
        self._all.processes = 0
        waiting = {each.uid for each in self._waiting.values()}
        self._accounts = {u: a for u, a in self._accounts.items() if a.size or u in waiting}

    def read(
        self, facts: Iterable[Facts], among: Collection[Facts] = (), first: Collection[int] = ()
    ) -> Reading:
        """Return what these living processes carry, as far as the shares of this round reach.

        ``among`` are all that live, so that nothing is kept of others, and ``first`` the users who
        come first.
        """
        found = Reading()
        queues: dict[int, list[tuple[int, int, int, Facts]]] = {}
        self._living.update(each.process for each in among)
        for each in facts:
            process = each.process
            self._living.add(process)
            before = self._read.get(process)
            if before is not None and before.place == each.environment:
                found.known[process.pid] = before.environment
                continue
            try:
                waiting = self._queue(process)
            except Unreadable as error:
                found.unknown[process.pid] = error
                continue
            if waiting is not None:
                place = (waiting.since, process.started, process.pid)
                queues.setdefault(waiting.uid, []).append((*place, each))

        def turn(uid: int) -> tuple[bool, int, int, int]:
            return uid not in first, min(since for since, *_ in queues[uid]), self._served(uid), uid

        for uid in sorted(queues, key=turn):
            for *_, each in sorted(queues[uid], key=lambda entry: entry[:3]):
                self._try(each, uid, found)
        return found

    def one(self, facts: Facts) -> Environment:
        """Return what one living process carries.

        Raises :exc:`.Unreadable`.
        """
        found = self.read([facts])
        pid = facts.process.pid
        if pid in found.unknown:
            raise found.unknown[pid]
        return found.known.get(pid, Environment())

    def read_in(self, process: Process) -> int:
        """Return the round in which a process was last read; -1 for never.

        What it has run since does not matter.
        """
        found = self._read.get(process)
        return -1 if found is None else found.round

    def some(self, pids: Iterable[int]) -> tuple[list[int], list[int]]:
        """Return which of the machine's processes this round looks at, and which are left out.

        Of a user who has more than :data:`MOST_PIDS`, others are left out in each round.
        """
        every = sorted(pids)
        if len(every) <= MOST_PIDS:
            return every, []
        owners: dict[int, list[int]] = {}
        for pid in every:
            try:
                owners.setdefault(os.stat(self._proc / str(pid)).st_uid, []).append(pid)
            except OSError:
                owners.setdefault(-1, []).append(pid)  # the reader finds out why
        taken: list[int] = []
        left: list[int] = []
        begins, self._begins = self._begins, {}
        for uid, mine in owners.items():
            if len(mine) > MOST_PIDS:
                at = begins.get(uid, 0) % len(mine)
                mine = mine[at:] + mine[:at]
                self._begins[uid] = at + MOST_PIDS
            taken += mine[:MOST_PIDS]
            left += mine[MOST_PIDS:]
        return sorted(taken), sorted(left)

    def _served(self, uid: int) -> int:
        return self._accounts[uid].served if uid in self._accounts else -1

    def _queue(self, process: Process) -> _Waiting | None:
        """Return a place for a process that is to be read; None when it is gone."""
        waiting = self._waiting.get(process)
        if waiting is None:
            uids = uids_of(self._proc / str(process.pid))
            if not uids:
                return None
            waiting = self._waiting[process] = _Waiting(self.round, min(uids))
        return waiting

    def _try(self, facts: Facts, uid: int, found: Reading) -> None:
        process, account = facts.process, self._accounts.setdefault(uid, _Account())
        entry, waiting = self._proc / str(process.pid), self._waiting[process]
        share, everybody = self._share, self._all
        if (
            account.processes >= share.processes
            or account.size >= share.size
            or everybody.processes >= share.all_processes
            or everybody.size >= share.all_size
        ):
            found.unknown[process.pid] = waiting.error or Unread(entry)
            return
        try:
            environment = environment_of(entry, self._names)
        except Unreadable as error:
            # It comes after the others now; until then, this is all that is known of it.
            self._waiting[process] = _Waiting(self.round + 1, uid, error)
            found.unknown[process.pid] = error
            spent = error.spent
        else:
            del self._waiting[process]
            found.known[process.pid] = environment
            spent = environment.spent
            if environment.place is not None and environment.place[0]:
                self._read[process] = _Read(environment.place, environment, self.round)
        for each in (account, everybody):
            each.processes += 1
            each.size += spent
        account.served = self.round
