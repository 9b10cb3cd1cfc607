"""Wake-ups: a start that waits for a slice learns at once that the lease database has changed.

PostgreSQL tells by ``NOTIFY``, in the transaction that may have freed something
(:data:`.model.events.WAKING`), and one connection of the process listens. A SQLite file tells by
its ``data_version``, which another connection's commit changes; it is looked at while anybody
waits.

A wake-up is a hint and no promise of anything. Waiters look for themselves, and go on looking now
and then: a connection pooler may swallow what is sent here, and a server that restarts has
forgotten its listeners. Promises that nothing is missed between the beginning of a wait and the
first look after it: a new waiter is woken once when the listening begins.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.database_file import DatabaseFile
from jupyterhub_migspawner.db.engine import first_line

log = logging.getLogger("migspawner.db")

CHANNEL = "migspawner"

POLL_SECONDS = 0.1
"""Between two looks at a SQLite file."""

LISTEN_SECONDS = 1.0
"""For how long PostgreSQL is listened to at a time: closing waits for its end."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before listening is tried again, doubled each time that it fails."""

Ring = Callable[[], object]


class Wakeups:
    """Wake-ups of the waiters in this process after changes; thread-safe."""

    def __init__(self, engine: sa.Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._guard = threading.Condition()
        self._rings: dict[int, Ring] = {}
        self._numbers = 0
        self._asked = 0
        self._listening = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def heard(self, ring: Ring) -> Iterator[None]:
        """Call ``ring`` in another thread, quickly and without raising, after each change.

        Also once when listening has begun, perhaps before this returns and in this very thread,
        and whenever changes may have been missed.
        """
        with self._guard:
            self._numbers += 1
            number = self._numbers
            self._rings[number] = ring
            self._asked += 1
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(
                    target=self._run, name="migspawner-wakeups", daemon=True
                )
                self._thread.start()
            self._guard.notify_all()
            listening = self._listening
        if listening:
            ring()
        try:
            yield
        finally:
            with self._guard:
                del self._rings[number]

    def close(self) -> None:
        """Listen no more; waiters are left to their own looks."""
        self._closed.set()
        with self._guard:
            self._guard.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(LISTEN_SECONDS + 5)

    # -- in the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.is_set():
            listened = threading.Event()
            try:
                if self._engine.dialect.name == "postgresql":
                    self._listen(listened)
                else:
                    self._poll(listened)
            except Exception as error:
                if listened.is_set() or pause == FIRST_PAUSE:
                    log.warning(
                        "Changes of the lease database %s are only checked at intervals: %s",
                        self._name,
                        first_line(error),
                    )
                pause = FIRST_PAUSE if listened.is_set() else min(2 * pause, LONGEST_PAUSE)
                self._closed.wait(pause)
            finally:
                with self._guard:
                    self._listening = False

    def _listen(self, listened: threading.Event) -> None:
        dialect = self._engine.dialect
        arguments, options = dialect.create_connect_args(self._engine.url)
        connect: Any = dialect.loaded_dbapi.connect
        with closing(connect(*arguments, **options, autocommit=True)) as connection:
            connection.execute(f"LISTEN {CHANNEL}")
            listened.set()
            with self._guard:
                self._listening = True
            self._ring()
            while not self._closed.is_set():
                for _ in connection.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                    self._ring()

    def _poll(self, listened: threading.Event) -> None:
        # Never to be made: a file that an admin has moved away must not come back empty.
        file = DatabaseFile(Path(str(self._engine.url.database)).absolute())
        with closing(file.connect()) as connection:
            seen = asked = -1
            opened = file.nodes()[0]
            while not self._closed.is_set():
                with self._guard:
                    while not self._rings and not self._closed.is_set():
                        self._guard.wait()
                    now_asked = self._asked
                if file.nodes()[0] != opened:
                    return
                version = connection.execute("PRAGMA data_version").fetchone()[0]
                listened.set()
                if (version, now_asked) != (seen, asked):
                    self._ring()
                seen, asked = version, now_asked
                self._closed.wait(POLL_SECONDS)

    def _ring(self) -> None:
        with self._guard:
            rings = list(self._rings.values())
        for ring in rings:
            try:
                ring()
            except Exception:
                # One waiter that has gone must not cost the others their wake-up.
                log.debug("A waiter could not be woken.", exc_info=True)
