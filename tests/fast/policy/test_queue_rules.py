"""Rules of the waiting list, of placement and of coming grants by themselves, at their bounds."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from jupyterhub_migspawner.policy import approval, draining, placement, queue, reservations
from jupyterhub_migspawner.policy.approval import Approvers, Rule
from jupyterhub_migspawner.policy.draining import BusyCard
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.placement import CardLoad, FreeSlice
from jupyterhub_migspawner.policy.queue import Expectation, Occupied, Pool, Turn, Waiting
from jupyterhub_migspawner.policy.tiers import parse_tiers

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FIVE, SEAT, TEN = Pool("1g.5gb"), Pool("1g.5gb", "shared by course"), Pool("2g.10gb")
SMALL, COURSE, CARD, BARE, ASKED, MEDIUM, CPU = parse_tiers(
    [
        {"name": "small", "profile": "1g.5gb"},
        {"name": "course", "profile": "1g.5gb", "seats": 3},
        {"name": "card", "profile": "whole"},
        {"name": "bare", "profile": "whole", "mig": "off"},
        {"name": "asked", "profile": "2g.10gb", "approval": True},
        {"name": "medium", "profile": "2g.10gb"},
        {"name": "cpu", "profile": "none"},
    ]
)


def test_pools_are_slices_seats_and_cards() -> None:
    pools = [queue.pool_of(tier) for tier in (SMALL, COURSE, CARD, BARE)]
    assert pools == [FIVE, SEAT, Pool("whole"), Pool("whole", "with MIG off")]
    assert [pool.hardware for pool in pools] == ["1g.5gb", "1g.5gb", "whole", "whole"]


def test_only_earlier_ones_that_wait_for_the_same_are_passed_by() -> None:
    first = Waiting(1, NOON, (FIVE,))
    seat = Waiting(2, NOON, (SEAT,))
    other = Waiting(3, NOON, (TEN,))
    mine = Waiting(4, NOON, (FIVE,))
    later = Waiting(5, NOON, (FIVE,))
    every = (first, seat, other, mine, later)
    assert queue.passed_by(mine, FIVE, every) == (1, 2)
    assert queue.passed_by(first, FIVE, every) == ()


def test_what_counts_as_used_and_overtaken_is_nothing_unless_said() -> None:
    ticket = Waiting(1, NOON, (FIVE,))
    assert (ticket.hours, ticket.overtaken, ticket.arrival) == (0, 0, (NOON, 1))
    # One that has been overtaken ten times goes before one that came earlier; nine are too few.
    tired = Waiting(2, NOON + MINUTE, (FIVE,), overtaken=queue.MOST_OVERTAKEN)
    nearly = Waiting(3, NOON + MINUTE, (FIVE,), overtaken=queue.MOST_OVERTAKEN - 1)
    assert [each.id for each in queue.order([ticket, nearly, tired])] == [2, 1, 3]
    assert queue.turns([ticket], {FIVE: 1}) == (Turn(1, FIVE),)
    assert queue.turns([ticket], {FIVE: 0}) == ()


def test_exhausted_tickets_go_by_arrival_whatever_their_people_have_used() -> None:
    most = queue.MOST_OVERTAKEN
    heavy = Waiting(1, NOON, (FIVE,), hours=100, overtaken=most)
    light = Waiting(2, NOON + MINUTE, (FIVE,), overtaken=most)
    assert [each.id for each in queue.order([light, heavy])] == [1, 2]


def test_of_equal_tickets_the_one_that_came_first_is_first() -> None:
    # One GPU-hour makes the first count as if it had come when the second did.
    first = Waiting(2, NOON, (FIVE,), hours=1)
    second = Waiting(1, NOON + queue.WAIT_FOR_AN_HOUR, (FIVE,))
    assert [each.id for each in queue.order([second, first])] == [2, 1]


def test_overtaking_within_one_round_counts_at_once() -> None:
    heavy = Waiting(1, NOON, (FIVE,), hours=100, overtaken=queue.MOST_OVERTAKEN - 1)
    light = [Waiting(number, NOON + number * MINUTE, (FIVE,)) for number in (2, 3, 4)]
    found = queue.turns([heavy, *light], {FIVE: 3})
    assert [turn.id for turn in found] == [2, 1, 3]
    # Being served after a user who came earlier is not being overtaken.
    later = Waiting(5, NOON + HOUR, (FIVE,), hours=50, overtaken=queue.MOST_OVERTAKEN - 1)
    found = queue.turns([*light, later], {FIVE: 3})
    assert [turn.id for turn in found] == [2, 3, 4]
    found = queue.turns([light[0], later, Waiting(6, NOON + HOUR, (FIVE,))], {FIVE: 2})
    assert [turn.id for turn in found] == [2, 6]


def test_a_tier_that_shares_slices_may_go_up_to_another_that_does() -> None:
    course, seminar, small = parse_tiers(
        [
            {"name": "course", "profile": "1g.5gb", "seats": 3},
            {"name": "seminar", "profile": "2g.10gb", "seats": 3},
            {"name": "small", "profile": "1g.5gb"},
        ]
    )
    assert queue.upward(course, (course, seminar, small)) == (course, small, seminar)
    assert queue.upward(small, (course, seminar, small)) == (small,)


def test_sizes_are_compared_as_numbers() -> None:
    nine, ten = parse_tiers(
        [{"name": "nine", "profile": "9g.90gb"}, {"name": "ten", "profile": "10g.100gb"}]
    )
    assert queue.upward(nine, (nine, ten)) == (nine, ten)
    assert queue.upward(ten, (nine, ten)) == (ten,)


def test_larger_tiers_of_one_size_come_by_name() -> None:
    small, zeta, alpha = parse_tiers(
        [
            {"name": "small", "profile": "1g.5gb"},
            {"name": "zeta", "profile": "2g.10gb"},
            {"name": "alpha", "profile": "2g.10gb"},
        ]
    )
    assert queue.upward(small, (small, zeta, alpha)) == (small, alpha, zeta)


def test_a_tier_of_the_very_same_is_no_larger_one() -> None:
    small, other, exclusive = parse_tiers(
        [
            {"name": "small", "profile": "1g.5gb"},
            {"name": "other", "profile": "1g.5gb", "max_hours": 2},
            {"name": "exclusive", "profile": "1g.5gb+me"},
        ]
    )
    assert queue.upward(small, (small, other, exclusive)) == (small, exclusive)


def test_whole_cards_and_what_needs_approval_are_never_a_larger_one() -> None:
    tiers = (SMALL, COURSE, CARD, BARE, ASKED, MEDIUM, CPU)
    assert queue.upward(SMALL, tiers) == (SMALL, MEDIUM)
    assert queue.upward(COURSE, tiers) == (COURSE, SMALL, MEDIUM)
    for tier in (CARD, BARE, ASKED, CPU):
        assert queue.upward(tier, tiers) == (tier,)


@pytest.mark.parametrize(
    ("sessions", "confidence"), [(4, "low"), (5, "medium"), (29, "medium"), (30, "high")]
)
def test_how_far_an_expectation_can_be_trusted(sessions: int, confidence: str) -> None:
    found = queue.expected(1, [Occupied(NOON, None)], [HOUR] * sessions, NOON)
    assert (found.confidence, found.sessions, found.likely) == (confidence, sessions, HOUR)


@pytest.mark.parametrize(
    ("likely", "latest", "sessions", "said"),
    [
        (None, None, 0, "The waiting time is unknown"),
        (None, HOUR, 0, "It takes 1 hour at the latest."),
        (MINUTE, None, 0, "about 1 minute (low confidence, based on when current sessions end)."),
        (MINUTE, HOUR, 1, "about 1 minute, 1 hour at the latest (low confidence, from 1 past sess"),
    ],
)
def test_a_wait_is_put_into_words(
    likely: timedelta | None, latest: timedelta | None, sessions: int, said: str
) -> None:
    assert said in queue.wait_in_words(Expectation(likely, latest, "low", sessions))


def test_what_has_ended_already_is_free_at_once() -> None:
    over = Occupied(NOON - HOUR, NOON - MINUTE)
    assert queue.expected(1, [over], [], NOON).latest == timedelta(0)
    idle = Occupied(NOON - HOUR, NOON + HOUR, idle_end=NOON + MINUTE)
    found = queue.expected(1, [idle], [], NOON)
    assert (found.likely, found.latest) == (MINUTE, HOUR)
    # The second one waits for the first one's whole session, where its length is known.
    longer = queue.expected(2, [idle], [], NOON, longest=3 * HOUR)
    assert longer.latest == 4 * HOUR
    assert queue.expected(2, [idle], [], NOON).latest is None
    assert queue.expected(1, [], [HOUR], NOON).likely is None


@pytest.mark.parametrize(
    "late",
    [
        Occupied(NOON - 9 * HOUR, NOON + HOUR, stuck=True),
        Occupied(NOON - 9 * HOUR, NOON - queue.LATE),
        Occupied(NOON - 9 * HOUR, NOON - queue.LATE, idle_end=NOON + MINUTE),
    ],
)
def test_what_should_have_ended_is_not_counted_on(late: Occupied) -> None:
    alone = queue.expected(1, [late], [10 * HOUR] * 9, NOON, longest=HOUR)
    assert (alone.likely, alone.latest, alone.stuck) == (None, None, 1)
    assert queue.wait_in_words(alone) == (
        "The waiting time is unknown: no session that it waits for has a known end. 1 session "
        "that should have ended is left out: it is unknown when its GPU is free."
    )
    other = Occupied(NOON, NOON + 3 * HOUR)
    both = queue.expected(1, [late, other], [], NOON)
    assert (both.likely, both.latest, both.stuck) == (3 * HOUR, 3 * HOUR, 1)
    two = queue.wait_in_words(queue.expected(1, [late, late, other], [], NOON))
    assert two.endswith(
        "2 sessions that should have ended are left out: it is unknown when their GPUs are free."
    )


def test_a_session_that_has_just_ended_is_counted_on() -> None:
    just = Occupied(NOON - HOUR, NOON - queue.LATE + timedelta(seconds=1))
    found = queue.expected(1, [just], [], NOON)
    assert (found.latest, found.stuck) == (timedelta(0), 0)


def test_sessions_that_were_as_long_as_this_one_say_nothing_about_its_rest() -> None:
    taken = Occupied(NOON - HOUR, None)
    assert queue.expected(1, [taken], [HOUR, 3 * HOUR], NOON).likely == 2 * HOUR
    assert queue.expected(1, [taken], [HOUR], NOON).likely is None


def test_a_session_that_begins_in_the_future_has_not_lasted_yet() -> None:
    coming = Occupied(NOON + HOUR, None)
    assert queue.expected(1, [coming], [3 * HOUR], NOON).likely == 3 * HOUR


def test_a_session_that_should_have_ended_for_being_idle_frees_nothing_before_now() -> None:
    over = Occupied(NOON - 9 * HOUR, None, idle_end=NOON - MINUTE)
    assert queue.expected(1, [over], [], NOON).likely == timedelta(0)


def test_past_sessions_of_negative_length_are_left_out() -> None:
    found = queue.expected(1, [Occupied(NOON, None)], [-HOUR, -HOUR, timedelta(0), HOUR], NOON)
    assert (found.sessions, found.likely) == (2, HOUR)


def test_a_hard_end_bounds_what_follows_it_too() -> None:
    ends_soon, goes_on = Occupied(NOON, NOON + HOUR), Occupied(NOON, None)
    past = [10 * HOUR] * 3
    assert queue.expected(2, [ends_soon, goes_on], past, NOON).likely == 10 * HOUR
    assert queue.expected(2, [ends_soon, ends_soon, goes_on], past, NOON).likely == HOUR
    # The second follows the first on the slice whose session has a hard end.
    assert queue.expected(2, [ends_soon], past, NOON).likely == 11 * HOUR


def test_a_session_of_which_a_grant_needs_the_card_ends_then() -> None:
    begin = NOON + HOUR
    assert reservations.longest_until(1, [], [begin]) == begin
    assert reservations.longest_until(2, [], [begin]) is None
    assert reservations.longest_until(2, [None], [begin]) == begin
    assert reservations.longest_until(2, [begin], [begin]) is None
    assert reservations.longest_until(2, [begin + MINUTE], [begin]) == begin
    assert reservations.longest_until(2, [], [begin + HOUR, begin]) == begin + HOUR
    assert reservations.longest_until(1, [], []) is None


def test_a_card_is_kept_from_when_a_session_might_reach_into_the_grant() -> None:
    assert reservations.is_due(NOON + HOUR, HOUR, NOON)
    assert not reservations.is_due(NOON + HOUR + MINUTE, HOUR, NOON)
    assert reservations.longest_session([SMALL]) == reservations.WITHOUT_LIMIT == 24 * HOUR
    assert reservations.longest_session([CARD, ASKED, CPU]) == timedelta(0)
    short, long = parse_tiers(
        [
            {"name": "short", "profile": "1g.5gb", "max_hours": 2},
            {"name": "long", "profile": "1g.5gb", "max_hours": 3},
        ]
    )
    assert reservations.longest_session([short, long]) == 3 * HOUR


def test_a_slice_is_taken_where_least_is_broken_up() -> None:
    def load(uuid: str, free: int, live: int, index: int = 0, node: str = "n") -> CardLoad:
        return CardLoad(uuid, node, index, free, live)

    def at(number: int, uuid: str, start: int = 0) -> FreeSlice:
        return FreeSlice(number, uuid, "1g.5gb", start, 1)

    cards = [load("idle", 1, 0), load("busy", 5, 1), load("full", 2, 2)]
    free = [at(1, "idle"), at(2, "busy"), at(3, "full", 1), at(4, "full"), at(5, "elsewhere")]
    assert [each.id for each in placement.rank_slices(free, cards)] == [4, 3, 2, 1]
    assert placement.choose_slice(free, cards) == at(4, "full")
    assert placement.choose_slice([], cards) is None
    whole = [load("a", 7, 0, 1), load("b", 7, 0), load("c", 3, 0, 2), load("d", 0, 1)]
    ranked = placement.rank_cards_for_whole(whole)
    assert [each.card_uuid for each in ranked] == ["c", "b", "a"]
    assert placement.choose_card_for_whole(whole[3:]) is None
    assert placement.choose_card_for_whole(whole) == whole[2]


def test_equal_choices_go_by_node_card_start_and_slice() -> None:
    def ranked(*parts: tuple[str, int, int]) -> list[int]:
        cards = [CardLoad(f"{node}{index}", node, index, 3, 1) for node, index, _ in parts]
        free = [
            FreeSlice(number, f"{node}{index}", "1g.5gb", start, 1)
            for number, (node, index, start) in reversed(list(enumerate(parts)))
        ]
        return [each.id for each in placement.rank_slices(free, cards)]

    assert ranked(("b", 0, 0), ("a", 1, 1)) == [1, 0]
    assert ranked(("a", 1, 0), ("a", 0, 1)) == [1, 0]
    assert ranked(("a", 0, 1), ("a", 0, 0)) == [1, 0]
    assert ranked(("a", 0, 0), ("a", 0, 0)) == [0, 1]
    cards = [CardLoad("x", "b", 0, 3, 0), CardLoad("y", "a", 1, 3, 0), CardLoad("z", "a", 0, 3, 0)]
    assert [each.card_uuid for each in placement.rank_cards_for_whole(cards)] == ["z", "y", "x"]


def test_the_card_that_disturbs_fewest_is_emptied() -> None:
    def busy(uuid: str, people: str, *ends: datetime | None) -> BusyCard:
        return BusyCard(uuid, "n", 0, frozenset(people), ends)

    late, soon = busy("late", "a", NOON + HOUR), busy("soon", "b", NOON + MINUTE)
    never, two = busy("never", "c", None), busy("two", "de", NOON)
    most = busy("most", "b", NOON + MINUTE, NOON + MINUTE)
    ranked = draining.rank_cards_to_empty([two, never, late, most, soon])
    assert [each.card_uuid for each in ranked] == ["soon", "most", "late", "never", "two"]
    assert draining.choose_card_to_empty([never, soon]) == soon
    assert draining.choose_card_to_empty([]) is None
    assert busy("x", "a", NOON, NOON + HOUR).empty_at == NOON + HOUR
    assert busy("x", "a", NOON, None).empty_at is None
    assert busy("x", "a").empty_at is None


def test_equal_cards_to_empty_go_by_node_index_and_uuid() -> None:
    cards = [
        BusyCard(uuid, node, index, frozenset("a"), (NOON,))
        for uuid, node, index in (("2", "b", 0), ("1", "a", 1), ("4", "a", 0), ("3", "a", 0))
    ]
    ranked = draining.rank_cards_to_empty(cards)
    assert [each.card_uuid for each in ranked] == ["3", "4", "1", "2"]


def test_who_may_decide_about_what() -> None:
    approvers = Approvers(
        (
            Rule(users=frozenset({"pi"}), tiers=frozenset({"card"})),
            Rule(groups=frozenset({"heads"}), for_groups=frozenset({"vision"})),
        )
    )
    pi, head = Person("pi"), Person("marie", frozenset({"heads"}))
    assert approval.may_decide("ada", pi, approvers, "card") == ""
    assert "other tiers or groups" in approval.may_decide("ada", pi, approvers, "asked")
    assert approval.may_decide("ada", head, approvers, "asked", {"vision"}) == ""
    assert "other tiers or groups" in approval.may_decide(
        "ada", head, approvers, "asked", {"audio"}
    )
    assert "hub's admins" in approval.may_decide("ada", Person("eve"), approvers, "card")
    assert approval.may_decide("ada", Person("root", admin=True), approvers, "asked") == ""
    for own in (pi, Person("pi", admin=True)):
        assert "your own request" in approval.may_decide("pi", own, approvers, "card")
    assert approval.one_more(2, "")
    assert not approval.one_more(2, "pi")
    assert not approval.one_more(1, "")
    assert approval.may_move("pending", "approved") == ""
    assert "cannot become pending" in approval.may_move("approved", "pending")
    assert "cannot become approved" in approval.may_move("no such state", "approved")
    assert approval.period(None, 2, NOON) == (NOON, NOON + 2 * HOUR)
    assert approval.period(NOON + HOUR, 2, NOON) == (NOON + HOUR, NOON + 3 * HOUR)
    assert approval.period(NOON - HOUR, 2, NOON) == (NOON, NOON + 2 * HOUR)
