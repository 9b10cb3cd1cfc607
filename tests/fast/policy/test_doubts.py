"""Sessions for admins to check: which are, since when, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.doubts import (
    PAUSE,
    UNKNOWN,
    UNPROVEN,
    Patience,
    Silence,
    claimed_since,
    doubt_of,
    heard,
)
from jupyterhub_migspawner.policy.reclaim import (
    IDLE,
    KERNELS,
    PROCESSES,
    TIME,
    USE,
    Reading,
    Verdict,
)

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
SECOND = timedelta(seconds=1)
PATIENCE = Patience()
FINE = Verdict(None, "", "", NOON)


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def test_patience_is_half_an_hour_for_silence_and_six_hours_for_claims() -> None:
    expected = Patience(silent=minutes(30), claiming=minutes(360), fresh=minutes(3))
    assert expected == PATIENCE
    assert minutes(60) == PAUSE


# -- silence -------------------------------------------------------------------------------------


def test_a_session_that_always_answers_has_no_silence() -> None:
    assert heard(None, None, NOON, minutes(60)) is None


def test_a_silence_begins_when_its_sources_fell_silent_and_never_in_the_future() -> None:
    before, after = NOON - minutes(5), NOON + minutes(5)
    assert heard(None, before, NOON, minutes(60)) == Silence(before, NOON)
    assert heard(None, after, NOON, minutes(60)) == Silence(NOON, NOON)


@pytest.mark.parametrize(
    ("pause", "goes_on"), [(minutes(1), True), (minutes(60), True), (minutes(60) + SECOND, False)]
)
def test_silences_with_short_pauses_between_add_up(pause: timedelta, goes_on: bool) -> None:
    known = Silence(NOON - minutes(300), NOON - pause)
    now_silent = heard(known, NOON - SECOND, NOON, minutes(60))
    begin = known.since if goes_on else NOON - SECOND
    assert now_silent == Silence(begin, NOON)
    # One answer takes nothing back, nor does it make the silence longer.
    assert heard(known, None, NOON, minutes(60)) == (known if goes_on else None)


@given(st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=30))
def test_a_silence_spans_the_looks_that_found_one_without_a_longer_pause(
    looks: list[tuple[int, bool]],
) -> None:
    known, now = None, NOON
    times: list[datetime] = []
    for after, silent in looks:
        now += minutes(after)
        known = heard(known, now if silent else None, now, minutes(60))
        if times and now - times[-1] > minutes(60):
            times = []
        if silent:
            times.append(now)
    assert known == (Silence(times[0], times[-1]) if times else None)


@pytest.mark.parametrize(
    ("length", "doubted"), [(minutes(30) - SECOND, False), (minutes(30), True)]
)
def test_a_long_silence_is_a_doubt(length: timedelta, doubted: bool) -> None:
    silence = Silence(NOON - length, NOON)
    found = doubt_of(FINE, (), silence, PATIENCE, NOON)
    assert (found is not None) == doubted
    if found is not None:
        assert (found.kind, found.since) == (UNKNOWN, silence.since)
        assert found.why == "since Mon 23 Nov 2026 11:30 UTC it answers only now and then"


def test_a_doubt_names_what_is_silent_and_why() -> None:
    silence = Silence(NOON - minutes(30), NOON)
    silent = replace(FINE, unknown=(KERNELS, "other"))
    readings = (Reading(KERNELS, problem="it times out"), Reading(PROCESSES, NOON))
    found = doubt_of(silent, readings, silence, PATIENCE, NOON)
    assert found is not None
    assert found.why == (
        "since Mon 23 Nov 2026 11:30 UTC it is unknown whether it is in use (kernels and "
        "terminals and other); kernels: it times out"
    )


# -- an end that does not come -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late", "rule", "doubted"),
    [
        (minutes(30) - SECOND, IDLE, False),
        (minutes(30), IDLE, True),
        (minutes(300), TIME, False),
        (-minutes(300), IDLE, False),
    ],
)
def test_an_idle_session_that_goes_on_is_a_doubt(late: timedelta, rule: str, doubted: bool) -> None:
    verdict = Verdict(NOON - late, rule, "", NOON - minutes(300))
    found = doubt_of(verdict, (), None, PATIENCE, NOON)
    assert (found is not None) == doubted
    if found is not None:
        assert (found.kind, found.since) == (UNKNOWN, NOON - late)
        assert found.why == (
            "it should have ended at Mon 23 Nov 2026 11:30 UTC for being idle, but does not answer "
            "when it is asked right before its end"
        )


# -- claims --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "at", "found"),
    [
        (None, None, NOON),
        (NOON - minutes(90), None, NOON),
        (None, NOON - minutes(5), NOON),
        (NOON - minutes(90), NOON - minutes(5), NOON - minutes(90)),
        (NOON - minutes(90), NOON, NOON - minutes(90)),
        (NOON - minutes(90), NOON - minutes(60), NOON - minutes(90)),
        # The pause was longer.
        (NOON - minutes(90), NOON - minutes(60) - SECOND, NOON),
        # From a clock that was ahead.
        (NOON - minutes(90), NOON + SECOND, NOON),
        (NOON - minutes(4), NOON - minutes(5), NOON - minutes(5)),
    ],
)
def test_claims_that_follow_each_other_are_one(
    since: datetime | None, at: datetime | None, found: datetime
) -> None:
    assert claimed_since(since, at, NOON, minutes(60)) == found


SIX_HOURS_AGO = NOON - minutes(360)


def claim(
    since: datetime | None = SIX_HOURS_AGO, at: datetime | None = NOON, said: str = "busy"
) -> Reading:
    return Reading(KERNELS, NOON, at, said, active_since=since)


IDLE_PROCESSES = Reading(PROCESSES, NOON, None, "idle")


def kind_of(*readings: Reading) -> str:
    found = doubt_of(FINE, readings, None, PATIENCE, NOON)
    return "" if found is None else found.kind


def test_a_session_that_says_for_hours_that_it_is_in_use_while_nothing_works_is_a_doubt() -> None:
    found = doubt_of(FINE, (claim(), IDLE_PROCESSES), None, PATIENCE, NOON)
    assert found is not None
    assert (found.kind, found.since) == (UNPROVEN, NOON - minutes(360))
    assert found.why == (
        "since Mon 23 Nov 2026 06:00 UTC it has claimed to be in use (busy), but for 6 hours "
        "the processes have shown no use"
    )
    silent = doubt_of(FINE, (claim(said=""), IDLE_PROCESSES), None, PATIENCE, NOON)
    assert silent is not None
    assert "(it does not say how)" in silent.why


@pytest.mark.parametrize(
    ("readings", "kind"),
    [
        ((claim(NOON - minutes(360) + SECOND), IDLE_PROCESSES), ""),
        ((IDLE_PROCESSES, claim()), UNPROVEN),
        # Nothing else looks, or nothing claims.
        ((claim(),), ""),
        ((IDLE_PROCESSES,), ""),
        ((claim(None), IDLE_PROCESSES), ""),
        ((claim(at=None), IDLE_PROCESSES), ""),
        # The claim is an old one.
        ((claim(NOON - minutes(500), NOON - PAUSE), IDLE_PROCESSES), UNPROVEN),
        ((claim(NOON - minutes(500), NOON - PAUSE - SECOND), IDLE_PROCESSES), ""),
        # It is not known whether anything works.
        ((claim(), replace(IDLE_PROCESSES, problem="it cannot be read")), ""),
        ((claim(), replace(IDLE_PROCESSES, seen_at=None)), ""),
        ((claim(), replace(IDLE_PROCESSES, seen_at=NOON - minutes(3))), UNPROVEN),
        ((claim(), replace(IDLE_PROCESSES, seen_at=NOON - minutes(3) - SECOND)), ""),
        ((claim(), IDLE_PROCESSES, Reading(USE, None)), ""),
        ((claim(), IDLE_PROCESSES, Reading(USE, NOON)), UNPROVEN),
        # Something worked since it began to claim, or before.
        ((claim(), replace(IDLE_PROCESSES, active_at=NOON - minutes(1))), ""),
        ((claim(), replace(IDLE_PROCESSES, active_at=NOON - minutes(360))), UNPROVEN),
        ((claim(), replace(IDLE_PROCESSES, active_at=NOON - minutes(360) + SECOND)), ""),
        (
            (claim(NOON - minutes(900)), replace(IDLE_PROCESSES, active_at=NOON - minutes(400))),
            UNPROVEN,
        ),
    ],
)
def test_a_claim_is_doubted_only_where_it_is_known_that_nothing_works(
    readings: tuple[Reading, ...], kind: str
) -> None:
    assert kind_of(*readings) == kind


def test_what_worked_before_a_claim_moves_its_begin() -> None:
    worked = NOON - minutes(400)
    readings = (claim(NOON - minutes(900)), replace(IDLE_PROCESSES, active_at=worked))
    found = doubt_of(FINE, readings, None, PATIENCE, NOON)
    assert found is not None
    assert found.since == worked


def test_silence_comes_before_claims_and_a_missed_end_before_silence() -> None:
    silence = Silence(NOON - minutes(60), NOON)
    readings = (claim(), IDLE_PROCESSES)
    found = doubt_of(FINE, readings, silence, PATIENCE, NOON)
    assert found is not None
    assert found.kind == UNKNOWN
    over = Verdict(NOON - minutes(45), IDLE, "", NOON - minutes(300))
    found = doubt_of(over, readings, silence, PATIENCE, NOON)
    assert found is not None
    assert found.since == NOON - minutes(45)
