"""Quotas: reading them, whose counts, and what is left."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.quotas import (
    MONTH,
    WEEK,
    Quota,
    Quotas,
    Span,
    Usage,
    check,
    parse_quotas,
    standing,
)
from jupyterhub_migspawner.policy.tiers import parse_tiers

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=timezone.utc)
SMALL, CARD, CPU = parse_tiers(
    [
        {"name": "small", "profile": "1g.5gb"},
        {"name": "card", "profile": "whole"},
        {"name": "cpu", "profile": "none"},
    ]
)


def hours_ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def test_no_entry_is_no_limit() -> None:
    for raw in (None, {}):
        assert parse_quotas(raw).for_person(Person("ada")) == Quota()


def test_the_default_counts_for_everybody_without_another_entry() -> None:
    quotas = parse_quotas({"default": {"live": 1, "gpu_hours_per_week": 40}})
    assert quotas.for_person(Person("ada")) == Quota(live=1, gpu_hours_per_week=40.0)


def test_an_entry_of_the_user_wins_over_groups_and_default() -> None:
    quotas = parse_quotas(
        {"default": {"live": 1}, "group:vision": {"live": 9}, "user:ada": {"live": 2}}
    )
    assert quotas.for_person(Person("ada", frozenset({"vision"}))).live == 2


def test_the_most_generous_of_several_groups_counts_field_by_field() -> None:
    quotas = parse_quotas(
        {
            "default": {"live": 1, "whole_cards": 1},
            "group:vision": {"live": 2, "gpu_hours_per_week": 200},
            "group:speech": {"live": 4, "gpu_hours_per_week": 50},
        }
    )
    both = Person("ada", frozenset({"vision", "speech", "chess"}))
    assert quotas.for_person(both) == Quota(live=4, gpu_hours_per_week=200.0, whole_cards=1)
    assert quotas.for_person(Person("x", frozenset({"vision"}))).live == 2


def test_a_limit_lifted_on_purpose_is_the_most_generous() -> None:
    quotas = parse_quotas(
        {"default": {"live": 1}, "group:a": {"live": None}, "group:b": {"live": 5}}
    )
    assert quotas.for_person(Person("ada", frozenset({"a", "b"}))).live is None


def test_a_field_that_an_entry_leaves_out_is_not_lifted_by_it() -> None:
    quotas = parse_quotas(
        {"default": {"live": 1, "gpu_hours_per_week": 40}, "user:ada": {"live": 2}}
    )
    assert quotas.for_person(Person("ada")) == Quota(live=2, gpu_hours_per_week=40.0)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([], ["MigBroker.quotas", "[]", "a dict"]),
        ("default", ["MigBroker.quotas", "a dict"]),
        ({"defualt": {}}, ["'defualt'", "did you mean 'default'"]),
        ({"vision": {}}, ["'vision'", "'group:NAME'"]),
        ({"group:": {}}, ["'group:'", "'group:NAME'"]),
        ({"team:x": {}}, ["'team:x'"]),
        ({3: {}}, ["unknown entry 3"]),
        ({"default": 3}, ["quota 'default'", "3", "a dict"]),
        ({"default": None}, ["quota 'default'", "None"]),
        ({"default": {"lives": 1}}, ["quota 'default'", "'lives'", "did you mean 'live'"]),
        ({"group:vision": {"live": True}}, ["quota 'group:vision'", "'live'", "True"]),
        ({"user:ada": {"live": 1.5}}, ["quota 'user:ada'", "'live'", "1.5", "whole number"]),
        ({"default": {"live": -1}}, ["'live'", "-1", "from 0"]),
        ({"default": {"live": "2"}}, ["'live'", "'2'"]),
        ({"default": {"whole_cards": []}}, ["'whole_cards'", "[]"]),
        ({"default": {"gpu_hours_per_week": float("nan")}}, ["'gpu_hours_per_week'", "nan"]),
        ({"default": {"gpu_hours_per_week": -0.5}}, ["'gpu_hours_per_week'", "-0.5"]),
        ({"default": {"gpu_hours_per_month": float("inf")}}, ["'gpu_hours_per_month'", "inf"]),
        ({"default": {"gpu_hours_per_month": "9"}}, ["'gpu_hours_per_month'", "'9'"]),
    ],
)
def test_a_wrong_quota_is_named_with_field_found_and_expected(raw: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_quotas(raw)
    for word in words:
        assert word in str(caught.value)


def test_live_leases_are_counted_against_live() -> None:
    quota = Quota(live=2)
    assert check(quota, Usage(NOW, live=1), SMALL) == ""
    assert check(quota, Usage(NOW, live=2), SMALL) == (
        "Your quota allows 2 GPU servers at a time and you have 2. "
        "Stop one of them to start another."
    )


def test_a_quota_of_nothing_does_not_promise_that_it_frees() -> None:
    for quota, tier in (
        (Quota(live=0), SMALL),
        (Quota(gpu_hours_per_week=0), SMALL),
        (Quota(whole_cards=0), CARD),
    ):
        sentence = check(quota, Usage(NOW), tier)
        assert sentence
        assert "You can use more" not in sentence
        assert "Stop one" not in sentence


def test_whole_cards_are_counted_only_for_tiers_that_give_them() -> None:
    used = Usage(NOW, live=1, whole_cards=1)
    assert check(Quota(whole_cards=1), used, SMALL) == ""
    assert "1 whole card at a time" in check(Quota(whole_cards=1), used, CARD)


def test_a_tier_without_a_gpu_is_never_limited() -> None:
    used = Usage(NOW, live=9, spans=[Span(hours_ago(100), None, 1.0)])
    assert check(Quota(live=0, gpu_hours_per_week=0), used, CPU) == ""


def test_gpu_hours_are_weighted_by_the_share_of_the_card() -> None:
    spans = [
        Span(hours_ago(7), None, 1 / 7),
        Span(hours_ago(12), hours_ago(8), 1 / 4),
        Span(hours_ago(3), hours_ago(1), 1.0),
    ]
    assert Usage(NOW, spans=spans).gpu_hours(WEEK) == pytest.approx(1 + 1 + 2)


def test_only_what_lies_in_the_window_counts() -> None:
    spans = [Span(hours_ago(8 * 24), hours_ago(6 * 24), 1.0)]
    assert Usage(NOW, spans=spans).gpu_hours(WEEK) == pytest.approx(24)
    assert Usage(NOW, spans=spans).gpu_hours(MONTH) == pytest.approx(48)


def test_used_up_hours_are_refused_with_the_time_they_free() -> None:
    spans = [Span(hours_ago(48), hours_ago(8), 1.0)]
    sentence = check(Quota(gpu_hours_per_week=40), Usage(NOW, spans=spans), SMALL)
    assert sentence == (
        "Your quota allows 40 GPU-hours in 7 days and you have used 40. "
        "You can use more from Sat 28 Nov 2026 09:01 UTC, if you use nothing until then."
    )
    assert check(Quota(gpu_hours_per_week=40.1), Usage(NOW, spans=spans), SMALL) == ""


def test_the_monthly_quota_is_checked_when_the_weekly_one_has_room() -> None:
    spans = [Span(hours_ago(20 * 24), hours_ago(10 * 24), 1.0)]
    quota = Quota(gpu_hours_per_week=100, gpu_hours_per_month=200)
    assert "in 30 days" in check(quota, Usage(NOW, spans=spans), SMALL)


spans_strategy = st.lists(
    st.tuples(
        st.floats(0, 24 * 40), st.floats(0, 24 * 40), st.sampled_from([1 / 7, 2 / 7, 1 / 4, 1.0])
    ).map(lambda t: Span(hours_ago(max(t[0], t[1])), hours_ago(min(t[0], t[1])), t[2])),
    max_size=12,
)


@given(spans_strategy, st.floats(0.1, 300))
def test_the_time_named_is_the_first_at_which_the_quota_has_room(
    spans: list[Span], limit: float
) -> None:
    usage = Usage(NOW, spans=spans)
    frees = usage.frees_at(WEEK, limit)
    assert frees is not None
    assert usage.gpu_hours(WEEK, frees) < limit
    if frees > NOW:
        assert usage.gpu_hours(WEEK, frees - timedelta(minutes=1)) >= limit


@given(spans_strategy)
def test_use_is_never_more_than_the_sum_and_never_negative(spans: list[Span]) -> None:
    usage = Usage(NOW, spans=spans)
    total = sum(
        (s.end - s.start).total_seconds() / 3600 * s.share for s in spans if s.end is not None
    )
    week, month = usage.gpu_hours(WEEK), usage.gpu_hours(MONTH)
    assert 0 <= week <= month + 1e-9
    assert month <= total + 1e-6


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c"]),
        st.dictionaries(st.just("live"), st.none() | st.integers(0, 9)),
    ),
    st.frozensets(st.sampled_from(["a", "b", "c", "d"])),
    st.none() | st.integers(0, 9),
)
def test_joining_a_group_never_takes_anything_away_but_the_default(
    groups: dict[str, dict[str, int | None]], mine: frozenset[str], default: int | None
) -> None:
    quotas = Quotas({"live": default}, groups)
    limit = quotas.for_person(Person("x", mine)).live
    said = [groups[name]["live"] for name in mine if "live" in groups.get(name, {})]
    if not said:
        assert limit == default
    elif None in said:
        assert limit is None
    else:
        assert limit == max(number for number in said if number is not None)


LIMITS = st.one_of(st.none(), st.integers(0, 9))


def entries(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: LIMITS, "cap": st.booleans()})


def bound(limit: float | None) -> float:
    return float("inf") if limit is None else limit


@given(
    st.dictionaries(st.sampled_from(["default", "group:a", "group:b", "group:c"]), entries("live")),
    st.sets(st.sampled_from("abc")),
)
def test_no_group_gives_more_than_a_cap(raw: dict[str, Any], groups: set[str]) -> None:
    person = Person("ada", frozenset(groups))
    found = bound(parse_quotas(raw).for_person(person).live)
    mine = {key: raw[key] for key in raw if key == "default" or key[6:] in groups}
    caps = [bound(e["live"]) for e in mine.values() if e.get("cap") and "live" in e]
    assert all(found <= cap for cap in caps)
    # Without caps it is the most generous group's, or the default's.
    uncapped = {key: {k: v for k, v in e.items() if k != "cap"} for key, e in raw.items()}
    generous = bound(parse_quotas(uncapped).for_person(person).live)
    assert found == min([generous, *caps])


def test_a_cap_does_not_bind_whom_the_admin_named() -> None:
    quotas = parse_quotas({"default": {"live": 1, "cap": True}, "user:ada": {"live": 5}})
    assert quotas.for_person(Person("ada")).live == 5
    assert quotas.for_person(Person("grace")).live == 1


@given(LIMITS, LIMITS)
def test_an_exception_only_ever_lifts(limit: int | None, lifted: int | None) -> None:
    quotas = parse_quotas({"default": {"live": limit, "cap": True}})
    found = bound(quotas.for_person(Person("ada"), {"live": lifted}).live)
    assert found == max(bound(limit), bound(lifted))
    assert quotas.for_person(Person("ada"), {"whole_cards": lifted}).live == limit


def test_servers_without_a_gpu_count_as_servers_only() -> None:
    quota = Quota(servers=2, live=1)
    assert check(quota, Usage(NOW, live=1, servers=1), CPU) == ""
    full = check(quota, Usage(NOW, live=0, servers=2), CPU)
    assert full.startswith("Your quota allows 2 servers at a time and you have 2.")
    assert "2 servers at a time" in check(quota, Usage(NOW, servers=2), SMALL)
    assert "1 GPU server at a time" in check(quota, Usage(NOW, live=1, servers=1), SMALL)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"default": {"cap": 1}}, ["'cap'", "True or False"]),
        ({"user:ada": {"live": 1, "cap": True}}, ["unknown field 'cap'"]),
        ({"default": {"servers": 1.5}}, ["'servers'", "whole number of servers"]),
    ],
)
def test_what_a_cap_cannot_be(raw: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_quotas(raw)
    for word in words:
        assert word in str(caught.value)


def test_standing_tells_the_limits_there_are_and_when_they_free() -> None:
    quota = Quota(live=1, gpu_hours_per_week=2.0, gpu_hours_per_month=100.0)
    used = Usage(NOW, live=1, spans=(Span(hours_ago(14), hours_ago(0), 1 / 7),))
    week = NOW + timedelta(days=7) - timedelta(hours=14)
    found = standing(quota, used)
    assert found[0] == ("live", 1, 1, None)
    name, limit, hours, frees = found[1]
    assert (name, limit, round(hours, 6)) == ("gpu_hours_per_week", 2.0, 2.0)
    assert frees is not None
    assert week <= frees <= week + timedelta(minutes=2)
    assert found[2][0] == "gpu_hours_per_month"
    assert found[2][3] is None


@pytest.mark.parametrize(
    ("limit", "have", "words"),
    [
        (1, 1, "Stop it to start another."),
        (2, 2, "Stop one of them to start another."),
        (1, 3, "Stop 3 of them to start another."),
        (2, 3, "Stop 2 of them to start another."),
    ],
)
def test_how_many_have_to_be_stopped_is_said(limit: int, have: int, words: str) -> None:
    assert check(Quota(live=limit), Usage(NOW, live=have), SMALL).endswith(words)
    # True: with so many fewer there is room.
    fewer = {"it": 1, "one": 1}.get(words.split()[1]) or int(words.split()[1])
    assert check(Quota(live=limit), Usage(NOW, live=have - fewer), SMALL) == ""
    assert check(Quota(live=limit), Usage(NOW, live=have - fewer + 1), SMALL) != ""
