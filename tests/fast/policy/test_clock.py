"""Whether a clock was set, as the counts of a machine tell it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.clock import (
    FIRST,
    LAST,
    NOTABLE,
    TOLERANCE,
    Anchor,
    Count,
    Finding,
    begin,
    compare,
    moved,
)

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
ANCHOR = Anchor("boot", NOON, 1000.0, 900.0, 3)
SECOND = timedelta(seconds=1)


def looked(seconds: float, off: timedelta = timedelta(0), asleep: float = 0.0, **more: object):  # type: ignore[no-untyped-def]
    """What a look after so many seconds finds, with the clock off by so much."""
    wall = NOON + timedelta(seconds=seconds) + off
    count = Count(1000.0 + seconds, 900.0 + seconds - asleep)
    values = {"others": None, "tolerance": TOLERANCE, "follows": False, **more}
    return compare(ANCHOR, values.pop("others"), wall, count, values.pop("tolerance"), **values)  # type: ignore[arg-type]


def test_a_clock_that_goes_is_no_step() -> None:
    found = looked(3600)
    assert (found.step, found.still) == (timedelta(0), timedelta(0))
    assert found.anchor.at(1000.0 + 3600) == NOON + timedelta(hours=1)
    assert found.anchor.steps == ANCHOR.steps


@given(st.timedeltas(timedelta(days=-9000), timedelta(days=9000)), st.floats(0, 1e6))
def test_a_step_is_found_by_its_length_in_both_directions(step: timedelta, seconds: float) -> None:
    found = looked(seconds, step)
    after = found.anchor.at(1000.0 + seconds)
    if abs(step) >= TOLERANCE + timedelta(milliseconds=1):
        assert abs(found.step - step) < timedelta(milliseconds=1)
        assert abs(after - (NOON + timedelta(seconds=seconds) + step)) < timedelta(milliseconds=1)
        assert found.anchor.steps == ANCHOR.steps + 1
    elif abs(step) < TOLERANCE - timedelta(milliseconds=1):
        assert not found.step
        assert abs(after - (NOON + timedelta(seconds=seconds))) < timedelta(milliseconds=1)


def test_many_small_steps_add_up_and_are_found() -> None:
    anchor, wall, steps = ANCHOR, NOON, []
    for number in range(1, 11):
        wall += 1.5 * SECOND  # half a second more than has passed
        found = compare(
            anchor, None, wall, Count(1000.0 + number, 900.0 + number), TOLERANCE, follows=False
        )
        anchor = found.anchor
        steps.append(found.step)
    assert sum(steps, timedelta(0)) == timedelta(seconds=4)
    assert wall - anchor.at(1010.0) < TOLERANCE


def test_sleep_is_time_that_passed_and_no_step() -> None:
    found = looked(8 * 3600, asleep=7 * 3600)
    assert not found.step
    assert found.still == timedelta(hours=7)
    assert found.seen == NOON


def test_a_short_nap_is_nothing() -> None:
    assert not looked(120, asleep=30).still


def test_a_machine_that_was_stopped_takes_nobodys_clock_for_wrong() -> None:
    # Of ten minutes its count has seen five seconds; another machine has asked meanwhile.
    found = looked(5, timedelta(minutes=10), others=NOON + timedelta(minutes=9), follows=True)
    assert not found.step
    assert found.still == timedelta(minutes=10)
    assert found.anchor.moment == NOON + timedelta(minutes=10, seconds=5)


def test_a_servers_clock_that_is_set_is_a_step_where_nobody_asked_since() -> None:
    found = looked(5, timedelta(minutes=10), others=NOON + 3 * SECOND, follows=True)
    assert found.step == timedelta(minutes=10)
    back = looked(5, timedelta(minutes=-10), others=NOON + 3 * SECOND, follows=True)
    assert back.step == timedelta(minutes=-10)


def test_a_servers_pace_is_followed() -> None:
    found = looked(60, SECOND, follows=True)
    assert not found.step
    assert found.anchor.moment == NOON + timedelta(seconds=61)


def test_a_first_look_finds_nothing() -> None:
    found = begin("boot", None, NOON, Count(5.0, 5.0), own=True)
    assert (found.step, found.still, found.anchor.moment) == (timedelta(0), timedelta(0), NOON)


def test_a_machine_that_was_off_stood_still() -> None:
    found = begin("new", ANCHOR, NOON + timedelta(days=2), Count(60.0, 60.0), own=True)
    assert not found.step
    assert found.still == timedelta(days=2) - NOTABLE
    assert found.seen == NOON


def test_a_machine_cannot_have_booted_before_it_was_last_seen() -> None:
    # Its battery is empty: it boots in the past.
    past = datetime(2000, 1, 1, tzinfo=timezone.utc)
    found = begin("new", ANCHOR, past, Count(60.0, 60.0), own=True)
    assert found.step == past - timedelta(seconds=60) - NOON
    assert found.anchor.moment == past
    # Then the right time comes over the network, and what is left is the time it was off.
    right = NOON + timedelta(hours=3)
    after = compare(found.anchor, None, right, Count(70.0, 70.0), TOLERANCE, follows=False)
    assert found.step + after.step == timedelta(hours=3) - timedelta(seconds=70)


def test_times_do_not_leave_the_calendar() -> None:
    assert moved(NOON, timedelta(days=10**8)) == LAST
    assert moved(NOON, timedelta(days=-(10**8))) == FIRST
    assert moved(moved(NOON, timedelta(days=400)), timedelta(days=-400)) == NOON


def test_times_stay_within_the_calendar() -> None:
    half = timedelta(hours=12)
    assert moved(FIRST, -half) == FIRST
    assert moved(LAST, half) == LAST
    end = datetime.max.replace(tzinfo=timezone.utc)
    assert moved(end, half) == LAST
    assert moved(datetime.min.replace(tzinfo=timezone.utc), -half) == FIRST
    assert moved(NOON, half) == NOON + half


@pytest.mark.parametrize(
    ("step", "others", "stopped"),
    [
        # The other machine's time has to be beyond what this one allows for, and so has the wall.
        (TOLERANCE, TOLERANCE + SECOND, True),
        (3 * TOLERANCE, 2 * TOLERANCE, True),
        (3 * TOLERANCE, TOLERANCE, False),
        (3 * TOLERANCE, timedelta(0), False),
        (TOLERANCE - SECOND, 9 * TOLERANCE, False),
        (-3 * TOLERANCE, 9 * TOLERANCE, False),
    ],
)
def test_a_machine_was_stopped_where_another_ones_time_has_gone_on(
    step: timedelta, others: timedelta, stopped: bool
) -> None:
    expected = NOON + timedelta(minutes=5)
    found = looked(300, step, others=expected + others)
    if stopped:
        assert (found.still, found.step, found.seen) == (step, timedelta(0), NOON)
        assert found.anchor.steps == ANCHOR.steps
    else:
        assert found.still == timedelta(0)
        assert found.step == (step if abs(step) >= TOLERANCE else timedelta(0))


@pytest.mark.parametrize(("asleep", "told"), [(59.0, 0.0), (60.0, 60.0), (61.0, 61.0)])
def test_sleep_is_told_from_a_minute_on(asleep: float, told: float) -> None:
    assert looked(300, asleep=asleep).still == timedelta(seconds=told)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("off", "stepped", "still"),
    [
        (-11, True, False),
        (-10, True, False),
        (-9, None, False),
        (-3, None, False),
        (-2, None, False),
        (-1, False, False),
        (0, False, False),
        (59, False, False),
        (60, False, True),
        (61, False, True),
    ],
)
def test_after_a_boot_the_last_anchor_says_whether_the_clock_was_set_back(
    own: bool, off: float, stepped: bool | None, still: bool
) -> None:
    # A clock of one's own is off by more than two seconds only where it was set, one that is asked
    # over a network by more than ten.
    stepped = own if stepped is None else stepped
    seconds, count = off * SECOND, Count(500.0, 500.0)
    # With a clock of one's own, the count says how long ago the machine was booted.
    wall = NOON + seconds + (500 * SECOND if own else timedelta(0))
    found = begin("next", ANCHOR, wall, count, own=own)
    assert found.step == (seconds if stepped else timedelta(0))
    assert found.still == (seconds if still else timedelta(0))
    assert found.seen == (NOON if still else None)
    steps = ANCHOR.steps + stepped
    assert found.anchor == Anchor("next", wall, 500.0, 500.0, steps)


def test_a_machine_without_an_anchor_begins_with_its_clock() -> None:
    found = begin("first", None, NOON, Count(500.0, 400.0), own=True)
    assert found == Finding(Anchor("first", NOON, 500.0, 400.0, 0))
