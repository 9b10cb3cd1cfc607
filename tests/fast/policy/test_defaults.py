"""Who gets which tier without picking one, and who sees or may use one by the admin's functions."""

from __future__ import annotations

from typing import Any

import pytest

from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.policy.defaults import parse_default_tier
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.tiers import choose_tier, may_use, parse_tiers, seen_tiers

TIERS = parse_tiers(
    [
        {"name": "small", "profile": "1g.5gb"},
        {"name": "medium", "profile": "2g.10gb"},
        {"name": "large", "profile": "3g.20gb", "groups": ["vision"], "seen_by": "everybody"},
    ]
)
ADA = Person("ada", frozenset({"vision"}))
BOB = Person("bob", frozenset({"language", "vision"}))
EVE = Person("eve")


@pytest.mark.parametrize(
    ("raw", "ada", "bob", "eve"),
    [
        ("", None, None, None),
        (None, None, None, None),
        ("medium", "medium", "medium", "medium"),
        ("large", "large", "large", None),
        (
            {"group:language": "medium", "group:vision": "large", "default": "small"},
            "large",
            "medium",
            "small",
        ),
        ({"user:ada": "medium", "group:vision": "large"}, "medium", "large", None),
        ({"user:eve": "large", "default": "small"}, "small", "small", "small"),
        (lambda person: "large" if person.groups else "small", "large", "large", "small"),
        (lambda person: "large", "large", "large", None),
        (lambda person: 7, None, None, None),
        (lambda person: ["small"], None, None, None),
        (lambda person: None, None, None, None),
        (lambda person: 1 / 0, None, None, None),
    ],
)
def test_the_default_tier(raw: Any, ada: str, bob: str, eve: str) -> None:
    found = parse_default_tier(raw, TIERS)
    assert [found.of(person, TIERS) for person in (ADA, BOB, EVE)] == [ada, bob, eve]
    for person in (ADA, BOB, EVE):
        chosen = choose_tier(TIERS, person, {}, default=found.of(person, TIERS))
        assert not may_use(chosen, person)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("smal", "did you mean 'small'"),
        ({"default": "smal"}, r"default_tier\['default'\] is 'smal' \(did you mean"),
        ({"vision": "small"}, "unknown entry 'vision'.*expected 'default', 'group:NAME'"),
        ({"group:": "small"}, "unknown entry 'group:'"),
        ({"group: ": "small"}, "unknown entry 'group: '"),
        ({"team:x": "small"}, "unknown entry 'team:x'"),
        ({7: "small"}, "unknown entry 7"),
        ({f"user:{'a' * 256}": "small"}, "unknown entry 'user:a"),
        ({"group:vision": None}, "is None; expected one of the tiers: small, medium or large"),
        (["small"], "expected one of the tiers"),
        (3, "expected one of the tiers"),
    ],
)
def test_a_default_tier_that_is_none_is_refused(raw: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_default_tier(raw, TIERS)


def test_names_in_the_default_tier_are_as_long_as_the_hub_s() -> None:
    name = "a" * 255
    assert parse_default_tier({f"user:{name}": "small"}, TIERS).of(Person(name), TIERS) == "small"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda person: 7, "gave 7 for 'eve', which is not one of their tiers"),
        (lambda person: "large", "gave 'large' for 'eve', which is not one of their tiers"),
        (lambda person: 1 / 0, "failed for 'eve'"),
        (lambda person: None, ""),
        (lambda person: "small", ""),
    ],
)
def test_an_answer_that_is_no_tier_is_logged(
    function: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    parse_default_tier(function, TIERS).of(EVE, TIERS)
    assert told in caplog.text
    assert bool(caplog.text) == bool(told)


def test_a_function_says_who_may_use_a_tier() -> None:
    def allow(person: Person) -> Any:
        answers = {"ada": True, "bob": False, "eve": "yes", "joe": None}
        return answers[person.name]

    tiers = parse_tiers(
        [
            {"name": "own", "profile": "1g.5gb", "allow": allow, "users": ["bob"]},
            {"name": "small", "profile": "1g.5gb"},
        ]
    )
    own = tiers[0]
    assert not may_use(own, ADA)
    assert not may_use(own, BOB)
    for name in ("eve", "joe", "not known to it"):
        person = Person(name)
        assert may_use(own, person) == "Tier 'own' is not open to you."
        with pytest.raises(Refusal, match="not open to you"):
            choose_tier(tiers, person, {"tier": "own"})


def test_who_sees_a_tier_may_be_more_than_who_may_use_it() -> None:
    tiers = parse_tiers(
        [
            {"name": "a", "profile": "1g.5gb", "users": ["x"]},
            {"name": "b", "profile": "1g.5gb", "users": ["x"], "seen_by": ["vision"]},
            {"name": "c", "profile": "1g.5gb", "users": ["x"], "seen_by": "everybody"},
        ]
    )
    assert [tier.name for tier in seen_tiers(tiers, ADA)] == ["b", "c"]
    assert [tier.name for tier in seen_tiers(tiers, EVE)] == ["c"]
    assert [tier.name for tier in seen_tiers(tiers, Person("x"))] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("field", "value"), [("allow", "vision"), ("allow", True), ("seen_by", "vision")]
)
def test_wrong_fields_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"'{field}'"):
        parse_tiers([{"name": "small", "profile": "1g.5gb", field: value}])
