"""Configuration values go to another process and come back as they were."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitlets import List, Set
from traitlets.config import Config
from traitlets.config.loader import DeferredConfigList, DeferredConfigString, LazyConfigValue

from jupyterhub_migspawner.config.plain import Encoder, decode


def there_and_back(value: Any) -> Any:
    encoder = Encoder()
    text = json.dumps(encoder.encode(value))
    assert not encoder.lost
    return decode(json.loads(text))


def same(one: Any, other: Any) -> bool:
    """Equal and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, (datetime, time)):
        return one == other and one.tzinfo == other.tzinfo and one.fold == other.fold
    return bool(one == other)


zones = st.sampled_from([None, timezone.utc, timezone(timedelta(hours=-3, minutes=-30))])
keys = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.just("!"), st.dates()
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters()),
    st.binary(),
    st.dates(),
    st.times(timezones=zones),
    st.datetimes(timezones=zones),
    st.datetimes(timezones=st.timezones()),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.sets(keys),
    st.frozensets(keys),
    st.builds(Path, st.text("ab/.~", min_size=1)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=12,
)


@given(values)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    assert same(there_and_back(value), value)


@given(st.dictionaries(st.sampled_from(["A", "B"]), st.dictionaries(st.just("x"), values)))
def test_sections_come_back_as_sections(sections: dict[str, dict[str, Any]]) -> None:
    config = Config({name: Config(section) for name, section in sections.items()})
    back = there_and_back(config)
    assert same(dict(back), dict(config))


class Size(IntEnum):
    LARGE = 7


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (OrderedDict(a=1), {"a": 1}),
        (Size.LARGE, 7),
        (type("Word", (str,), {})("x"), "x"),
        (Path, f"{Path.__module__}.Path"),
    ],
)
def test_a_subclass_comes_back_as_what_it_extends(value: Any, plain: Any) -> None:
    assert same(there_and_back(value), plain)


def test_what_a_file_adds_to_is_still_added_to_later() -> None:
    for value, base, result in (
        (lazy("append", "b"), ["a"], ["a", "b"]),
        (lazy("prepend", ["b"]), ["a"], ["b", "a"]),
        (lazy("insert", 0, "b"), ["a"], ["b", "a"]),
        (lazy("add", "b"), {"a"}, {"a", "b"}),
        (lazy("update", {"b": Path("x")}), {"a": 1}, {"a": 1, "b": Path("x")}),
    ):
        assert there_and_back(value).get_value(base) == result


def lazy(method: str, *arguments: Any) -> LazyConfigValue:
    value = LazyConfigValue()
    getattr(value, method)(*arguments)
    return value


def test_what_a_command_line_says_is_still_parsed_later() -> None:
    text = there_and_back(DeferredConfigString("['a']"))
    assert text.get_value(List()) == ["a"]
    names = there_and_back(DeferredConfigList(["a", "b"]))
    assert names.get_value(Set()) == {"a", "b"}


def test_functions_and_objects_are_left_out_and_named() -> None:
    encoder = Encoder()
    value = {"tiers": [{"name": "a", "allow": print}, object()], "s": {object()}, "t": (1, len)}
    encoded = decode(json.loads(json.dumps(encoder.encode(value))))
    assert encoded == {"tiers": [{"name": "a"}, None], "t": (1, None)}
    assert encoder.lost == [("tiers", 0, "allow"), ("tiers", 1), ("s",), ("t", 1)]


def test_a_value_that_holds_itself_is_an_object() -> None:
    endless: list[Any] = []
    endless.append(endless)
    encoder = Encoder()
    encoder.encode(endless)
    assert len(encoder.lost) == 1


def test_zones_keep_their_names() -> None:
    at = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1)
    assert same(there_and_back(at), at)
    assert same(
        there_and_back([date(2026, 1, 2), Decimal("1.10")]), [date(2026, 1, 2), Decimal("1.10")]
    )


@pytest.mark.parametrize(
    "encoded",
    [
        {"!": "code", "v": ""},
        {"!": "date"},
        {"!": "date", "v": 3},
        {"!": []},
        {"!": "dict", "v": 1},
    ],
)
def test_what_no_encoder_made_is_refused(encoded: Any) -> None:
    with pytest.raises(ValueError, match="no value of a configuration"):
        decode(encoded)
