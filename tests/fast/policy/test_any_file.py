"""Whatever an admin writes, it is taken or refused in one sentence, which tells no secret."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.approval import Narrowed, parse_approvers
from jupyterhub_migspawner.policy.defaults import parse_default_tier
from jupyterhub_migspawner.policy.notices import parse_notices
from jupyterhub_migspawner.policy.quotas import CappedQuota, parse_quotas
from jupyterhub_migspawner.policy.tiers import Tier, parse_tiers

SECRET = "hunter2"
SMALL: dict[Any, Any] = {"name": "small", "profile": "1g.5gb"}


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.sampled_from([10**400, "\ud800", "a" * 10**4, object(), len])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.frozensets(SCALARS, max_size=3)
        | st.dictionaries(SCALARS, inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = ["default", "user:ada", "user:Ada", "group:vision", "group:", "user: ", "x", 7, "\ud800"]


def dicts(names: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from([*names, "odd", 7, "\ud800"]), values | VALUES)


def refused(parse: Callable[..., object], raw: object, *more: object) -> str:
    """The sentence, or nothing where what was written is taken."""
    try:
        parse(raw, *more)
    except ConfigError as error:
        refusal = error
    else:
        return ""
    sentence = str(refusal)
    assert sentence.endswith(".")
    assert sentence.isprintable()
    assert len(sentence) < 1000
    assert SECRET not in "".join(traceback.format_exception(refusal))
    return sentence


@given(dicts(Tier.model_fields, st.nothing()))
def test_tiers(fields: Any) -> None:
    refused(parse_tiers, [fields])
    refused(parse_tiers, [{**SMALL, **fields}])


@given(dicts(KEYS, dicts(CappedQuota.model_fields, st.nothing())))
def test_quotas(raw: Any) -> None:
    refused(parse_quotas, raw, str.lower)


@given(st.lists(st.sampled_from(KEYS) | dicts(Narrowed.model_fields, st.nothing()) | VALUES))
def test_approvers(raw: Any) -> None:
    refused(parse_approvers, raw, ["card"])


@given(dicts(KEYS, st.just("small")) | VALUES)
def test_default_tiers(raw: Any) -> None:
    refused(parse_default_tier, raw, parse_tiers([SMALL]))


URLS = st.sampled_from(
    [
        f"mailtos://ada:{SECRET}@example.org",
        f"json://{SECRET}/{{user}}",
        f"json://{SECRET}/{{address}}{{",
        f"json://{SECRET}/{{{SECRET}}}",
        f" json://{SECRET}\n",
        f"json:/{SECRET}",
        SECRET,
    ]
)
AUDIENCES = ["admins", "approvers", "users", "addresses", "group:vision", f"json://{SECRET}"]


@given(
    st.dictionaries(
        st.sampled_from([*AUDIENCES, 7, SECRET.encode(), (SECRET,)]),
        st.lists(URLS | SCALARS) | URLS | st.dictionaries(URLS, URLS) | VALUES,
    )
    | st.lists(URLS)
    | URLS
)
def test_notices(raw: Any) -> None:
    refused(parse_notices, raw)


@pytest.mark.parametrize("shown", ["0x", "<Unprintable instance"])
def test_values_that_python_does_not_write(shown: str) -> None:
    """As hypothesis does not, either, these are tried one by one."""
    odd: Any = 10**5000 if shown == "0x" else Unprintable()
    assert shown in refused(parse_tiers, odd)
    assert shown in refused(parse_tiers, [{**SMALL, "max_hours": odd}])
    assert shown in refused(parse_tiers, [{**SMALL, "groups": [odd]}])
    assert shown in refused(parse_tiers, [{**SMALL, odd: 1}])
    assert shown in refused(parse_quotas, {"default": {"gpu_hours_per_week": odd}})
    assert shown in refused(parse_approvers, [odd])
    assert shown in refused(parse_default_tier, {odd: "small"}, parse_tiers([SMALL]))
    assert refused(parse_notices, {odd: []})


@pytest.mark.parametrize(
    "names",
    [iter(["vision"]), map(str, ["vision"]), {"vision": 1}.keys(), deque(["vision"]), "vision"],
)
def test_names_are_a_list_a_tuple_or_a_set(names: Any) -> None:
    """What can be read only once would open the second tier that it is written for."""
    for field in ("groups", "users"):
        assert f"field '{field}'" in refused(parse_tiers, [{**SMALL, field: names}])
    assert refused(parse_approvers, [{"approvers": ["user:ada"], "for_groups": names}])


@pytest.mark.parametrize("number", [10**400, 1e308, 10**9])
def test_numbers_with_which_no_date_could_be_computed_are_refused(number: float) -> None:
    for field in ("max_hours", "idle_minutes", "extend_hours", "grant_starts"):
        assert "1,000,000" in refused(parse_tiers, [{**SMALL, field: number}])
    for field in ("live", "gpu_hours_per_week"):
        assert "1,000,000" in refused(parse_quotas, {"default": {field: number}})


class Truthless:
    def __bool__(self) -> bool:
        raise RuntimeError("neither")


def test_a_name_that_is_neither_true_nor_false_is_refused() -> None:
    assert "field 'name'" in refused(parse_tiers, [{**SMALL, "name": Truthless()}])
