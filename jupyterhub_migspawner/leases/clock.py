"""The time that all processes of one lease database agree on.

Nodes' clocks differ, and may be set while leases run. Deadlines, heartbeats and ends are therefore
told in the time of the PostgreSQL server: it is asked once a minute, and in between this process's
monotonic clock goes on from there. One machine with SQLite has one clock anyway.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from jupyterhub_migspawner.leases.store import Store, Transaction

#: Not ``now()``, which stands still in a transaction.
_NOW = sa.select(sa.func.clock_timestamp())

STEP_SECONDS = 60.0
JUMP_SECONDS = 1.0


def utc_now() -> datetime:
    """The moment by this machine's clock, aware, in UTC."""
    return datetime.now(timezone.utc)


def read_clock(tx: Transaction) -> datetime:
    """The moment by the PostgreSQL server's clock, aware, in UTC."""
    moment: datetime = tx.first(_NOW)[0]
    return moment.astimezone(timezone.utc)


@dataclass(frozen=True)
class _Mark:
    """What the server said, and what this machine's two clocks said then."""

    moment: datetime
    monotonic: float
    local: datetime


class DatabaseClock:
    """The time of a PostgreSQL server; call it for the moment, aware, in UTC.

    Calling it never waits for the database: :meth:`keep_in_step` asks there, from a thread that may
    wait. Before the first time, and as long as the server is away, the last that is known counts:
    this machine's own clock at worst. ``monotonic`` gives seconds.
    """

    def __init__(
        self,
        store: Store,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        local: Callable[[], datetime] = utc_now,
    ) -> None:
        self._store = store
        self._monotonic = monotonic
        self._local = local
        self._mark: _Mark | None = None
        self._asking = threading.Lock()

    def __call__(self) -> datetime:
        """The moment, without waiting for anything."""
        mark = self._mark
        if mark is None:
            return self._local()
        return mark.moment + timedelta(seconds=self._monotonic() - mark.monotonic)

    def keep_in_step(self) -> None:
        """Ask the server again when it is time to. Raises :exc:`.DatabaseError`."""
        if not self._is_due() or not self._asking.acquire(blocking=False):
            return
        try:
            before = self._monotonic()
            moment = self._store.read(read_clock)
            after = self._monotonic()
            self._mark = _Mark(moment, (before + after) / 2, self._local())
        finally:
            self._asking.release()

    def _is_due(self) -> bool:
        mark = self._mark
        if mark is None:
            return True
        gone = self._monotonic() - mark.monotonic
        # The monotonic clock stands still while a machine sleeps; the other one tells of that.
        shown = (self._local() - mark.local).total_seconds()
        return gone >= STEP_SECONDS or abs(shown - gone) >= JUMP_SECONDS
