from __future__ import annotations

import pytest

from jupyterhub_migspawner.cli.demo import cards
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu.arrange import is_legal
from jupyterhub_migspawner.gpu.simulator import MODELS, find_model, profiles_of
from jupyterhub_migspawner.model.inventory import Profile
from jupyterhub_migspawner.policy.tiers import parse_tiers

CUTTABLE = [key for key, model in MODELS.items() if model.mig_capable]


def profiles(model: str = "A100-SXM4-40GB") -> tuple[Profile, ...]:
    return profiles_of(find_model(model))


def names(layout: str, number: int = 2, model: str = "A100-SXM4-40GB") -> list[list[str]]:
    cut = cards.cut(profiles(model), layout, number)
    return [sorted(name for name, _ in card) for card in cut]


def test_the_default_cuts_one_card_small_and_the_next_one_balanced() -> None:
    assert names(cards.MIXED) == [["1g.5gb"] * 7, ["1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb"]]


def test_all_of_one_profile_means_as_many_as_fit() -> None:
    assert names("all-2g.10gb") == [["2g.10gb"] * 3] * 2
    assert names("all-1g.5gb", 3) == [["1g.5gb"] * 7] * 3
    assert names("all-7g.40gb") == [["7g.40gb"]] * 2


def test_lists_of_profiles_are_taken_as_written() -> None:
    assert names("3g.20gb,2g.10gb,1g.5gb/1g.5gb, 1g.5gb") == [
        ["1g.5gb", "2g.10gb", "3g.20gb"],
        ["1g.5gb", "1g.5gb"],
    ]
    assert names("3g.20gb,3g.20gb") == [["3g.20gb", "3g.20gb"]] * 2


@pytest.mark.parametrize("model", CUTTABLE)
@pytest.mark.parametrize("layout", [cards.MIXED, cards.BALANCED])
def test_every_model_gets_a_legal_layout_and_tiers_that_fit_it(model: str, layout: str) -> None:
    cut = cards.cut(profiles(model), layout, 3)
    assert len(cut) == 3
    for card in cut:
        assert is_legal(profiles(model), card) == ""
    tiers = parse_tiers(cards.tiers_for(profiles(model), cut))
    known = {profile.name for profile in profiles(model)} | {"none", "whole"}
    assert {tier.profile for tier in tiers} <= known
    assert {name for card in cut for name, _ in card} <= {tier.profile for tier in tiers}
    assert [tier.name for tier in tiers if tier.default] == ["small"]
    assert [tier.name for tier in tiers if tier.approval] == ["card"]


def test_the_tiers_of_the_default_cards() -> None:
    cut = cards.cut(profiles(), cards.MIXED, 2)
    tiers = cards.tiers_for(profiles(), cut)
    assert [(tier["name"], tier["profile"]) for tier in tiers] == [
        ("cpu", "none"),
        ("small", "1g.5gb"),
        ("medium", "2g.10gb"),
        ("large", "3g.20gb"),
        ("course", "1g.5gb"),
        ("card", "whole"),
    ]
    assert [tier["name"] for tier in tiers if "seats" in tier] == ["course"]
    assert [tier["name"] for tier in tiers if "idle_minutes" in tier] == ["medium"]


def test_people_share_what_the_cards_are_cut_into() -> None:
    for layout, profile in (("all-3g.20gb", "3g.20gb"), ("all-7g.40gb", "1g.5gb")):
        tiers = cards.tiers_for(profiles(), cards.cut(profiles(), layout, 1))
        assert {tier["name"]: tier["profile"] for tier in tiers}["course"] == profile


def test_a_profile_of_an_unusual_layout_gets_a_tier_of_its_own() -> None:
    cut = cards.cut(profiles(), "4g.20gb,1g.10gb,1g.5gb+me", 1)
    found = {
        tier["profile"]: tier["name"]
        for tier in cards.tiers_for(profiles(), cut)
        if tier["name"] != "course"
    }
    assert found["4g.20gb"] == "4g.20gb"
    assert found["1g.5gb+me"] == "1g.5gb-me"
    parse_tiers(cards.tiers_for(profiles(), cut))


@pytest.mark.parametrize(
    ("layout", "named"),
    [
        ("3g.20gb,3g.20gb,1g.5gb", "3g.20gb"),
        ("9g.99gb", "9g.99gb"),
        ("all-", "''"),
        ("all-1g.10gbx", "1g.10gbx"),
        ("", "''"),
        ("1g.5gb,,1g.5gb", "''"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_by_name(layout: str, named: str) -> None:
    with pytest.raises(Refusal, match=r".") as caught:
        names(layout)
    assert named in str(caught.value)


def test_a_card_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(Refusal, match="cannot be cut"):
        names(cards.MIXED, model="T4")


@pytest.mark.parametrize(
    ("layout", "asked", "expected"),
    [
        (cards.MIXED, None, 2),
        (cards.MIXED, 5, 5),
        ("1g.5gb", None, 2),
        ("1g.5gb/1g.5gb/1g.5gb", None, 3),
        ("1g.5gb/1g.5gb/1g.5gb", 3, 3),
    ],
)
def test_a_list_of_cards_says_how_many_there_are(
    layout: str, asked: int | None, expected: int
) -> None:
    assert cards.number_of_cards(layout, asked) == expected


def test_a_list_of_cards_and_another_number_is_refused() -> None:
    with pytest.raises(Refusal, match="--layout lists 3 cards and --cards asks for 2"):
        cards.number_of_cards("1g.5gb/1g.5gb/1g.5gb", 2)


def test_a_layout_in_words() -> None:
    cut = cards.cut(profiles(), cards.MIXED, 2)
    assert [cards.described(card) for card in cut] == [
        "7 x 1g.5gb",
        "3g.20gb, 2g.10gb, 2 x 1g.5gb",
    ]
