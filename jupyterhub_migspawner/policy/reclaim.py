"""When a session ends, and why: one function for the page, the warning and the act.

Pure and deterministic. A *reading* is what one source has last said of a session: its kernels and
terminals, the processes on its slice, the use of its slice where that can be measured. Promises
that nothing is ended on a guess: while a source that is needed has not answered lately, no session
ends for being idle. Promises that activity never brings an end nearer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from jupyterhub_migspawner.policy.wording import listed, moment, span

KERNELS = "kernels"
PROCESSES = "processes"
USE = "use"

ALWAYS = frozenset({KERNELS, PROCESSES})
"""The sources without which nobody knows whether a session is in use."""

SOURCES = {
    KERNELS: "kernels and terminals",
    PROCESSES: "processes",
    USE: "use of the slice",
}
"""The sources of readings, as they are called in sentences."""

IDLE = "idle"
TIME = "time"
"""The rules a session may end by: nobody uses it, or its time is over."""

_OTHERS, _WANTED = "; others wait", "; others were waiting"
_MEASURED = re.compile(rf"(nothing has used it since [^:]*:\d\d UTC): .*?({_OTHERS})?$", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """What a source has last said.

    ``seen_at`` is when it last answered (None: never), ``active_at`` the last activity that it
    knows of, ``said`` what that was, in words, and ``problem`` why it does not answer now.
    ``active_since`` is since when it reports activity again and again.
    """

    source: str
    seen_at: datetime | None = None
    active_at: datetime | None = None
    said: str = ""
    problem: str = ""
    active_since: datetime | None = None


@dataclass(frozen=True)
class Session:
    """A session as far as its end depends on it.

    ``limit`` is how long it may be idle (None: no limit), ``limit_when_wanted`` how long while
    others wait for what it has. ``needed`` are the sources that have to answer: those of
    :data:`ALWAYS`, and any other that is there. ``ends_at`` ends it whatever happens, and
    ``ends_why`` says who has brought that end forward, and why; empty where nobody has.
    ``extended_until`` and ``protected_until`` hold its end for being idle off. ``warned_at`` is
    when its person was last warned of such an end, and ``told_until`` the end in that warning.
    """

    since: datetime
    limit: timedelta | None
    readings: tuple[Reading, ...] = ()
    needed: frozenset[str] = ALWAYS
    ends_at: datetime | None = None
    ends_why: str = ""
    limit_when_wanted: timedelta | None = None
    wanted: bool = False
    extended_until: datetime | None = None
    protected_until: datetime | None = None
    warned_at: datetime | None = None
    told_until: datetime | None = None


@dataclass(frozen=True)
class Rules:
    """When people are warned, and when a source is unknown.

    ``warning`` is how long before the end a person is warned at least; a source that has not
    answered for longer than ``fresh`` is unknown. Of a session that may be idle for less than twice
    as long, either is half of that.
    """

    warning: timedelta = timedelta(minutes=15)
    fresh: timedelta = timedelta(minutes=3)


@dataclass(frozen=True)
class Verdict:
    """What becomes of a session as things stand.

    ``ends_at`` is None when no end is known; ``rule`` is which rule ends it then. ``idle_since``
    is None while a needed source is unknown, and where idleness does not count. ``warn`` says that
    its person has to be warned now, ``near`` that the end is near enough for a warning.
    ``unknown`` are the sources that do not answer, since ``unknown_since``; ``new`` says that the
    session has only just started, so that nobody has asked them yet.
    """

    ends_at: datetime | None
    rule: str
    why: str
    idle_since: datetime | None
    warn: bool = False
    near: bool = False
    unknown: tuple[str, ...] = ()
    unknown_since: datetime | None = None
    new: bool = False

    def over(self, now: datetime) -> bool:
        """Tell whether the session ends now."""
        return self.ends_at is not None and self.ends_at <= now


def verdict(session: Session, rules: Rules, now: datetime) -> Verdict:
    """Decide when this session ends as things stand, by which rule, and why."""
    readings = {reading.source: reading for reading in session.readings}
    unknown, unknown_since = _unknown(session, readings, rules, now)
    new = bool(unknown) and _is_new(session, readings, unknown, rules, now)
    known = not unknown and session.limit is not None
    idle_since = _idle_since(session, now) if known else None
    end, warn, near = _idle_end(session, idle_since, rules, now)
    if session.ends_at is not None and (end is None or session.ends_at <= end):
        was = "was" if session.ends_at <= now else "is"
        why = f"its time {was} over at {moment(session.ends_at)}"
        if session.ends_why:
            why += f"; {session.ends_why}"
        near = session.ends_at - rules.warning <= now
        return Verdict(
            session.ends_at, TIME, why, idle_since, False, near, unknown, unknown_since, new
        )
    if end is None or idle_since is None:
        return Verdict(None, "", "", idle_since, False, False, unknown, unknown_since, new)
    why = f"nothing has used it since {moment(idle_since)}: {_evidence(session.readings)}"
    if session.wanted and session.limit_when_wanted is not None:
        why += _OTHERS
    return Verdict(end, IDLE, why, idle_since, warn, near)


def _unknown(
    session: Session, readings: dict[str, Reading], rules: Rules, now: datetime
) -> tuple[tuple[str, ...], datetime | None]:
    if session.limit is None:
        return (), None
    # What was at work when it was last seen must not be over before anybody looks again.
    fresh = min(rules.fresh, _limit(session, session.limit) / 2)
    silent: dict[str, datetime] = {}
    for source in session.needed:
        seen = readings[source].seen_at if source in readings else None
        # One from the time to come proves a clock wrong, not that something was seen.
        if seen is None or seen > now + fresh or now - seen > fresh:
            silent[source] = session.since if seen is None else min(seen, now)
    return tuple(sorted(silent)), min(silent.values(), default=None)


def _is_new(
    session: Session,
    readings: dict[str, Reading],
    unknown: tuple[str, ...],
    rules: Rules,
    now: datetime,
) -> bool:
    """Tell whether what is unknown has not been asked yet, as the session has only just started."""
    never = all(source not in readings or readings[source].seen_at is None for source in unknown)
    return never and timedelta(0) <= now - session.since <= rules.fresh


def _idle_since(session: Session, now: datetime) -> datetime:
    """Return the last known activity; never in the future, whatever a clock says."""
    known = [reading.active_at for reading in session.readings if reading.active_at is not None]
    return max(session.since, *(min(at, now) for at in known)) if known else session.since


def _idle_end(
    session: Session, idle_since: datetime | None, rules: Rules, now: datetime
) -> tuple[datetime | None, bool, bool]:
    """Return when a session ends for being idle, whether to warn now, and whether it is near.

    It is near when it is near enough for a warning.
    """
    if session.limit is None or idle_since is None:
        return None, False, False
    limit = _limit(session, session.limit)
    warning = min(rules.warning, limit / 2)
    due = max([idle_since + limit, *_times(session.extended_until, session.protected_until)])
    # A warning is kept to, whatever has changed since, and is enough if it was given for
    # this very idleness and of no sooner end than there is now.
    end = max([due, *_times(session.told_until)])
    near = end - warning <= now
    warned, told = session.warned_at, session.told_until
    if warned is not None and told is not None and warned >= idle_since and told >= due:
        return end, False, near
    return max(end, now + warning), near, near


def _limit(session: Session, limit: timedelta) -> timedelta:
    """Return how long a session may be idle as things stand."""
    if session.wanted and session.limit_when_wanted is not None:
        return min(limit, session.limit_when_wanted)
    return limit


def _times(*times: datetime | None) -> tuple[datetime, ...]:
    return tuple(at for at in times if at is not None)


def _evidence(readings: Collection[Reading]) -> str:
    said = [f"{SOURCES.get(each.source, each.source)}: {each.said}" for each in readings]
    return "; ".join(each for each in said if not each.endswith(": ")) or "no sign of use"


def in_words(found: Verdict, now: datetime, extendable: bool = True) -> str:
    """Return the verdict as its person reads it; empty when there is nothing to report."""
    if found.new:
        return "It has only just started and has not been checked for use yet."
    if found.unknown:
        names = listed(SOURCES.get(source, source) for source in found.unknown)
        return (
            f"It is unknown whether it is in use: the {names} cannot be read. It is not stopped "
            "for being idle while this is unknown."
        )
    if found.rule == IDLE and found.ends_at is not None and found.idle_since is not None:
        return (
            f"Not in use for {span(now - found.idle_since)}; it ends on {moment(found.ends_at)} "
            f"unless you use{' or extend' if extendable else ''} it."
        )
    return ""


def short_reason(reason: str) -> str:
    """Return the reason of an end as its user reads it: of an idle session without measurements."""
    return _MEASURED.sub(lambda found: found[1] + _WANTED * bool(found[2]), reason)
