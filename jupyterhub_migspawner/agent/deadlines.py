"""Read what another process can delay, without waiting for it longer than a moment.

The kernel reads a process's environment out of that process's own memory. The owner of the process
can have that memory come from a file system that never answers (FUSE), and the read then waits
without end: ``ps`` hangs on such a process, and so would an agent. Reads therefore run in
separate threads. One that does not come back is left behind, and its owner's processes are not read
again for a while, so that no user can fill a node with waiting threads.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

READ_SECONDS = 1.0
"""Longest wait for one read. The longest environment is read in a few milliseconds."""

MOST_LATE = 2
"""Late reads of one user's processes, at a time or within :data:`PAUSE_SECONDS`."""

PAUSE_SECONDS = 60.0
"""How long a late read counts against its user."""


class Late(Exception):
    """The read did not come back in time, or its user has had too many that did not."""


class _Worker:
    """A thread that does one read after the other."""

    def __init__(self) -> None:
        self.tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A thread that waits forever must not keep this process from ending.
        threading.Thread(target=self._work, name="migspawner-read", daemon=True).start()

    def _work(self) -> None:
        while (task := self.tasks.get()) is not None:
            task()


class Deadlines:
    """Reads with a deadline of so many seconds each; thread-safe.

    ``monotonic`` gives seconds.
    """

    def __init__(
        self,
        *,
        seconds: float = READ_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self._monotonic = monotonic
        self._forget()
        # A child of fork() has none of the threads.
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        self._guard = threading.Lock()
        self._idle: list[_Worker] = []
        # By user: when each late read counts no more, and whether it is still out.
        self._late: dict[int, list[tuple[float, threading.Event]]] = {}

    def run(self, work: Callable[[], T], owner: Callable[[], int]) -> T:
        """Return what ``work`` returns, or raise what it raises.

        ``owner`` gives the user to whom a late read is charged; it is asked only when one is late,
        or was lately. Raises :exc:`Late`.
        """
        if self._late and self._is_barred(owner()):
            raise Late
        with self._guard:
            worker = self._idle.pop() if self._idle else _Worker()
        done = threading.Event()
        outcome: list[Any] = []

        def task() -> None:
            try:
                outcome.append((work(), None))
            except BaseException as error:
                outcome.append((None, error))
            done.set()

        worker.tasks.put(task)
        if not done.wait(self.seconds):
            worker.tasks.put(None)  # it ends if the read ever comes back
            uid = owner()
            with self._guard:
                until = self._monotonic() + PAUSE_SECONDS
                self._late.setdefault(uid, []).append((until, done))
            raise Late
        with self._guard:
            self._idle.append(worker)
        found, error = outcome[0]
        if error is not None:
            raise error
        return found  # type: ignore[no-any-return]

    def _is_barred(self, uid: int) -> bool:
        now = self._monotonic()
        with self._guard:
            for each, reads in list(self._late.items()):
                left = [(until, done) for until, done in reads if until > now or not done.is_set()]
                self._late[each] = left
                if not left:
                    del self._late[each]
            return len(self._late.get(uid, ())) >= MOST_LATE
