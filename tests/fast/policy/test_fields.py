"""Fields of the admin's file, and numbers and times that people typed."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.policy.fields import Entry, read_hours, read_minutes, read_moment

SIX = datetime(2026, 12, 1, 18, tzinfo=timezone.utc)


def entry(value: Any) -> Entry:
    return Entry("tier 'small'", {"f": value}, ("f",))


def test_a_text_is_as_long_as_its_limit() -> None:
    assert entry("abc").text("f", "", 3) == "abc"
    with pytest.raises(ConfigError, match="text of at most 3 characters"):
        entry("abcd").text("f", "", 3)


@pytest.mark.parametrize("value", [0, 0.0])
def test_nothing_is_an_amount_where_that_makes_sense(value: float) -> None:
    assert entry(value).amount("f", "hours", zero=True) == 0
    with pytest.raises(ConfigError, match="a number of hours above 0"):
        entry(value).amount("f", "hours", zero=False)
    with pytest.raises(ConfigError, match="a number of hours of at least 0"):
        entry(-1e-9).amount("f", "hours", zero=True)


def test_a_count_says_from_where_on_it_counts() -> None:
    assert entry(0).count("f", "cards", zero=True) == 0
    assert entry(1).count("f", "cards", zero=False) == 1
    with pytest.raises(ConfigError, match="a whole number of cards above 0"):
        entry(0).count("f", "cards", zero=False)
    with pytest.raises(ConfigError, match="a whole number of cards of at least 0"):
        entry(-1).count("f", "cards", zero=True)


@pytest.mark.parametrize(("value", "right"), [(0, False), (1, True), (3, True), (4, False)])
def test_a_number_lies_within_its_bounds(value: int, right: bool) -> None:
    if right:
        assert entry(value).number("f", 1, 3) == value
    else:
        with pytest.raises(ConfigError, match="from 1 to 3"):
            entry(value).number("f", 1, 3)


def test_names_keep_their_order_where_they_have_one() -> None:
    names = [*"zxcvbnmasdfghjklqwertyuiop"]
    for given in (names, tuple(names)):
        assert entry(given).names("f", "a") == tuple(names)
    for given in (set(names), frozenset(names)):
        assert entry(given).names("f", "a") == tuple(sorted(names))
    assert entry(["b", "a", "b"]).names("f", "a") == ("b", "a")


@pytest.mark.parametrize("wrong", ["", "  ", 7, "a" * 256])
def test_each_of_several_names_is_one_that_the_hub_could_have(wrong: object) -> None:
    assert entry(["a" * 255]).names("f", "a") == ("a" * 255,)
    with pytest.raises(ConfigError, match="a list of names"):
        entry(["b", wrong]).names("f", "a")


@pytest.mark.parametrize(("typed", "found"), [("8", 8), (" 0.5 ", 0.5), ("0,5", 0.5), ("-1", -1)])
def test_numbers_are_read_as_people_type_them(typed: str, found: float) -> None:
    assert read_hours(typed) == found
    assert read_minutes(typed) == found
    assert isinstance(read_hours(typed), float)


@pytest.mark.parametrize("typed", ["", "eight", "1h", "1 2"])
def test_what_is_no_number_is_refused(typed: str) -> None:
    with pytest.raises(Refusal, match=r"The hours are .* such as 8 or 0\.5") as caught:
        read_hours(typed)
    assert caught.value.reason == "options"
    with pytest.raises(Refusal, match=r"The minutes are .* such as 15"):
        read_minutes(typed)


@pytest.mark.parametrize(
    "typed",
    [
        "2026-12-01T18:00",
        " 2026-12-01 18:00:00 ",
        "2026-12-01T18:00:00Z",
        "2026-12-01T18:00:00z",
        "2026-12-01T19:00:00+01:00",
    ],
)
def test_a_time_is_utc_unless_it_says_another_zone(typed: str) -> None:
    found = read_moment(typed)
    assert found == SIX
    assert found.tzinfo is not None


@pytest.mark.parametrize("typed", ["", "tomorrow", "2026-13-01T00:00", "18:00"])
def test_what_is_no_time_is_refused(typed: str) -> None:
    with pytest.raises(Refusal, match="expected one such as 2026-12-01T18:00") as caught:
        read_moment(typed)
    assert caught.value.reason == "options"
