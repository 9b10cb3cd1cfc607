"""Steps of the clock: no session ends because of one, and people are notified before any end.

The service checks the clock before each of its rounds; all other processes keep the old pace until
it has. A step moves the times of everything that is not over by the same amount, in one transaction
with the anchor that all processes count from, so that no process compares an old time with a new
clock. After the machine was suspended or off, time has passed and nothing moves. But nobody could
be warned meanwhile: ends that came in that time, or are close, are held until people have been
warned for the usual time.
"""

from __future__ import annotations

import threading
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.views import timestamp
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.clock import LeaseClock
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.policy import clock as policy
from jupyterhub_migspawner.policy.clock import NOTABLE, SHARED_TOLERANCE, TOLERANCE, Finding, moved
from jupyterhub_migspawner.policy.wording import span

NOTE_SECONDS = 60.0
"""How often the anchor is written again, so that it is known until when the machine was there."""

ASK_SECONDS = 5.0
"""How often a PostgreSQL server is asked for its time."""

FORGOTTEN = timedelta(days=30)
"""After so long a machine that was not heard of has no anchor any more."""


class Clock:
    """Use cases about the clock."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._watching = threading.Lock()

    @property
    def steps(self) -> int:
        """How often the clock was set, as far as is known.

        Times that were kept in memory when it was another number are of no use.
        """
        clock = self._context.lease_clock
        return 0 if clock is None else clock.steps

    def watch(self) -> timedelta:
        """Check whether the clock was set or stood still, and do what follows.

        Returns by how much it was set. Quick when there is nothing to do. For the service. Raises
        :exc:`.DatabaseError`.
        """
        clock = self._context.lease_clock
        if clock is None or not clock.machine.boot_id:
            return timedelta(0)
        with self._watching:
            if not _is_due(clock):
                return timedelta(0)
            finding = self._context.store.run(lambda tx: self._look(tx, clock))
            clock.follow(finding.anchor)
            return finding.step

    def difference(self) -> timedelta:
        """Return how far this machine's clock is ahead of the time that leases go by.

        0 when it is not ahead by more than is usual, or where leases go by a database server's
        clock.
        """
        clock = self._context.lease_clock
        if clock is None or clock.shared or clock.anchor is None:
            return timedelta(0)
        away = clock.machine.wall() - clock()
        return away if abs(away) >= TOLERANCE else timedelta(0)

    def _look(self, tx: Transaction, clock: LeaseClock) -> Finding:
        found = _find(tx, clock)
        if found.step or found.still:
            # Found again alone: another service may have noted it meanwhile.
            queries.anchors.lock(tx)
            found = _find(tx, clock)
        after = found.anchor.moment
        if found.step:
            queries.moves.shift(
                tx, found.step, after - found.step, untell=abs(found.step) >= NOTABLE
            )
            _note_step(tx, found, clock)
        if found.still and found.seen is not None:
            until = after + timedelta(minutes=self._context.settings.warn_minutes)
            held = queries.moves.hold(tx, found.seen, until)
            _note_still(tx, found, held)
        queries.anchors.keep(tx, found.anchor)
        if clock.shared:
            queries.anchors.forget_old(tx, moved(after, -FORGOTTEN))
        else:
            queries.anchors.forget_others(tx, found.anchor.boot_id)
        return found


def _is_due(clock: LeaseClock) -> bool:
    """Tell whether it is time to look at the database."""
    anchor = clock.anchor
    if anchor is None:
        return True
    count = clock.machine.count()
    gone = count.ticks - anchor.ticks
    if clock.shared:
        return gone >= ASK_SECONDS or gone < 0
    asleep = gone - (count.awake - anchor.awake)
    wrong = abs(clock.machine.wall() - anchor.at(count.ticks)) >= TOLERANCE
    return wrong or gone >= NOTE_SECONDS or gone < 0 or asleep >= NOTABLE.total_seconds()


def _find(tx: Transaction, clock: LeaseClock) -> Finding:
    every = {anchor.boot_id: anchor for anchor in queries.anchors.every(tx)}
    wall, count = clock.wall(tx), clock.machine.count()
    boot_id = clock.machine.boot_id
    mine = every.pop(boot_id, None)
    others = max(every.values(), key=lambda anchor: anchor.moment, default=None)
    if mine is None:
        return policy.begin(boot_id, others, wall, count, own=not clock.shared)
    return policy.compare(
        mine,
        others.moment if others is not None and clock.shared else None,
        wall,
        count,
        SHARED_TOLERANCE if clock.shared else TOLERANCE,
        follows=clock.shared,
    )


def _note_step(tx: Transaction, found: Finding, clock: LeaseClock) -> None:
    after, step = found.anchor.moment, found.step
    whose = "the database server's clock" if clock.shared else "this machine's clock"
    how = "forward" if step > timedelta(0) else "back"
    queries.events.append(
        tx,
        after,
        BROKER,
        "clock.stepped",
        seconds=round(step.total_seconds(), 3),
        before=timestamp(after - step),
        after=timestamp(after),
        why=f"{whose} was set {how} by {length(step)}; the ends of sessions, grants and offers "
        "moved with it",
    )


def _note_still(tx: Transaction, found: Finding, held: int) -> None:
    after: datetime = found.anchor.moment
    queries.events.append(
        tx,
        after,
        BROKER,
        "clock.paused",
        seconds=round(found.still.total_seconds(), 3),
        held=held,
        until=timestamp(after),
        why=f"the machine was asleep or off for {length(found.still)}; what would have ended "
        "meanwhile, or would end at once, ends after people have been warned",
    )


def length(step: timedelta) -> str:
    """Return how long a step is, without its direction: ``3 seconds``, ``40 minutes``."""
    seconds = abs(step.total_seconds())
    return f"{seconds:.0f} seconds" if seconds < 60 else span(timedelta(seconds=seconds))
