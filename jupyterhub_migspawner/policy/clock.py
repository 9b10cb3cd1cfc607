"""Whether a clock was set: the wall clock compared with a count of seconds that nobody can set.

Pure. An :class:`Anchor` says what the time was when the count stood at some number; from then on
the time goes on with the count. Promises that a clock that is set, forwards or backwards, at once
or in many small steps, is noticed and never passes for time; that a machine which slept, or was
off, is told apart from that; and that a process which was itself stopped takes nobody's clock for
wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

TOLERANCE = timedelta(seconds=2)
"""Differences below this are no step: a leap second is one second, readings take time."""

SHARED_TOLERANCE = timedelta(seconds=10)
"""The same for a clock that is asked over a network."""

NOTABLE = timedelta(minutes=1)
"""People are notified of steps and sleep of this length or more."""

FIRST = datetime(1, 1, 2, tzinfo=timezone.utc)
LAST = datetime(9999, 12, 30, tzinfo=timezone.utc)


def moved(at: datetime, by: timedelta) -> datetime:
    """Return a time moved by so much, at most to the ends of the calendar."""
    try:
        return min(max(at + by, FIRST), LAST)
    except OverflowError:
        return LAST if by > timedelta(0) else FIRST


@dataclass(frozen=True)
class Count:
    """What a machine's counts say, in seconds.

    ``ticks`` are the seconds since its boot, ``awake`` those of them in which it did not sleep.
    """

    ticks: float
    awake: float


@dataclass(frozen=True)
class Anchor:
    """At the count ``ticks`` of the machine that has booted as ``boot_id``, it was ``moment``.

    ``steps`` counts how often a step of the clock was found.
    """

    boot_id: str
    moment: datetime
    ticks: float
    awake: float
    steps: int = 0

    def at(self, ticks: float) -> datetime:
        """Return the time when the count stands at ``ticks``."""
        return moved(self.moment, timedelta(seconds=ticks - self.ticks))


@dataclass(frozen=True)
class Finding:
    """What a comparison of the clocks has found.

    ``step`` is by how much the clock was set, ``still`` for how long the machine stood still
    (asleep or off) since ``seen``, by the clock as it now is.
    """

    anchor: Anchor
    step: timedelta = timedelta(0)
    still: timedelta = timedelta(0)
    seen: datetime | None = None


def compare(
    anchor: Anchor,
    others: datetime | None,
    wall: datetime,
    count: Count,
    tolerance: timedelta,
    *,
    follows: bool,
) -> Finding:
    """Compare the wall clock with this machine's anchor.

    ``others`` is when another machine last found the same clock right. ``follows`` says that the
    clock is a server's, whose pace this machine's count has to follow.
    """
    expected = anchor.at(count.ticks)
    step = wall - expected
    now = Anchor(anchor.boot_id, expected, count.ticks, count.awake, anchor.steps)
    # A machine whose virtual hardware was stopped counts too little, and only it does.
    stopped = others is not None and step >= tolerance and others > expected + tolerance
    if stopped:
        return Finding(replace(now, moment=wall), still=step, seen=anchor.moment)
    if abs(step) < tolerance:
        step = timedelta(0)
        if follows:
            now = replace(now, moment=wall)
    else:
        now = replace(now, moment=wall, steps=anchor.steps + 1)
    asleep = timedelta(seconds=(count.ticks - anchor.ticks) - (count.awake - anchor.awake))
    if asleep >= NOTABLE:
        return Finding(now, step, asleep, moved(anchor.moment, step))
    return Finding(now, step)


def begin(boot_id: str, last: Anchor | None, wall: datetime, count: Count, *, own: bool) -> Finding:
    """Return what the first look since this machine was booted finds.

    ``last`` is the latest of all anchors. Nobody knows how long a machine was off. But it cannot
    have booted (``own``: the clock is its own) before it was last seen: then its clock was set
    back, by that much at least.
    """
    booted = moved(wall, timedelta(seconds=-count.ticks)) if own else wall
    steps = 0 if last is None else last.steps
    anchor = Anchor(boot_id, wall, count.ticks, count.awake, steps)
    if last is None:
        return Finding(anchor)
    off = booted - last.moment
    if off <= -(TOLERANCE if own else SHARED_TOLERANCE):
        return Finding(replace(anchor, steps=steps + 1), step=off)
    if off >= NOTABLE:
        return Finding(anchor, still=off, seen=last.moment)
    return Finding(anchor)
