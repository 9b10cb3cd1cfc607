"""Placement, approval and settings: decisions that need no database."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.approval import TRANSITIONS, may_decide, may_move, parse_approvers
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.placement import (
    CardLoad,
    FreeSlice,
    choose_card_for_whole,
    choose_slice,
    rank_slices,
)
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.policy.wording import QUOTED_LIMIT, quoted


def load(uuid: str, free: int, live: int, index: int = 0) -> CardLoad:
    return CardLoad(uuid, "n1", index, free, live)


def free(number: int, card: str, start: int = 0) -> FreeSlice:
    return FreeSlice(number, card, "1g.5gb", start, 1)


def test_the_fullest_card_is_preferred() -> None:
    cards = [load("A", 5, 2), load("B", 1, 6), load("C", 3, 4)]
    chosen = choose_slice([free(1, "A"), free(2, "B"), free(3, "C")], cards)
    assert chosen == free(2, "B")


def test_a_card_with_nothing_on_it_is_kept_whole_even_when_it_is_the_smaller_one() -> None:
    cards = [load("small", 4, 0), load("large", 6, 1)]
    assert choose_slice([free(1, "small"), free(2, "large")], cards) == free(2, "large")


def test_nothing_free_is_no_choice() -> None:
    assert choose_slice([], [load("A", 0, 7)]) is None
    assert choose_card_for_whole([load("A", 3, 1)]) is None


def test_the_card_given_out_whole_is_the_idle_one_whose_slices_are_missed_least() -> None:
    cards = [load("A", 7, 0), load("B", 4, 0), load("C", 1, 2)]
    assert choose_card_for_whole(cards) == load("B", 4, 0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), unique=True, min_size=1, max_size=20),
    st.randoms(),
)
def test_the_choice_does_not_depend_on_the_order_of_what_it_is_given(
    places: list[tuple[int, int]], random: Any
) -> None:
    slices = [free(c * 10 + s, f"C{c}", s) for c, s in places]
    cards = [load(f"C{c}", (c * 3) % 7, c % 3, c) for c in range(6)]
    ranked = rank_slices(slices, cards)
    random.shuffle(slices)
    random.shuffle(cards)
    assert rank_slices(slices, cards) == ranked
    assert sorted(s.id for s in ranked) == sorted(s.id for s in slices)


APPROVERS = parse_approvers(["group:pi", "user:ada"])


@pytest.mark.parametrize(
    ("by", "allowed"),
    [
        (Person("grace", admin=True), False),
        (Person("grace", frozenset({"pi"}), admin=True), False),
        (Person("ada"), True),
        (Person("linus", frozenset({"pi"})), True),
        (Person("root", admin=True), True),
        (Person("linus", frozenset({"vision"})), False),
    ],
)
def test_approvers_and_admins_decide_but_never_about_themselves(by: Person, allowed: bool) -> None:
    assert (may_decide("grace", by, APPROVERS) == "") is allowed


def test_a_request_moves_only_as_the_table_says() -> None:
    for state, targets in TRANSITIONS.items():
        for to in TRANSITIONS:
            assert (may_move(state, to) == "") is (to in targets)
    assert may_move("nonsense", "approved")


@pytest.mark.parametrize(
    "raw", ["group:pi", {"group:pi": 1}, ["pi"], ["group:"], ["role:x"], [3], 7]
)
def test_wrong_approvers_are_refused(raw: Any) -> None:
    with pytest.raises(ConfigError, match=r"MigBroker\.approvers.*expected"):
        parse_approvers(raw)


def test_nobody_is_an_approver_unless_named() -> None:
    for raw in (None, [], ()):
        assert may_decide("grace", Person("ada", frozenset({"pi"})), parse_approvers(raw))


TIERS = parse_tiers([{"name": "small", "profile": "1g.5gb"}])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pending_seconds": 0}, "pending_seconds is 0"),
        ({"pending_seconds": True}, "pending_seconds is True"),
        ({"heartbeat_seconds": -1}, "heartbeat_seconds is -1"),
        ({"request_days": 1.5}, "request_days is 1.5"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Settings(TIERS, **settings)


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@given(st.text() | st.binary() | st.lists(st.text()))
def test_quoted_text_is_one_short_line(value: Any) -> None:
    assert len(quoted(value)) <= 60
    assert len(quoted(value).splitlines()) == 1


def test_even_what_cannot_be_printed_is_named() -> None:
    assert "Unprintable" in quoted(Unprintable())


def test_what_is_cut_keeps_its_closing_quote_and_is_never_written_out_whole() -> None:
    assert quoted("x" * 1_000_000).endswith("…'")
    assert len(quoted(["x" * 100] * 10_000)) <= QUOTED_LIMIT
