"""How fast one person may write."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.rates import level_after, seconds_to_wait

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


def allowed(per_minute: int, moments: list[float]) -> int:
    """How many of the actions at these seconds are let through."""
    level, at, number = 0.0, NOON, 0
    for second in moments:
        now = NOON + timedelta(seconds=second)
        found = level_after(level, at, now, per_minute)
        if seconds_to_wait(found, per_minute) == 0:
            level, at, number = found + 1, now, number + 1
    return number


def test_a_burst_is_served_and_what_follows_is_as_fast_as_that() -> None:
    assert allowed(60, [0.0] * 475) == 60
    assert 78 <= allowed(60, [each * 20 / 475 for each in range(475)]) <= 80
    assert allowed(1, [0, 30, 60, 90]) == 2


def test_when_to_try_again_is_when_it_works() -> None:
    level = 60.0
    wait = seconds_to_wait(level, 60)
    assert wait == 1
    after = level_after(level, NOON, NOON + timedelta(seconds=wait), 60)
    assert seconds_to_wait(after, 60) == 0
    assert seconds_to_wait(1.0, 1) == 60


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    back = level_after(60.0, NOON, NOON - timedelta(days=1), 60)
    assert seconds_to_wait(back, 60) == 1


def test_a_lower_limit_counts_at_once() -> None:
    assert seconds_to_wait(level_after(60.0, NOON, NOON, 5), 5) == 12


def test_who_has_done_nothing_for_long_may_do_no_more_than_a_burst() -> None:
    assert level_after(5.0, NOON, NOON + timedelta(hours=1), 60) == 0
    assert allowed(60, [0.0, *[3600.0] * 200]) == 61


@given(st.integers(1, 100), st.lists(st.floats(0, 600), max_size=300))
def test_in_no_minute_is_more_than_twice_the_limit_done(per: int, moments: list[float]) -> None:
    assert allowed(per, sorted(moments)) <= per + per * 600 / 60 + 1
