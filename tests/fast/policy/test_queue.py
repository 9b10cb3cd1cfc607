"""The waiting list's rules: fair, bounded, and the same for the same values."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_migspawner.policy import queue
from jupyterhub_migspawner.policy.queue import MOST_OVERTAKEN, Occupied, Pool, Turn, Waiting
from jupyterhub_migspawner.policy.tiers import Tier, parse_tiers

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SMALL, MEDIUM, LARGE, WHOLE = map(Pool, ("small", "medium", "large", "whole"))


def waiting(number: int, minutes: float = 0, *pools: Pool, **more: float) -> Waiting:
    values = {"hours": float(more.get("hours", 0)), "overtaken": int(more.get("overtaken", 0))}
    return Waiting(number, NOON + minutes * MINUTE, pools or (SMALL,), **values)  # type: ignore[arg-type]


def ids(tickets: tuple[Waiting, ...]) -> list[int]:
    return [ticket.id for ticket in tickets]


def test_first_come_first_served_among_equals() -> None:
    assert ids(queue.order([waiting(2, 5), waiting(1), waiting(3, 5)])) == [1, 2, 3]


def test_who_used_little_comes_before_who_used_much_at_about_the_same_time() -> None:
    heavy, light = waiting(1, hours=20), waiting(2, 90)
    assert ids(queue.order([heavy, light])) == [2, 1]
    late = waiting(3, 121)
    assert ids(queue.order([heavy, late])) == [1, 3]


def test_nobody_pays_more_than_the_most() -> None:
    heavy = waiting(1, hours=10_000)
    assert ids(queue.order([heavy, waiting(2, 12 * 60 - 1)])) == [2, 1]
    assert ids(queue.order([heavy, waiting(2, 12 * 60 + 1)])) == [1, 2]


def test_who_was_overtaken_often_enough_is_next() -> None:
    heavy = waiting(1, hours=1000, overtaken=MOST_OVERTAKEN)
    assert ids(queue.order([waiting(2, 1), heavy])) == [1, 2]


def test_turns_go_to_whoever_can_use_what_is_free() -> None:
    tickets = [
        waiting(1, 0, LARGE),
        waiting(2, 1, SMALL, LARGE),
        waiting(3, 2, SMALL),
    ]
    assert queue.turns(tickets, {SMALL: 1}) == (Turn(2, SMALL),)
    assert queue.turns(tickets, {LARGE: 1, SMALL: 0}) == (Turn(1, LARGE),)
    assert queue.turns(tickets, {LARGE: 2, SMALL: 1}) == (
        Turn(1, LARGE),
        Turn(2, SMALL),
    )
    assert queue.turns(tickets, {}) == ()


def test_positions_count_only_those_who_wait_for_the_same() -> None:
    tickets = [waiting(1, 0, LARGE), waiting(2, 1, SMALL), waiting(3, 2, SMALL, LARGE)]
    assert [queue.position(number, tickets) for number in (1, 2, 3)] == [1, 1, 3]


tickets_strategy = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.sets(st.sampled_from([SMALL, MEDIUM, WHOLE]), min_size=1),
        st.floats(0, 500),
        st.integers(0, MOST_OVERTAKEN + 2),
    ),
    max_size=12,
).map(
    lambda many: [
        Waiting(number, NOON + minutes * MINUTE, tuple(sorted(pools, key=str)), hours, overtaken)
        for number, (minutes, pools, hours, overtaken) in enumerate(many, start=1)
    ]
)
room_strategy = st.dictionaries(st.sampled_from([SMALL, MEDIUM, WHOLE]), st.integers(0, 5))


@given(tickets_strategy, room_strategy, st.randoms())
def test_turns_do_not_depend_on_the_order_in_which_tickets_are_read(
    tickets: list[Waiting], room: dict[Pool, int], random: object
) -> None:
    shuffled = list(tickets)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert queue.turns(tickets, room) == queue.turns(shuffled, room)


@given(tickets_strategy, room_strategy)
def test_turns_give_out_what_is_there_and_leave_nothing_that_somebody_could_use(
    tickets: list[Waiting], room: dict[Pool, int]
) -> None:
    turns = queue.turns(tickets, room)
    left = dict(room)
    for turn in turns:
        left[turn.pool] -= 1
    assert all(count >= 0 for count in left.values())
    assert len({turn.id for turn in turns}) == len(turns)
    served = {turn.id for turn in turns}
    for ticket in tickets:
        if ticket.id not in served:
            assert not any(left.get(pool, 0) for pool in ticket.pools)


arrivals = st.lists(
    st.tuples(st.integers(0, 90), st.integers(0, 4), st.floats(0, 300)), min_size=1, max_size=80
)


@settings(max_examples=200)
@given(arrivals, st.floats(20, 2000))
def test_no_ticket_is_overtaken_by_more_than_the_bound(
    steps: list[tuple[int, int, float]], hours: float
) -> None:
    """One slice at a time becomes free while lighter users keep coming; the heavy one is served."""
    patient = Waiting(0, NOON, (SMALL,), hours)
    line, now = [patient], NOON
    after = 0
    for number, (minutes, freed, used) in enumerate(steps, start=1):
        now += minutes * MINUTE
        line.append(Waiting(number, now, (SMALL,), used))
        for turn in queue.turns(line, {SMALL: freed}):
            served = next(ticket for ticket in line if ticket.id == turn.id)
            passed = queue.passed_by(served, turn.pool, line)
            line = [
                Waiting(t.id, t.created_at, t.pools, t.hours, t.overtaken + (t.id in passed))
                for t in line
                if t.id != turn.id
            ]
            if turn.id == 0:
                assert after <= MOST_OVERTAKEN
                return
            after += 1
            assert after <= MOST_OVERTAKEN


def tier(name: str, profile: str, **more: object) -> dict[str, object]:
    return {"name": name, "profile": profile, **more}


TIERS = parse_tiers(
    [
        tier("cpu", "none"),
        tier("large", "3g.20gb"),
        tier("small", "1g.5gb"),
        tier("fat", "1g.10gb"),
        tier("medium", "2g.10gb"),
        tier("course", "2g.10gb", seats=4),
        tier("board", "4g.20gb", approval=True),
        tier("card", "whole", approval=True),
    ]
)


def by_name(name: str) -> Tier:
    return next(each for each in TIERS if each.name == name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small", ["small", "fat", "medium", "large"]),
        ("fat", ["fat", "medium", "large"]),
        ("medium", ["medium", "large"]),
        ("course", ["course", "medium", "large"]),
        ("large", ["large"]),
        ("card", ["card"]),
    ],
)
def test_upward_goes_from_the_smallest_that_will_do(name: str, expected: list[str]) -> None:
    assert [each.name for each in queue.upward(by_name(name), TIERS)] == expected


def test_the_first_waits_for_whoever_ends_first() -> None:
    past = [HOUR, 2 * HOUR, 3 * HOUR] * 2
    taken = [Occupied(NOON - 90 * MINUTE, None), Occupied(NOON - 30 * MINUTE, None)]
    # Of those that took more than 90 minutes, half took up to 2.5 hours; from 30 minutes on, 2.
    found = queue.expected(1, taken, past, NOON)
    assert (found.likely, found.latest, found.confidence) == (HOUR, None, queue.MEDIUM)
    assert queue.expected(2, taken, past, NOON).likely == 90 * MINUTE
    # The third follows the first, who stays for as long as is usual.
    assert queue.expected(3, taken, past, NOON).likely == 3 * HOUR


def test_hard_ends_bound_what_is_expected() -> None:
    taken = [Occupied(NOON - HOUR, NOON + 20 * MINUTE), Occupied(NOON, NOON + 4 * HOUR)]
    found = queue.expected(1, taken, [9 * HOUR] * 40, NOON, longest=4 * HOUR)
    assert (found.likely, found.latest, found.confidence) == (
        20 * MINUTE,
        20 * MINUTE,
        queue.HIGH,
    )
    assert queue.expected(2, taken, [], NOON, longest=4 * HOUR).latest == 4 * HOUR
    assert queue.expected(3, taken, [], NOON, longest=4 * HOUR).latest == 4 * HOUR + 20 * MINUTE
    assert queue.expected(3, taken, [], NOON).latest is None


def test_what_is_not_known_is_not_guessed() -> None:
    found = queue.expected(1, [Occupied(NOON - HOUR, None)], [], NOON)
    assert (found.likely, found.latest, found.confidence, found.sessions) == (
        None,
        None,
        queue.LOW,
        0,
    )
    assert queue.expected(2, [], [HOUR] * 9, NOON).likely is None


spans = st.timedeltas(timedelta(0), 48 * HOUR)


@given(
    st.integers(1, 6),
    st.lists(st.tuples(spans, st.none() | spans), max_size=5),
    st.lists(spans, max_size=40),
    st.none() | spans,
    st.integers(0, 3),
)
def test_later_places_never_wait_less_and_likely_is_never_later_than_latest(
    place: int,
    taken: list[tuple[timedelta, timedelta | None]],
    past: list[timedelta],
    longest: timedelta | None,
    stuck: int,
) -> None:
    occupied = [Occupied(NOON - age, None if left is None else NOON + left) for age, left in taken]
    here = queue.expected(place, occupied, past, NOON, longest=longest)
    # What is stuck changes nothing but that it is counted.
    late = [Occupied(NOON - HOUR, NOON, NOON, stuck=True)] * stuck
    beside = queue.expected(place, [*late, *occupied], past, NOON, longest=longest)
    assert beside == replace(here, stuck=stuck)
    after = queue.expected(place + 1, occupied, past, NOON, longest=longest)
    if here.likely is not None and here.latest is not None:
        assert here.likely <= here.latest
    for one, other in ((here.latest, after.latest),):
        if one is not None and other is not None:
            assert one <= other
    assert here.likely is None or here.likely >= timedelta(0)
