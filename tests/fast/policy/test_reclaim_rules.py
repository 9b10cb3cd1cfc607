"""Each rule of the end of a session by itself, at its boundaries."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from jupyterhub_migspawner.policy.reclaim import (
    IDLE,
    KERNELS,
    PROCESSES,
    TIME,
    Reading,
    Rules,
    Session,
    Verdict,
    in_words,
    verdict,
)

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
RULES = Rules()
SECOND = timedelta(seconds=1)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def quiet(since: datetime = NOON, said: str = "idle") -> tuple[Reading, ...]:
    """Both sources have just answered that nothing has happened since then."""
    return tuple(Reading(source, NOON, since, said) for source in (KERNELS, PROCESSES))


IDLING = Session(NOON - minutes(300), minutes(60), quiet(NOON - minutes(20)))


def test_people_are_told_a_quarter_of_an_hour_before_and_sources_count_for_three_minutes() -> None:
    assert Rules(warning=minutes(15), fresh=minutes(3)) == RULES
    assert not IDLING.wanted


def test_a_verdict_without_an_end_warns_of_nothing() -> None:
    known = Verdict(None, "", "", None)
    assert (known.warn, known.near, known.over(NOON)) == (False, False, False)
    assert verdict(replace(IDLING, limit=None), RULES, NOON) == known
    silent = verdict(replace(IDLING, readings=()), RULES, NOON)
    assert (silent.ends_at, silent.warn, silent.near, silent.idle_since) == (
        None,
        False,
        False,
        None,
    )


@pytest.mark.parametrize(
    ("hard", "rule"),
    [(minutes(40) - SECOND, TIME), (minutes(40), TIME), (minutes(40) + SECOND, IDLE)],
)
def test_the_sooner_end_counts_and_of_two_at_once_the_hard_one(hard: timedelta, rule: str) -> None:
    found = verdict(replace(IDLING, ends_at=NOON + hard), RULES, NOON)
    assert found.rule == rule
    assert found.ends_at == NOON + min(hard, minutes(40))


def test_a_hard_end_says_whether_it_is_over() -> None:
    def told(at: datetime) -> str:
        return verdict(replace(IDLING, ends_at=at), RULES, NOON).why

    assert told(NOON + SECOND).startswith("its time is over at Mon 23 Nov 2026 12:00 UTC")
    assert told(NOON).startswith("its time was over at Mon 23 Nov 2026 12:00 UTC")
    assert told(NOON - SECOND).startswith("its time was over")


@pytest.mark.parametrize(
    ("left", "near"), [(15 * 60 + 1, False), (15 * 60, True), (1, True), (-1, True)]
)
def test_a_hard_end_is_near_a_quarter_of_an_hour_before(left: int, near: bool) -> None:
    found = verdict(replace(IDLING, ends_at=NOON + left * SECOND), RULES, NOON)
    # It is announced in another way than that of an end for being idle.
    assert (found.near, found.warn) == (near, False)


def test_who_has_brought_an_end_forward_is_said() -> None:
    ended = replace(IDLING, ends_at=NOON, ends_why="its grant was revoked by pi: a fire")
    assert verdict(ended, RULES, NOON).why.endswith("; its grant was revoked by pi: a fire")
    assert verdict(replace(ended, ends_why=""), RULES, NOON).why.endswith("12:00 UTC")
    assert "revoked" not in verdict(replace(ended, ends_at=None), RULES, NOON).why


@pytest.mark.parametrize(
    ("wanted", "limit", "end", "words"),
    [
        (False, None, 40, False),
        (True, None, 40, False),
        (False, 30, 40, False),
        (True, 30, 15, True),
        (True, 90, 40, True),
    ],
)
def test_that_others_wait_counts_only_with_a_limit_for_it(
    wanted: bool, limit: int | None, end: int, words: bool
) -> None:
    when = None if limit is None else minutes(limit)
    found = verdict(replace(IDLING, wanted=wanted, limit_when_wanted=when), RULES, NOON)
    assert found.ends_at == NOON + minutes(end)
    assert found.why.endswith("; others wait") == words


def test_the_reason_holds_what_each_source_has_said() -> None:
    def why(*readings: Reading) -> str:
        return verdict(replace(IDLING, readings=readings), RULES, NOON).why

    first, second = quiet(NOON - minutes(20))
    assert why(first, second).endswith(": kernels and terminals: idle; processes: idle")
    assert why(replace(first, said=""), second).endswith("UTC: processes: idle")
    assert why(*quiet(NOON, said="")).endswith("UTC: no sign of use")


@pytest.mark.parametrize(
    ("limit", "age", "known"),
    [
        (60, 180, True),
        (60, 181, False),
        (60, -180, True),
        (60, -181, False),
        # Half of a short limit is less than three minutes.
        (4, 120, True),
        (4, 121, False),
        (4, -120, True),
        (4, -121, False),
    ],
)
def test_a_source_is_known_for_so_long(limit: int, age: int, known: bool) -> None:
    seen = NOON - age * SECOND
    readings = (replace(quiet()[0], seen_at=seen), quiet()[1])
    found = verdict(replace(IDLING, limit=minutes(limit), readings=readings), RULES, NOON)
    assert found.unknown == (() if known else (KERNELS,))
    assert found.unknown_since == (None if known else min(seen, NOON))


def test_unknown_sources_are_named_in_one_order() -> None:
    needed = frozenset("abcdefghij")
    found = verdict(replace(IDLING, readings=(), needed=needed), RULES, NOON)
    assert found.unknown == tuple("abcdefghij")


def test_unknown_since_the_first_of_them_was_silent() -> None:
    first, second = quiet()
    readings = (
        replace(first, seen_at=NOON - minutes(9)),
        replace(second, seen_at=NOON - minutes(5)),
    )
    found = verdict(replace(IDLING, readings=readings), RULES, NOON)
    assert found.unknown == (KERNELS, PROCESSES)
    assert found.unknown_since == NOON - minutes(9)
    # One that has never answered is silent from the beginning on.
    never = verdict(replace(IDLING, readings=readings[:1]), RULES, NOON)
    assert never.unknown_since == IDLING.since


@pytest.mark.parametrize(
    ("age", "asked", "new"),
    [
        (0, False, True),
        (180, False, True),
        (181, False, False),
        (-1, False, False),
        (60, True, False),
    ],
)
def test_a_session_that_has_just_started_is_not_said_to_be_unreadable(
    age: int, asked: bool, new: bool
) -> None:
    session = Session(NOON - age * SECOND, minutes(60))
    if asked:
        # It was asked once and has fallen silent, as after a change of the clock.
        session = replace(
            session, readings=(replace(quiet()[0], seen_at=NOON - minutes(9)), quiet()[1])
        )
    found = verdict(session, RULES, NOON)
    assert found.unknown
    assert found.new is new
    said = in_words(found, NOON)
    assert ("only just started" in said) is new
    assert ("It is unknown" in said) is not new
    assert found.ends_at is None
    # With an end by the clock, too.
    timed = replace(session, ends_at=NOON + minutes(300))
    assert verdict(timed, RULES, NOON).new is new


@pytest.mark.parametrize(
    ("idle", "near"), [(minutes(45) - SECOND, False), (minutes(45), True), (minutes(46), True)]
)
def test_people_are_told_when_their_end_is_near(idle: timedelta, near: bool) -> None:
    found = verdict(replace(IDLING, readings=quiet(NOON - idle)), RULES, NOON)
    assert (found.warn, found.near) == (near, near)
    assert found.ends_at == max(NOON - idle + minutes(60), NOON + (near * minutes(15)))


@pytest.mark.parametrize(
    ("warned", "told", "warn"),
    [
        (None, None, True),
        # Notified of something, but of no end.
        (NOON - minutes(1), None, True),
        (None, NOON + minutes(10), True),
        # Of this very idleness, and of no sooner end than there is.
        (NOON - minutes(50), NOON + minutes(10), False),
        (NOON - minutes(50), NOON + minutes(10) + SECOND, False),
        (NOON - minutes(50), NOON + minutes(10) - SECOND, True),
        # Of an earlier one.
        (NOON - minutes(50) - SECOND, NOON + minutes(10), True),
    ],
)
def test_what_was_told_counts_for_this_idleness_and_this_end(
    warned: datetime | None, told: datetime | None, warn: bool
) -> None:
    session = replace(IDLING, readings=quiet(NOON - minutes(50)), warned_at=warned, told_until=told)
    found = verdict(session, RULES, NOON)
    assert (found.warn, found.near) == (warn, True)


def test_only_an_end_for_being_idle_is_put_into_words() -> None:
    idle = verdict(IDLING, RULES, NOON)
    assert in_words(idle, NOON).startswith("Not in use for 20 minutes; it ends on")
    assert "unless you use or extend it" in in_words(idle, NOON)
    assert "unless you use it" in in_words(idle, NOON, extendable=False)
    hard = verdict(replace(IDLING, ends_at=NOON + minutes(5)), RULES, NOON)
    assert in_words(hard, NOON) == ""
    assert in_words(replace(idle, ends_at=None), NOON) == ""
    assert in_words(replace(idle, idle_since=None), NOON) == ""
