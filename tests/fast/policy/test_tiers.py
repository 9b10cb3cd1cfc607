"""What tiers an admin may write, and which of them a person may use."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import (
    EXTEND_HOURS,
    choose_tier,
    may_use,
    open_tiers,
    parse_tiers,
)

TIERS = parse_tiers(
    [
        {"name": "cpu", "profile": "none"},
        {"name": "small", "profile": "1g.5gb", "default": True},
        {"name": "large", "profile": "3g.20gb", "groups": ["vision"]},
        {"name": "mine", "profile": "2g.10gb", "users": ["ada"]},
        {"name": "card", "profile": "whole", "groups": ["vision"], "approval": True},
    ]
)
ADA = Person("ada", frozenset({"vision"}))
GRACE = Person("grace")


def test_a_choice_calls_the_function_of_no_other_tier() -> None:
    called: list[str] = []
    one, other = (
        {
            "name": name,
            "profile": "1g.5gb",
            "allow": lambda person, name=name: called.append(name) is None,
        }
        for name in ("one", "other")
    )
    tiers = parse_tiers([one, other])
    assert choose_tier(tiers, GRACE, {"tier": "other"}).name == "other"
    assert called == ["other"]


def test_a_tier_keeps_what_the_admin_wrote_and_defaults_the_rest() -> None:
    small, card = parse_tiers(
        [
            {"name": "small", "profile": "1g.5gb+me", "idle_minutes": 60, "max_hours": 24},
            {
                "name": "card",
                "title": "A whole card",
                "description": "For <b>large</b> models.",
                "profile": "whole",
                "groups": ("vision", "vision"),
                "users": {"ada"},
                "approval": True,
                "max_hours": 0.5,
            },
        ]
    )
    assert (small.title, small.description, small.groups, small.approval) == (
        "small",
        "",
        (),
        False,
    )
    assert (small.max_hours, small.idle_minutes, small.is_whole, small.is_none) == (
        24.0,
        60,
        False,
        False,
    )
    assert (card.groups, card.users, card.is_whole) == (("vision",), ("ada",), True)
    assert (card.title, card.description) == ("A whole card", "For <b>large</b> models.")


def test_a_tier_shares_its_slices_when_it_says_so() -> None:
    alone, shared, whole = parse_tiers(
        [
            {"name": "alone", "profile": "1g.5gb"},
            {"name": "shared", "profile": "1g.5gb", "seats": 16},
            {"name": "whole", "profile": "whole", "seats": 1},
        ]
    )
    assert [(tier.seats, tier.shares) for tier in (alone, shared, whole)] == [
        (1, False),
        (16, True),
        (1, False),
    ]


@pytest.mark.parametrize(
    "profile",
    [
        "1g.5gb",
        "7g.80gb",
        "1g.10gb+me",
        "1g.24gb+me.all",
        "1g.24gb-me",
        "2g.48gb+gfx",
        "1g.141gb",
        "1g.0gb+me",
        "3g.0gb",
    ],
)
def test_profiles_are_taken_as_drivers_name_them(profile: str) -> None:
    (tier,) = parse_tiers([{"name": "t", "profile": profile}])
    assert tier.profile == profile


OK = {"name": "small", "profile": "1g.5gb"}
WRONG: list[tuple[Any, list[str]]] = [
    (None, ["MigBroker.tiers", "None", "list of dicts"]),
    ({"small": OK}, ["MigBroker.tiers", "list of dicts"]),
    ("small", ["MigBroker.tiers", "'small'", "list"]),
    ([], ["MigBroker.tiers", "empty", "at least one"]),
    ([OK, "large"], ["tier number 2", "'large'", "a dict"]),
    ([{"profile": "1g.5gb"}], ["tier number 1", "'name'", "missing"]),
    ([{**OK, "name": ""}], ["tier number 1", "'name'", "''", "letters"]),
    ([{**OK, "name": "a b"}], ["tier 'a b'", "'name'", "letters"]),
    ([{**OK, "name": "<b>"}], ["tier '<b>'", "'name'", "letters"]),
    ([{**OK, "name": "x" * 65}], ["'name'", "at most 64"]),
    ([{**OK, "name": 3}], ["tier number 1", "'name'", "3", "letters"]),
    ([{"name": "small"}], ["tier 'small'", "'profile'", "missing", "1g.5gb"]),
    ([{**OK, "profile": "1g"}], ["tier 'small'", "'profile'", "'1g'", "1g.5gb", "whole", "none"]),
    ([{**OK, "profile": "1G.5GB"}], ["'profile'", "'1G.5GB'"]),
    ([{**OK, "profile": "1g.5gb "}], ["'profile'", "'1g.5gb '"]),
    ([{**OK, "profile": "1g.5gb\n"}], ["'profile'", r"'1g.5gb\n'"]),
    ([{**OK, "profile": "1c.2g.10gb"}], ["'profile'", "'1c.2g.10gb'"]),
    ([{**OK, "profile": 5}], ["'profile'", "5"]),
    ([{**OK, "profil": "1g.5gb"}], ["'profil'", "did you mean 'profile'"]),
    ([{**OK, "max_hour": 3}], ["tier 'small'", "'max_hour'", "did you mean 'max_hours'"]),
    ([{**OK, "zzz": 3}], ["'zzz'", "expected only", "idle_minutes"]),
    ([{**OK, 7: 3}], ["unknown field 7"]),
    ([{**OK, "groups": "vision"}], ["'groups'", "'vision'", "a list of names"]),
    ([{**OK, "groups": ["a", ""]}], ["'groups'", "list of names"]),
    ([{**OK, "groups": [1]}], ["'groups'", "[1]"]),
    ([{**OK, "users": "ada"}], ["'users'", "'ada'", "a list of names"]),
    ([{**OK, "users": None}], ["'users'", "None"]),
    ([{**OK, "approval": "yes"}], ["'approval'", "'yes'", "True or False"]),
    ([{**OK, "approval": 1}], ["'approval'", "1", "True or False"]),
    ([{**OK, "default": None}], ["'default'", "None", "True or False"]),
    ([{**OK, "max_hours": True}], ["'max_hours'", "True", "number of hours"]),
    ([{**OK, "max_hours": "24"}], ["'max_hours'", "'24'", "number of hours"]),
    ([{**OK, "max_hours": 0}], ["'max_hours'", "0", "above 0"]),
    ([{**OK, "max_hours": -3}], ["'max_hours'", "-3", "above 0"]),
    ([{**OK, "max_hours": float("nan")}], ["'max_hours'", "nan"]),
    ([{**OK, "max_hours": float("inf")}], ["'max_hours'", "inf"]),
    ([{**OK, "max_hours": 10**400}], ["'max_hours'", "1000", "number of hours"]),
    ([{**OK, "idle_minutes": "60"}], ["'idle_minutes'", "'60'", "number of minutes"]),
    ([{**OK, "idle_minutes": float("nan")}], ["'idle_minutes'", "nan"]),
    ([{**OK, "idle_minutes_when_wanted": 5}], ["'idle_minutes_when_wanted'", "at most"]),
    (
        [{**OK, "idle_minutes": 5, "idle_minutes_when_wanted": 6}],
        ["'idle_minutes_when_wanted'", "6", "at most the 'idle_minutes'"],
    ),
    ([{**OK, "extend_hours": -1}], ["'extend_hours'", "-1", "from 0"]),
    ([{**OK, "idle_minutes": False}], ["'idle_minutes'", "False"]),
    ([{**OK, "idle_minutes": 0}], ["'idle_minutes'", "0", "above 0"]),
    ([{**OK, "title": 3}], ["'title'", "3", "text"]),
    ([{**OK, "description": "x" * 3000}], ["'description'", "2000"]),
    ([{**OK, "profile": "none", "approval": True}], ["'approval'", "needs no approval"]),
    *(
        ([{**OK, "seats": wrong}], ["tier 'small'", "'seats'", "a whole number from 1 to 16"])
        for wrong in (0, -1, 17, 1.0, "4", True, None, [4])
    ),
    *(
        ([{**OK, field: wrong}], ["tier 'small'", f"'{field}'", unit, "from 0.01 to 1,000,000"])
        for field, unit in (("cpus", "a number of CPUs"), ("memory_gib", "a number of GiB"))
        for wrong in (0, -1, 0.001, 10**7, "4", True, [4], float("nan"), float("inf"))
    ),
    ([{**OK, "cpu": 4}], ["unknown field 'cpu'", "did you mean 'cpus'"]),
    ([{**OK, "memory_gb": 4}], ["unknown field 'memory_gb'", "did you mean 'memory_gib'"]),
    ([{**OK, "profile": "whole", "seats": 2}], ["'seats'", "2", "'whole'", "only slices"]),
    ([{**OK, "profile": "none", "seats": 2}], ["'seats'", "2", "'none'", "only slices"]),
    ([OK, {**OK, "profile": "2g.10gb"}], ["tier 'small'", "number 1", "number 2"]),
    (
        [{**OK, "default": True}, {"name": "b", "profile": "none", "default": True}],
        ["tier 'b'", "'default'", "tier 'small'", "at most one"],
    ),
]


@pytest.mark.parametrize(("raw", "words"), WRONG)
def test_a_wrong_tier_is_named_with_field_found_and_expected(raw: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tiers(raw)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"profile": "whole", "mig": "none"}, ["'mig'", "'none'", "'on'", "'off'"]),
        ({"profile": "whole", "mig": True}, ["'mig'", "True"]),
        ({"mig": "off"}, ["'mig'", "'off'", "only a tier with profile 'whole'"]),
        ({"approvals": 2}, ["'approvals'", "2", "needs no approval"]),
        ({"grant_starts": 1}, ["'grant_starts'", "1", "needs no approval"]),
        ({"approvals": 3, "approval": True}, ["'approvals'", "3", "from 1 to 2"]),
        ({"grant_starts": 0, "approval": True}, ["'grant_starts'", "0", "from 1"]),
        (
            {"idle_minutes": 5, "idle_minutes_when_wanted": 0},
            ["'idle_minutes_when_wanted'", "0", "above 0"],
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_named(more: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tiers([{**OK, **more}])
    for word in words:
        assert word in str(caught.value)


def test_fields_are_taken_up_to_their_bounds() -> None:
    (tier,) = parse_tiers(
        [
            {
                "name": "x" * 64,
                "profile": "whole",
                "mig": "off",
                "approval": True,
                "approvals": 2,
                "grant_starts": 1,
                "idle_minutes": 5,
                "idle_minutes_when_wanted": 5,
                "default": True,
            }
        ]
    )
    assert (tier.mig_off, tier.approvals, tier.grant_starts) == (True, 2, 1)
    assert (tier.idle_minutes, tier.idle_minutes_when_wanted, tier.default) == (5, 5, True)
    (plain,) = parse_tiers(({**OK, "approvals": 1, "seats": 2, "title": ""},))
    assert (plain.mig_off, plain.shares, plain.title) == (False, True, "small")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, ""),
        ({"cpus": None, "memory_gib": None}, ""),
        ({"cpus": 1}, "1 CPU"),
        ({"cpus": 0.5}, "0.5 CPUs"),
        ({"memory_gib": 16}, "16 GiB of main memory"),
        ({"cpus": 8, "memory_gib": 1.5}, "8 CPUs and 1.5 GiB of main memory"),
    ],
)
@pytest.mark.parametrize("profile", ["1g.5gb", "whole", "none"])
def test_any_tier_may_limit_cpus_and_main_memory(
    profile: str, more: dict[str, Any], words: str
) -> None:
    (tier,) = parse_tiers([{"name": "small", "profile": profile, **more}])
    assert tier.resources == words
    assert (tier.cpus, tier.memory_gib) == (more.get("cpus"), more.get("memory_gib"))


@pytest.mark.parametrize(("hours", "found"), [(None, EXTEND_HOURS), (0, 0), (3, 3), (0.5, 0.5)])
def test_how_long_a_session_may_be_extended_can_be_set(hours: float | None, found: float) -> None:
    (tier,) = parse_tiers([OK if hours is None else {**OK, "extend_hours": hours}])
    assert tier.extend_hours == found


def test_a_tier_that_is_named_is_given_to_those_it_is_open_to() -> None:
    assert choose_tier(TIERS, ADA, {"tier": "large"}).name == "large"


def test_a_tier_with_only_a_function_is_open_to_those_it_names() -> None:
    (tier,) = parse_tiers([{**OK, "allow": lambda person: person.name == "ada"}])
    assert may_use(tier, ADA) == ""
    assert may_use(tier, GRACE)


def test_an_answer_of_a_function_that_is_no_yes_or_no_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tier,) = parse_tiers([{**OK, "allow": lambda person: "yes"}])
    assert may_use(tier, ADA)
    assert "gave 'yes' for 'ada'; expected True or False" in caplog.text
    (broken,) = parse_tiers([{**OK, "allow": lambda person: 1 / 0}])
    assert may_use(broken, ADA)
    assert "'allow' of tier 'small' failed for 'ada'" in caplog.text


def test_who_asks_for_a_tier_and_has_none_is_told_so() -> None:
    with pytest.raises(Refusal, match="No tier is available to you") as caught:
        choose_tier(TIERS[2:], GRACE, {"tier": "large"})
    assert caught.value.reason == "not-allowed"
    assert "You may choose" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_whatever_stands_in_the_file_is_read_or_refused_in_a_sentence(raw: Any) -> None:
    for candidate in (raw, [raw], [{**OK, "max_hours": raw}], [{**OK, "groups": raw}]):
        sentence = "."
        try:
            parse_tiers(candidate)
        except ConfigError as error:
            sentence = str(error)
        assert sentence.endswith(".")
        assert "\n" not in sentence


def test_a_tier_is_open_to_all_or_to_its_groups_and_users() -> None:
    assert [t.name for t in open_tiers(TIERS, ADA)] == ["cpu", "small", "large", "mine", "card"]
    assert [t.name for t in open_tiers(TIERS, GRACE)] == ["cpu", "small"]


def test_admins_of_the_hub_get_no_tier_for_being_admins() -> None:
    assert may_use(TIERS[2], Person("root", admin=True)) == "Tier 'large' is not open to you."


@pytest.mark.parametrize("options", [None, {}, {"tier": None}])
def test_no_choice_means_the_default_tier(options: Any) -> None:
    assert choose_tier(TIERS, GRACE, options).name == "small"
    assert choose_tier(TIERS, GRACE, options, default="cpu").name == "cpu"


def test_the_default_is_always_a_tier_the_person_may_use() -> None:
    assert choose_tier(TIERS, GRACE, {}, default="large").name == "small"
    assert choose_tier(TIERS, ADA, {}, default="large").name == "large"
    only_card = parse_tiers(
        [{"name": "card", "profile": "whole", "approval": True}, {"name": "b", "profile": "none"}]
    )
    assert choose_tier(only_card, GRACE, {}).name == "b"


def test_somebody_without_any_tier_is_told_so() -> None:
    with pytest.raises(Refusal, match="No tier is available to you") as caught:
        choose_tier(TIERS[2:], GRACE, {})
    assert caught.value.reason == "not-allowed"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tier": "smal"}, ["no tier 'smal'", "did you mean 'small'", "cpu or small"]),
        ({"tier": ""}, ["no tier ''"]),
        ({"tier": ["small"]}, ["['small']", "the name of a tier"]),
        ({"tier": 3}, ["3", "the name of a tier"]),
        ({"tier": True}, ["True", "the name of a tier"]),
        ({"teir": "small"}, ["'teir'", "did you mean 'tier'"]),
        ({"tier": "small", "gpu": 1}, ["Unknown option 'gpu'"]),
        ({1: "small"}, ["Unknown option 1"]),
        (["small"], ["['small']", "an object"]),
        ("small", ["'small'", "an object"]),
        ({"tier": "x" * 10**6}, ["no tier 'xxx"]),
        ({"tier": "<script>alert(1)</script>"}, ["'<script>alert(1)</script>'"]),
        ({"tier": "a\nb\x00"}, [r"'a\nb\x00'"]),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_short_line(
    options: Any, words: list[str]
) -> None:
    with pytest.raises(Refusal) as caught:
        choose_tier(TIERS, GRACE, options)
    assert caught.value.reason == "options"
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_the_tier_of_another_group_is_refused_without_telling_about_it() -> None:
    with pytest.raises(Refusal) as caught:
        choose_tier(TIERS, GRACE, {"tier": "large"})
    assert caught.value.reason == "not-allowed"
    assert str(caught.value) == "Tier 'large' is not open to you. You may choose cpu or small."


def test_a_slip_is_not_corrected_to_a_tier_of_another_group() -> None:
    with pytest.raises(Refusal) as caught:
        choose_tier(TIERS, GRACE, {"tier": "larg"})
    assert "large" not in str(caught.value)
