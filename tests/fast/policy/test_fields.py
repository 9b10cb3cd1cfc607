"""Fields of the admin's file, and numbers and times that people typed."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Any

import pytest
from pydantic import Field

from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.policy.approval import Narrowed
from jupyterhub_migspawner.policy.fields import (
    Above0,
    AtLeast0,
    Entry,
    Expected,
    Flag,
    Groups,
    Users,
    expected_of,
    read_entry,
    read_hours,
    read_minutes,
    read_moment,
    user_or_group,
)
from jupyterhub_migspawner.policy.quotas import CappedQuota, Quota
from jupyterhub_migspawner.policy.tiers import Tier

SIX = datetime(2026, 12, 1, 18, tzinfo=timezone.utc)


class Example(Entry):
    text: Annotated[str, Field(max_length=3), Expected("text of at most 3 characters")] = ""
    above: Annotated[Above0 | None, Expected("a number of hours above 0")] = None
    amount: Annotated[AtLeast0 | None, Expected("a number of hours of at least 0")] = None
    groups: Groups = ()
    users: Users = ()
    flag: Flag = False


class Needy(Entry):
    first: Flag
    second: Flag


def read(**fields: Any) -> Example:
    return read_entry(Example, "tier 'small'", fields)


def mistake(**fields: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(**fields)
    return str(caught.value)


def test_a_text_is_as_long_as_its_limit() -> None:
    assert read(text="abc").text == "abc"
    assert mistake(text="abcd") == (
        "tier 'small': field 'text' is 'abcd'; expected text of at most 3 characters."
    )


@pytest.mark.parametrize("value", [0, 0.0])
def test_nothing_is_an_amount_where_that_makes_sense(value: float) -> None:
    assert read(amount=value).amount == 0
    assert "a number of hours above 0" in mistake(above=value)
    assert "a number of hours of at least 0" in mistake(amount=-1e-9)


@pytest.mark.parametrize("wrong", [-1, 1.0, True, "1"])
def test_a_count_is_whole_and_not_negative(wrong: object) -> None:
    assert read_entry(Quota, "quota 'default'", {"live": 0}).live == 0
    with pytest.raises(
        ConfigError, match=r"'live' is .*; expected a whole number of leases from 0 to 1,000,000"
    ):
        read_entry(Quota, "quota 'default'", {"live": wrong})


@pytest.mark.parametrize("wrong", [0, 1, "yes", None])
def test_a_flag_is_true_or_false(wrong: object) -> None:
    assert read(flag=True).flag
    assert "True or False" in mistake(flag=wrong)


def test_names_keep_their_order_where_they_have_one() -> None:
    names = [*"zxcvbnmasdfghjklqwertyuiop"]
    for given in (names, tuple(names)):
        assert read(groups=given).groups == tuple(names)
    for given in (set(names), frozenset(names)):
        assert read(groups=given).groups == tuple(sorted(names))
    assert read(groups=["b", "a", "b"]).groups == ("b", "a")


@pytest.mark.parametrize("wrong", ["", "  ", 7, "a" * 256, "\ud800"])
def test_each_of_several_names_is_one_that_the_hub_could_have(wrong: object) -> None:
    assert read(groups=["a" * 255]).groups == ("a" * 255,)
    assert "a list of names" in mistake(groups=["b", wrong])
    assert "a list of names" in mistake(users={"b", wrong})


def test_users_get_the_names_that_the_hub_knows_them_by() -> None:
    fields = {"users": ["Ada", "ada", "Eve"], "groups": ["Vision"]}
    found = read_entry(Example, "", fields, str.lower)
    assert (found.users, found.groups) == (("ada", "eve"), ("Vision",))
    assert read(**fields).users == ("Ada", "ada", "Eve")


def test_of_several_mistakes_an_unknown_field_is_told_then_a_missing_one() -> None:
    for wrong, told in (
        ({"first": 3, "secnd": True}, "unknown field 'secnd' (did you mean 'second'?)"),
        ({"first": 3}, "field 'second' is missing; expected True or False."),
        ({"first": 3, "second": True}, "field 'first' is 3; expected True or False."),
    ):
        with pytest.raises(ConfigError) as caught:
            read_entry(Needy, "here", wrong)
        assert str(caught.value).startswith(f"here: {told}")


def test_nothing_of_the_library_that_checks_it_is_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        read(flag="1")
    assert caught.value.__suppress_context__
    assert "pydantic" not in str(caught.value).lower()


@pytest.mark.parametrize("model", [CappedQuota, Narrowed, Quota, Tier])
def test_every_field_says_in_words_what_it_has_to_be(model: type[Entry]) -> None:
    for name in model.model_fields:
        assert expected_of(model, name)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user:ada", ("user", "ada")),
        ("group:a:b", ("group", "a:b")),
        (f"user:{'a' * 255}", ("user", "a" * 255)),
        *((wrong, ("", "")) for wrong in ("ada", "role:x", "user:", "group: ", "", 7, None)),
        (f"user:{'a' * 256}", ("", "")),
    ],
)
def test_a_user_or_a_group_is_named_with_its_kind(text: object, found: tuple[str, str]) -> None:
    assert user_or_group(text) == found


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
