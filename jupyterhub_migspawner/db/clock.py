"""The time that all processes of one lease database agree on.

Clocks of several machines differ, and any of them may be set while leases run. So the time of the
leases goes on with a count of seconds that nobody can set. Where the count stood at which time, the
*anchor*, is in the lease database, and each process of a machine counts on from there: whatever the
wall clock does, all of them agree. The service compares the anchor with the wall clock (with
PostgreSQL, with the server's) and moves anchor and deadlines together when the clock was set:
:mod:`jupyterhub_migspawner.broker.clock`.

A machine without a service has no anchor. It goes by its own clock, or asks the PostgreSQL server
once a minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.policy.clock import Anchor, Count

T = TypeVar("T")

UPTIME = Path("/proc/uptime")
"""Seconds since the boot, with those in which the machine slept (proc(5)).

The same as CLOCK_BOOTTIME, read from the kernel itself: a library that is loaded to give a process
another time, as tests do, does not change it."""

#: Not ``now()``, which stands still in a transaction.
_NOW = sa.select(sa.func.clock_timestamp())

STEP_SECONDS = 60.0
JUMP_SECONDS = 1.0


def utc_now() -> datetime:
    """Return the time by this machine's clock, aware, in UTC."""
    return datetime.now(timezone.utc)


def read_clock(tx: Transaction) -> datetime:
    """Return the time by the PostgreSQL server's clock, aware, in UTC."""
    moment: datetime = tx.first(_NOW)[0]
    return moment.astimezone(timezone.utc)


@dataclass(frozen=True)
class _Sample:
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
        self._sample: _Sample | None = None
        self._asking = threading.Lock()

    def __call__(self) -> datetime:
        """Return the time, aware, in UTC, without waiting for anything."""
        sample = self._sample
        if sample is None:
            return self._local()
        return sample.moment + timedelta(seconds=self._monotonic() - sample.monotonic)

    def keep_in_step(self) -> None:
        """Ask the server again when it is time to.

        Raises :exc:`.DatabaseError`.
        """
        if not self._is_due() or not self._asking.acquire(blocking=False):
            return
        try:
            before = self._monotonic()
            moment = self._store.read(read_clock)
            after = self._monotonic()
            self._sample = _Sample(moment, (before + after) / 2, self._local())
        finally:
            self._asking.release()

    def _is_due(self) -> bool:
        sample = self._sample
        if sample is None:
            return True
        gone = self._monotonic() - sample.monotonic
        # The monotonic clock stands still while a machine sleeps; the other one shows that.
        shown = (self._local() - sample.local).total_seconds()
        return gone >= STEP_SECONDS or abs(shown - gone) >= JUMP_SECONDS


def count_seconds(uptime: Path = UPTIME) -> Count:
    """Return this machine's counts of seconds; the same for all its processes."""
    awake = time.monotonic()
    try:
        return Count(float(uptime.read_text(encoding="ascii").split()[0]), awake)
    except (OSError, ValueError, IndexError):
        return Count(awake, awake)


@dataclass(frozen=True)
class Machine:
    """This machine's clocks.

    ``boot_id`` names the boot since which ``count`` counts; without one there is no count that
    other processes share.
    """

    boot_id: str = ""
    count: Callable[[], Count] = count_seconds
    wall: Callable[[], datetime] = utc_now


class LeaseClock:
    """The time that leases go by; call it for the moment, aware, in UTC. Thread-safe.

    Calling it never waits for the database. In a transaction made with :meth:`in_time` it is the
    time of that transaction's anchor, so that what a transaction writes fits what it has read.
    """

    def __init__(self, store: Store, machine: Machine) -> None:
        self.machine = machine
        self.shared = store.postgres
        self._anchor: Anchor | None = None
        self._here = threading.local()
        self._server = DatabaseClock(store, local=machine.wall) if store.postgres else None

    def __call__(self) -> datetime:
        """Return the time, aware, in UTC, without waiting for anything."""
        anchor: Anchor | None = getattr(self._here, "anchor", None) or self._anchor
        if anchor is not None:
            return anchor.at(self.machine.count().ticks)
        return self.machine.wall() if self._server is None else self._server()

    @property
    def anchor(self) -> Anchor | None:
        """The newest anchor that was seen; None where this machine has none."""
        return self._anchor

    @property
    def steps(self) -> int:
        """How many steps were found; a time kept in memory since another count is worthless."""
        return 0 if self._anchor is None else self._anchor.steps

    def keep_in_step(self) -> None:
        """Ask the server when it is time to, where there is no anchor.

        Raises :exc:`.DatabaseError`.
        """
        if self._anchor is None and self._server is not None:
            self._server.keep_in_step()

    def in_time(self, work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
        """Return ``work`` so that it runs by the time that is right in its transaction."""
        if not self.machine.boot_id:
            return work

        def timed(tx: Transaction) -> T:
            anchor = queries.anchors.of_machine(tx, self.machine.boot_id)
            self.follow(anchor)
            self._here.anchor = anchor
            try:
                return work(tx)
            finally:
                self._here.anchor = None

        return timed

    def follow(self, anchor: Anchor | None) -> None:
        """Go by this anchor, unless a newer one is known."""
        known = self._anchor
        if anchor is None or known is None:
            self._anchor = anchor or known
        elif (anchor.steps, anchor.ticks) >= (known.steps, known.ticks):
            self._anchor = anchor

    def wall(self, tx: Transaction) -> datetime:
        """Return the time by the clock that the anchor is compared with."""
        return read_clock(tx) if tx.postgres else self.machine.wall()
