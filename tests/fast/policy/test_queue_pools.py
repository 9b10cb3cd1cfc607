"""Tiers on certain cards: who waits in one line, how much room there is, which promises hold."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.model.cards import CardKind
from jupyterhub_migspawner.policy import queue, reservations
from jupyterhub_migspawner.policy.queue import Pool, Waiting
from jupyterhub_migspawner.policy.tiers import parse_tiers

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FIVE, SEAT, TEN = Pool("1g.5gb"), Pool("1g.5gb", "shared by course"), Pool("2g.10gb")
(SMALL,) = parse_tiers([{"name": "small", "profile": "1g.5gb"}])
A, B, C = (CardKind(name, 40960) for name in "abc")


def pool(*kinds: CardKind, use: str = "") -> Pool:
    return Pool("1g.5gb", use, frozenset(kinds))


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (FIVE, FIVE, True),
        (FIVE, SEAT, True),
        (FIVE, TEN, False),
        (FIVE, pool(A), True),
        (FIVE, pool(), False),
        (pool(A, B), pool(B, C), True),
        (pool(A), pool(B, C), False),
        (pool(A), pool(A, use="shared by course"), True),
        (pool(), pool(), False),
    ],
)
def test_pools_overlap_where_something_may_be_in_both(
    one: Pool, other: Pool, overlap: bool
) -> None:
    assert (one.overlaps(other), other.overlaps(one)) == (overlap, overlap)
    assert one.is_line_of(other) == other.is_line_of(one) == (overlap and one.use == other.use)


def test_a_pool_is_within_one_of_more_kinds() -> None:
    assert pool(A).is_within(pool(A, B))
    assert pool(A).is_within(FIVE)
    assert FIVE.is_within(FIVE)
    assert not FIVE.is_within(pool(A))
    assert not pool(A, B).is_within(pool(A))
    assert not pool(A).is_within(TEN)
    assert not pool(A).is_within(SEAT)


def test_the_pool_of_a_tier_is_on_the_kinds_of_cards_that_it_means() -> None:
    (tier,) = parse_tiers([{"name": "t", "profile": "1g.5gb", "card": "a*"}])
    assert queue.pool_of(tier, (A, B)) == pool(A)
    assert queue.pool_of(SMALL, (A, B)) == FIVE


def test_what_is_taken_from_a_pool_is_gone_from_those_that_it_is_a_part_of() -> None:
    line = [
        Waiting(n, NOON + n * MINUTE, pools)
        for n, pools in enumerate(
            [(pool(A),), (FIVE,), (pool(A, B),), (pool(B),), (pool(C),)], start=1
        )
    ]
    one_each = {pool(A): 1, pool(B): 1, pool(C): 1, pool(A, B): 2, FIVE: 3}
    assert [t.id for t in queue.turns(line, one_each)] == [1, 2, 3]
    # One of a is left for two who mean it, and one of any card for both.
    assert [t.id for t in queue.turns(line[:3], {pool(A): 1, pool(A, B): 1, FIVE: 1})] == [1]
    assert [t.id for t in queue.turns(line[1:3], {pool(A, B): 1, FIVE: 1})] == [2]
    # What was taken is none of these.
    assert [t.id for t in queue.turns([line[0], line[4]], {pool(A): 1, pool(C): 1})] == [1, 5]


def test_who_waits_for_other_cards_is_in_another_line() -> None:
    line = [
        Waiting(n, NOON + n * MINUTE, (each,))
        for n, each in enumerate(
            [pool(A), pool(B), pool(A, B), pool(A, use="shared by course"), FIVE], start=1
        )
    ]
    assert [queue.position(n, line) for n in range(1, 6)] == [1, 1, 3, 1, 4]
    assert queue.passed_by(line[4], pool(B), line) == (2, 3)
    assert queue.passed_by(line[4], FIVE, line) == (1, 2, 3, 4)


KINDS = st.frozensets(st.sampled_from([A, B, C]))


@given(
    st.lists(st.tuples(st.integers(0, 50), KINDS), max_size=8),
    st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 4)),
)
def test_no_more_turns_are_given_than_there_is_room_on_the_cards_of_their_tiers(
    tickets: list[tuple[int, frozenset[CardKind]]], cells: dict[CardKind, int]
) -> None:
    line = [
        Waiting(n, NOON + minutes * MINUTE, (pool(*kinds),))
        for n, (minutes, kinds) in enumerate(tickets)
    ]
    room = {
        each: sum(cells.get(kind, 0) for kind in each.kinds or ()) for t in line for each in t.pools
    }
    served: dict[Pool, int] = {}
    for turn in queue.turns(line, room):
        served[turn.pool] = served.get(turn.pool, 0) + 1
    for outer, count in room.items():
        assert sum(n for each, n in served.items() if each.is_within(outer)) <= count


@given(st.data())
def test_every_promise_finds_a_card_of_its_kinds(data: st.DataObject) -> None:
    """A user who could get a card at their time without this session can with it."""
    totals = data.draw(st.dictionaries(st.sampled_from([A, B, C]), st.integers(0, 3)))
    times = st.integers(1, 20).map(lambda hours: NOON + hours * HOUR)
    mine = data.draw(st.sampled_from([A, B, C]))
    some = KINDS.filter(bool)
    coming = data.draw(st.lists(st.tuples(some, times), max_size=5))
    others = data.draw(
        st.lists(st.tuples(st.sampled_from([A, B, C]), st.none() | times), max_size=4)
    )
    end = reservations.latest_by_kind(totals, others, coming).get(mine)

    def served(begin: datetime, with_mine: bool) -> bool:
        free = dict(totals)
        for kind, until in [*others, *([(mine, end)] if with_mine else [])]:
            if until is None or until > begin:
                free[kind] = free.get(kind, 0) - 1
        asked = [kinds for kinds, at in coming if at <= begin]
        places = [kind for kind, count in free.items() for _ in range(max(count, 0))]
        return any(
            all(kind in kinds for kind, kinds in zip(chosen, asked, strict=True))
            for chosen in permutations(places, len(asked))
        )

    if min((n for n in totals.values()), default=0) < 0 or mine not in totals:
        return
    for _, begin in coming:
        if served(begin, with_mine=False):
            assert served(begin, with_mine=True)


def test_a_grant_that_needs_another_card_shortens_nothing() -> None:
    begin = NOON + HOUR
    totals = {A: 1, B: 1}
    latest = reservations.latest_by_kind(totals, [], [(frozenset((A,)), begin)])
    assert latest == {A: begin}
    assert reservations.latest_by_kind(totals, [], [(frozenset((A, B)), begin)]) == {}
    taken = [(A, None)]
    assert reservations.latest_by_kind(totals, taken, [(frozenset((A, B)), begin)]) == {
        A: begin,
        B: begin,
    }
    assert reservations.latest_by_kind(totals, [], []) == {}


def test_grants_that_can_do_with_some_of_the_same_cards_are_counted_together() -> None:
    """Each set of cards has one to spare; all three grants and the session need four of three."""
    coming = [
        (frozenset((A, B)), NOON + HOUR),
        (frozenset((A, B)), NOON + HOUR),
        (frozenset((B, C)), NOON + 2 * HOUR),
    ]
    latest = reservations.latest_by_kind({A: 1, B: 1, C: 1}, [], coming)
    assert latest == {A: NOON + HOUR, B: NOON + HOUR, C: NOON + 2 * HOUR}
