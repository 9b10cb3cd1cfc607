"""Which card is emptied for a user who may have a whole one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.draining import (
    BusyCard,
    choose_card_to_empty,
    rank_cards_to_empty,
)

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)

ends = st.one_of(st.none(), st.integers(0, 100).map(lambda hours: NOON + timedelta(hours=hours)))


@st.composite
def busy_cards(draw: st.DrawFn) -> list[BusyCard]:
    number = draw(st.integers(0, 6))
    cards = []
    for index in range(number):
        leases = draw(st.lists(st.tuples(st.sampled_from("abcdefg"), ends), min_size=1, max_size=7))
        cards.append(
            BusyCard(
                f"GPU-{index}",
                draw(st.sampled_from(["n1", "n2"])),
                index,
                frozenset(user for user, _ in leases),
                tuple(end for _, end in leases),
            )
        )
    return cards


@given(busy_cards(), st.randoms())
def test_the_choice_is_one_of_the_cards_whatever_their_order(
    cards: list[BusyCard], random: object
) -> None:
    chosen = choose_card_to_empty(cards)
    shuffled = list(cards)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert choose_card_to_empty(shuffled) == chosen
    assert (chosen in cards) if cards else chosen is None
    assert sorted(rank_cards_to_empty(cards), key=lambda c: c.index) == cards


@given(busy_cards())
def test_no_other_card_disturbs_fewer_people_or_as_many_sooner(cards: list[BusyCard]) -> None:
    chosen = choose_card_to_empty(cards)
    for other in cards:
        assert chosen is not None
        assert len(chosen.people) <= len(other.people)
        if len(other.people) == len(chosen.people) and other.empty_at is not None:
            assert chosen.empty_at is not None
            assert chosen.empty_at <= other.empty_at


def test_a_lease_without_end_makes_the_whole_card_endless() -> None:
    soon = NOON + timedelta(hours=1)
    assert BusyCard("GPU-0", "n1", 0, frozenset("ab"), (soon, None)).empty_at is None
    assert BusyCard("GPU-0", "n1", 0, frozenset("ab"), (soon, NOON)).empty_at == soon
