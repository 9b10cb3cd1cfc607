"""The end of a session as one pure function: never a busy one, never on a guess, never sooner."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.reclaim import (
    ALWAYS,
    IDLE,
    KERNELS,
    PROCESSES,
    TIME,
    USE,
    Reading,
    Rules,
    Session,
    in_words,
    short_reason,
    verdict,
)
from jupyterhub_migspawner.policy.wording import moment

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
RULES = Rules(warning=timedelta(minutes=15), fresh=timedelta(minutes=3))
MINUTES = st.integers(-600, 600).map(lambda n: NOON + timedelta(minutes=n))
SPANS = st.integers(1, 400).map(lambda n: timedelta(minutes=n))


def reading(source: str) -> st.SearchStrategy[Reading]:
    return st.builds(
        Reading,
        st.just(source),
        st.none() | MINUTES | st.just(NOON),
        st.none() | MINUTES,
        st.sampled_from(["", "idle", "busy"]),
    )


READINGS = st.tuples(reading(KERNELS), reading(PROCESSES)) | st.tuples(
    reading(KERNELS), reading(PROCESSES), reading(USE)
)
SESSIONS = st.builds(
    Session,
    since=MINUTES.filter(lambda at: at <= NOON),
    limit=st.none() | SPANS,
    readings=READINGS | st.just(()),
    ends_at=st.none() | MINUTES,
    limit_when_wanted=st.none() | SPANS,
    wanted=st.booleans(),
    extended_until=st.none() | MINUTES,
    protected_until=st.none() | MINUTES,
    warned_at=st.none() | MINUTES.filter(lambda at: at <= NOON),
    told_until=st.none() | MINUTES,
).map(lambda made: replace(made, needed=ALWAYS | {each.source for each in made.readings}))


def limit_of(session: Session) -> timedelta:
    assert session.limit is not None
    if session.wanted and session.limit_when_wanted is not None:
        return min(session.limit, session.limit_when_wanted)
    return session.limit


def warning_of(session: Session) -> timedelta:
    return min(RULES.warning, limit_of(session) / 2)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


@given(SESSIONS)
def test_no_session_with_a_sign_of_use_inside_the_window_ends_for_being_idle(
    session: Session,
) -> None:
    found = verdict(session, RULES, NOON)
    if not found.over(NOON) or found.rule != IDLE:
        return
    limit = limit_of(session)
    for each in session.readings:
        assert each.active_at is None or each.active_at <= NOON - limit
        # And each was asked just now.
        assert each.seen_at is not None
        assert NOON - each.seen_at <= min(RULES.fresh, limit / 2)
    assert {each.source for each in session.readings} >= session.needed
    assert session.since <= NOON - limit


@given(SESSIONS)
def test_who_was_not_told_in_time_is_not_ended_for_being_idle(session: Session) -> None:
    found = verdict(session, RULES, NOON)
    if found.over(NOON) and found.rule == IDLE:
        assert session.warned_at is not None
        assert session.told_until is not None
        assert session.told_until <= NOON
        assert found.idle_since is not None
        assert session.warned_at >= found.idle_since


@given(SESSIONS)
def test_nobody_is_ended_for_being_idle_before_the_time_that_they_were_told(
    session: Session,
) -> None:
    """Whatever has changed since: others wait, a protection is taken back, a limit is shorter."""
    found = verdict(session, RULES, NOON)
    if found.rule == IDLE and session.told_until is not None:
        assert found.ends_at is not None
        assert found.ends_at >= session.told_until


@given(SESSIONS, st.sampled_from([KERNELS, PROCESSES, USE]))
def test_what_is_unknown_ends_nothing(session: Session, source: str) -> None:
    silent = tuple(
        replace(each, seen_at=None) if each.source == source else each for each in session.readings
    )
    found = verdict(replace(session, readings=silent), RULES, NOON)
    if source not in session.needed:
        return
    assert found.rule in ("", TIME)
    if session.limit is not None:
        assert source in found.unknown
        assert found.unknown_since is not None


@given(SESSIONS, st.integers(0, 1), SPANS)
def test_later_activity_never_brings_the_end_nearer(
    session: Session, which: int, later: timedelta
) -> None:
    if not session.readings:
        return
    before = verdict(session, RULES, NOON)
    each = session.readings[which]
    moved = replace(each, active_at=(each.active_at or session.since) + later)
    readings = tuple(moved if r is each else r for r in session.readings)
    after = verdict(replace(session, readings=readings), RULES, NOON)
    assert (before.ends_at is None) == (after.ends_at is None)
    if before.ends_at is not None and after.ends_at is not None:
        assert after.ends_at >= before.ends_at


@given(SESSIONS, SPANS)
def test_extending_or_protecting_never_brings_the_end_nearer(
    session: Session, longer: timedelta
) -> None:
    before = verdict(session, RULES, NOON)
    for name in ("extended_until", "protected_until"):
        until = (getattr(session, name) or NOON) + longer
        after = verdict(replace(session, **{name: until}), RULES, NOON)
        if before.ends_at is not None and after.ends_at is not None:
            assert after.ends_at >= before.ends_at
            if after.rule == IDLE:
                assert after.ends_at >= until


@given(SESSIONS, SPANS)
def test_nothing_goes_beyond_the_hard_end(session: Session, hours: timedelta) -> None:
    end = NOON + hours
    found = verdict(replace(session, ends_at=end), RULES, NOON)
    assert found.ends_at is not None
    assert found.ends_at <= end


@given(SESSIONS, SPANS)
def test_that_others_wait_ends_nothing_below_the_floor(session: Session, floor: timedelta) -> None:
    wanted = replace(session, wanted=True, limit_when_wanted=floor)
    found = verdict(wanted, RULES, NOON)
    if found.rule == IDLE and found.ends_at is not None and found.idle_since is not None:
        assert session.limit is not None
        assert found.ends_at >= found.idle_since + min(floor, session.limit)


@given(SESSIONS)
def test_the_same_gives_the_same_and_a_page_later_says_no_sooner(session: Session) -> None:
    assert verdict(session, RULES, NOON) == verdict(session, RULES, NOON)
    found = verdict(session, RULES, NOON)
    later = verdict(session, RULES, NOON + minutes(1))
    if found.rule == later.rule == IDLE:
        assert found.ends_at is not None
        assert later.ends_at is not None
        assert later.ends_at >= found.ends_at


@given(SESSIONS)
def test_whoever_is_told_in_time_ends_when_they_were_told(session: Session) -> None:
    """Warned at the moment that the function says, nothing happening after: it ends as said."""
    found = verdict(session, RULES, NOON)
    if found.rule != IDLE or not found.warn or found.ends_at is None:
        return
    told = replace(session, warned_at=NOON, told_until=found.ends_at)
    promised = verdict(told, RULES, NOON)
    assert found.ends_at >= NOON + warning_of(session)
    assert promised.ends_at == found.ends_at
    assert promised.near
    assert not promised.warn
    at = promised.ends_at
    assert at is not None
    fresh = tuple(replace(each, seen_at=at) for each in told.readings)
    if all(each.active_at is None or each.active_at <= NOON for each in fresh):
        then = verdict(replace(told, readings=fresh), RULES, at)
        assert then.over(at) or then.rule == TIME


def session(idle: float, *, seen: float = 0, **more: object) -> Session:
    readings = tuple(
        Reading(source, NOON - minutes(seen), NOON - minutes(idle), "quiet")
        for source in (KERNELS, PROCESSES)
    )
    values = {"since": NOON - minutes(600), "limit": minutes(60), "readings": readings, **more}
    if isinstance(values.get("warned_at"), datetime):
        values.setdefault("told_until", values["warned_at"] + minutes(15))  # type: ignore[operator]
    return Session(**values)  # type: ignore[arg-type]


def test_an_idle_session_is_told_of_and_then_ended() -> None:
    assert not verdict(session(40), RULES, NOON).warn
    found = verdict(session(46), RULES, NOON)
    assert found.warn
    assert found.ends_at == NOON + minutes(15)
    assert found.why == (
        "nothing has used it since Mon 23 Nov 2026 11:14 UTC: kernels and terminals: quiet; "
        "processes: quiet"
    )
    assert verdict(session(61, warned_at=NOON - minutes(15)), RULES, NOON).over(NOON)
    assert not verdict(session(61, warned_at=NOON - minutes(14)), RULES, NOON).over(NOON)


def test_a_warning_of_an_earlier_idleness_does_not_count() -> None:
    found = verdict(session(61, warned_at=NOON - minutes(120)), RULES, NOON)
    assert found.warn
    assert not found.over(NOON)


def test_an_extension_is_followed_by_a_warning_of_its_own() -> None:
    extended = session(70, warned_at=NOON - minutes(20), extended_until=NOON + minutes(30))
    assert not verdict(extended, RULES, NOON).warn
    late = NOON + minutes(20)
    again = replace(
        extended, readings=tuple(replace(each, seen_at=late) for each in extended.readings)
    )
    found = verdict(again, RULES, late)
    assert found.warn
    assert found.ends_at == late + minutes(15)


def test_when_others_wait_idle_ones_go_sooner_but_not_without_a_word() -> None:
    wanted = session(40, wanted=True, limit_when_wanted=minutes(20))
    found = verdict(wanted, RULES, NOON)
    assert (found.warn, found.ends_at) == (True, NOON + minutes(10))
    assert found.why.endswith("; others wait")


def test_somebody_who_joins_the_list_shortens_no_word_that_was_given() -> None:
    rules = replace(RULES, warning=minutes(60))
    values = {"limit": minutes(480), "limit_when_wanted": minutes(20)}
    told = session(430, warned_at=NOON - minutes(10), told_until=NOON + minutes(50), **values)
    found = verdict(replace(told, wanted=True), rules, NOON)
    assert (found.ends_at, found.warn) == (NOON + minutes(50), False)


def test_what_was_at_work_when_last_seen_is_not_over_before_anybody_looks_again() -> None:
    """Though a look may be as old as the session may be idle."""
    short = session(2, seen=1.5, limit=minutes(2), warned_at=NOON - minutes(1), told_until=NOON)
    assert verdict(short, RULES, NOON).unknown == (KERNELS, PROCESSES)
    assert verdict(replace(short, limit=minutes(2)), RULES, NOON).ends_at is None


def test_a_clock_that_is_ahead_gains_nothing_for_ever() -> None:
    found = verdict(session(-600), RULES, NOON)
    assert found.idle_since == NOON
    assert found.ends_at == NOON + minutes(60)


def test_words() -> None:
    now = NOON
    assert in_words(verdict(session(30), RULES, now), now) == (
        "Not in use for 30 minutes; it ends on Mon 23 Nov 2026 12:30 UTC unless you use or extend "
        "it."
    )
    unknown = verdict(session(30, seen=10), RULES, now)
    assert unknown.unknown_since == NOON - minutes(10)
    assert "the kernels and terminals and processes cannot be read" in in_words(unknown, now)
    assert in_words(verdict(session(30, limit=None), RULES, now), now) == ""


@given(SESSIONS)
def test_the_user_reads_why_an_idle_session_ended_without_what_was_measured(
    session: Session,
) -> None:
    found = verdict(session, RULES, NOON)
    said = short_reason(found.why)
    if found.rule != IDLE:
        assert said == found.why
        return
    assert found.idle_since is not None
    others = "; others were waiting" if found.why.endswith("; others wait") else ""
    assert said == f"nothing has used it since {moment(found.idle_since)}{others}"
