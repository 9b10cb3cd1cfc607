"""Sessions for admins to check: nobody can tell whether they are in use, or only they say so.

Pure. Such a session is never ended for that: nobody can tell, and it stays up to its hard end. A
doubt does not pass with one answer, nor is it raised by one that failed: silence now and then adds
up, as long as the pauses between are short.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from jupyterhub_migspawner.policy.reclaim import IDLE, KERNELS, SOURCES, Reading, Verdict
from jupyterhub_migspawner.policy.wording import listed, moment, span

UNKNOWN = "unknown"
UNPROVEN = "unproven"

PAUSE = timedelta(hours=1)
"""Claims of use that follow each other within so long are one."""


@dataclass(frozen=True)
class Doubt:
    """What is odd about a session, since when, and what was seen, in words.

    ``kind`` is :data:`UNKNOWN` or :data:`UNPROVEN`.
    """

    kind: str
    since: datetime
    why: str


@dataclass(frozen=True)
class Silence:
    """The times at which it was unknown whether a session is in use.

    The first and the last of those between which no longer pause was than ``unknown_minutes``.
    """

    since: datetime
    last: datetime


@dataclass(frozen=True)
class Patience:
    """How long a session may be odd before it is a doubt.

    ``silent`` is how long it may be unknown, ``claiming`` how long it may say that it is in use
    while nothing of it works.
    """

    silent: timedelta = timedelta(minutes=30)
    claiming: timedelta = timedelta(hours=6)
    fresh: timedelta = timedelta(minutes=3)


def heard(
    known: Silence | None, unknown_since: datetime | None, now: datetime, most: timedelta
) -> Silence | None:
    """Return the silences of a session after another look.

    ``unknown_since`` is None when it is known.
    """
    if known is not None and now - known.last > most:
        known = None
    if unknown_since is None:
        return known
    return Silence(min(unknown_since, now) if known is None else known.since, now)


def claimed_since(
    active_since: datetime | None, active_at: datetime | None, now: datetime, pause: timedelta
) -> datetime:
    """Return since when a source that claims use again now does so without a longer pause."""
    if active_since is None or active_at is None or not timedelta(0) <= now - active_at <= pause:
        return now
    return min(active_since, active_at)


def doubt_of(
    verdict: Verdict,
    readings: Collection[Reading],
    silence: Silence | None,
    patience: Patience,
    now: datetime,
) -> Doubt | None:
    """Return what is to be looked at about a session; None when all is well."""
    if verdict.rule == IDLE and verdict.ends_at is not None:
        late = now - verdict.ends_at
        if late >= patience.silent:
            why = (
                f"it should have ended at {moment(verdict.ends_at)} for being idle, but does not "
                "answer when it is asked right before its end"
            )
            return Doubt(UNKNOWN, verdict.ends_at, why)
    if silence is not None and silence.last - silence.since >= patience.silent:
        problems = [f"{each.source}: {each.problem}" for each in readings if each.problem]
        if verdict.unknown:
            names = listed(SOURCES.get(name, name) for name in verdict.unknown)
            why = f"since {moment(silence.since)} it is unknown whether it is in use ({names})"
        else:
            why = f"since {moment(silence.since)} it answers only now and then"
        return Doubt(UNKNOWN, silence.since, "; ".join([why, *problems]))
    return _unproven(readings, patience, now)


def _unproven(readings: Collection[Reading], patience: Patience, now: datetime) -> Doubt | None:
    kernels = next((each for each in readings if each.source == KERNELS), None)
    others = [each for each in readings if each.source != KERNELS]
    if kernels is None or kernels.active_since is None or kernels.active_at is None or not others:
        return None
    if now - kernels.active_at > PAUSE:
        return None
    if any(
        each.problem or each.seen_at is None or now - each.seen_at > patience.fresh
        for each in others
    ):
        return None  # it is not known whether anything works
    worked = [each.active_at for each in others if each.active_at is not None]
    since = max([kernels.active_since, *worked])
    length = kernels.active_at - since
    if length < patience.claiming:
        return None
    what = listed(SOURCES.get(each.source, each.source) for each in others)
    why = (
        f"since {moment(since)} it has claimed to be in use "
        f"({kernels.said or 'it does not say how'}), but for {span(length)} the {what} have shown "
        "no use"
    )
    return Doubt(UNPROVEN, since, why)
