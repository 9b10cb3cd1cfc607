"""One writer at a time, in the order of arrival.

SQLite lets its waiting writers poll, so that under load one of them can starve for seconds. Threads
of one process therefore queue here first; between the first ones of several processes
:func:`.engine.begin_writing` sees to it that each soon gets through.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turnstile:
    """A lock that is handed on strictly in the order in which threads asked for it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    @contextmanager
    def passing(self, timeout: float) -> Iterator[bool]:
        """Hold the turnstile; yield False when it was not free within ``timeout`` seconds."""
        if not self._enter(timeout):
            yield False
            return
        try:
            yield True
        finally:
            self._leave()

    def _enter(self, timeout: float) -> bool:
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=timeout):
            return True
        with self._guard:
            if turn in self._waiting:
                self._waiting.remove(turn)
                return False
        # Handed over in the moment the wait ended: it is ours and must be used.
        return True

    def _leave(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
