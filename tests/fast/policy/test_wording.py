"""How decisions put things into sentences."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from jupyterhub_migspawner.policy.wording import (
    QUOTED_LIMIT,
    hours,
    listed,
    memory,
    moment,
    nearest,
    number,
    plural,
    printable,
    quoted,
    span,
)


@pytest.mark.parametrize(
    ("words", "said"),
    [((), ""), (("a",), "a"), (("a", "b"), "a or b"), (("a", "b", "c"), "a, b or c")],
)
def test_words_are_listed(words: tuple[str, ...], said: str) -> None:
    assert listed(words, "or") == said
    assert listed(iter(words)) == said.replace(" or ", " and ")


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (timedelta(0), "1 minute"),
        (timedelta(seconds=29), "1 minute"),
        (timedelta(seconds=90), "2 minutes"),
        (timedelta(minutes=59), "59 minutes"),
        (timedelta(minutes=60), "1 hour"),
        (timedelta(minutes=61), "1 hour 1 minute"),
        (timedelta(hours=3, minutes=20), "3 hours 20 minutes"),
        (timedelta(hours=24), "24 hours"),
        (timedelta(hours=47, minutes=59), "47 hours 59 minutes"),
        (timedelta(hours=48), "2 days"),
        (timedelta(hours=59), "2 days"),
        (timedelta(hours=60), "3 days"),
        (timedelta(days=10), "10 days"),
    ],
)
def test_lengths_are_said_as_people_say_them(length: timedelta, said: str) -> None:
    assert span(length) == said


def test_the_nearest_word_is_named_where_one_is_near() -> None:
    assert nearest("smal", iter(["large", "small"])) == " (did you mean 'small'?)"
    assert nearest("xyz", ["small"]) == ""
    assert nearest(7, ["small"]) == ""
    # Longer ones are not looked at: that takes time by the square of their length.
    assert nearest("a" * 200, ["a" * 200]) != ""
    assert nearest("a" * 201, ["a" * 201]) == ""


@pytest.mark.parametrize("make", [str, str.encode])
def test_texts_are_cut_when_they_are_quoted(make: object) -> None:
    assert callable(make)
    fits = make("x" * (QUOTED_LIMIT - len(repr(make("")))))
    assert quoted(fits) == repr(fits)
    for long in (make("x" * (QUOTED_LIMIT - 1)), make("x" * 10**6)):
        assert len(quoted(long)) == QUOTED_LIMIT
        assert quoted(long)[-2:] == "…'"
    assert quoted(["x" * 200]).endswith("…]")


def test_numbers_times_and_characters_are_said_plainly() -> None:
    assert [number(each) for each in (40.0, 39.857, 0.5, 100)] == ["40", "39.86", "0.5", "100"]
    assert [plural(each, "slice") for each in (0, 1, 2)] == ["0 slices", "1 slice", "2 slices"]
    assert plural(2, "entry", "entries") == "2 entries"
    east = timezone(timedelta(hours=1))
    assert moment(datetime(2026, 11, 23, 14, 5, tzinfo=east)) == "Mon 23 Nov 2026 13:05 UTC"
    assert printable("a\nü\x1b") == "a\\nü\\x1b"


@pytest.mark.parametrize(
    ("mib", "said"),
    [
        (4864, "4.8 GiB"),  # 1g.5gb
        (19968, "19.5 GiB"),  # 3g.20gb
        (40960, "40 GiB"),
        (40950, "40 GiB"),  # 39.99
        (512, "0.5 GiB"),
        (0, "0 GiB"),
    ],
)
def test_memory_has_one_figure(mib: int, said: str) -> None:
    assert memory(mib) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1, "1 hour"),
        (1.0, "1 hour"),
        ("1", "1 hour"),
        (0.5, "0.5 hours"),
        (2, "2 hours"),
        ("1.004", "1 hour"),
        ("lots", "'lots' hours"),
    ],
)
def test_hours_are_counted(value: float | str, said: str) -> None:
    assert hours(value) == said
