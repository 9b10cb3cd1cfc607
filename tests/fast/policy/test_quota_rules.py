"""Each rule of quotas by itself, at its boundaries."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.proof import Ending
from jupyterhub_migspawner.policy.quotas import (
    MONTH,
    WEEK,
    Quota,
    Span,
    Usage,
    check,
    least,
    most,
    parse_quotas,
    standing,
)
from jupyterhub_migspawner.policy.tiers import parse_tiers

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=timezone.utc)
(SMALL,) = parse_tiers([{"name": "small", "profile": "1g.5gb"}])


@pytest.mark.parametrize(
    ("quota", "counts", "window"),
    [
        (Quota(live=1), False, WEEK),
        (Quota(gpu_hours_per_week=1), True, WEEK),
        (Quota(gpu_hours_per_month=1), True, MONTH),
        (Quota(gpu_hours_per_week=1, gpu_hours_per_month=1), True, MONTH),
        (Quota(gpu_hours_per_week=0), True, WEEK),
    ],
)
def test_hours_are_read_for_as_long_as_a_quota_counts_them(
    quota: Quota, counts: bool, window: timedelta
) -> None:
    assert (quota.counts_hours, quota.window) == (counts, window)


def test_no_limit_is_the_most_generous_and_never_the_least() -> None:
    assert [most([1, 3, 2]), most([1, None])] == [3, None]
    assert [least([2, 1, 3]), least([None, 2]), least([None, None]), least([])] == [
        1,
        2,
        None,
        None,
    ]


@pytest.mark.parametrize("entry", ["default", "group:vision", "user:ada"])
def test_one_entry_makes_quotas(entry: str) -> None:
    assert parse_quotas({entry: {"live": 1}}).sets_any
    assert not parse_quotas({entry: {}}).sets_any
    assert not parse_quotas({}).sets_any


def test_names_of_entries_are_as_long_as_the_hub_s() -> None:
    assert parse_quotas({f"user:{'a' * 255}": {"live": 1}}).sets_any
    with pytest.raises(ConfigError, match="unknown entry"):
        parse_quotas({f"user:{'a' * 256}": {"live": 1}})


def test_hours_may_have_a_fraction_and_counts_have_none() -> None:
    found = parse_quotas({"default": {"gpu_hours_per_week": 2.5, "live": 2}})
    assert found.for_person(Person("ada")) == Quota(live=2, gpu_hours_per_week=2.5)


def test_a_quota_of_no_hours_is_a_quota() -> None:
    found = parse_quotas({"default": {"gpu_hours_per_week": 0, "gpu_hours_per_month": 0}})
    assert found.for_person(Person("ada")) == Quota(gpu_hours_per_week=0, gpu_hours_per_month=0)


@pytest.mark.parametrize("entry", ["group: ", "user: "])
def test_an_entry_names_somebody(entry: str) -> None:
    with pytest.raises(ConfigError, match="unknown entry"):
        parse_quotas({entry: {"live": 1}})


def test_a_lifted_count_stays_a_whole_number() -> None:
    quota = parse_quotas({"default": {"live": 1}}).for_person(Person("ada"), {"live": 2.0})
    assert check(quota, Usage(NOON, live=2), SMALL).startswith("Your quota allows 2 GPU servers")


def test_a_session_on_a_slice_that_is_being_stopped_is_no_whole_card() -> None:
    used = Usage(NOON, ending=(Ending("a", "Small", NOON, whole=False, counts_as_server=True),))
    assert [used.counted(name) for name in ("servers", "live", "whole_cards")] == [1, 1, 0]


def test_an_end_that_is_to_come_counts_up_to_now() -> None:
    hour = timedelta(hours=1)
    used = Usage(NOON, spans=(Span(NOON - hour, NOON + hour, 1.0),))
    assert used.gpu_hours(WEEK) == 1


def test_standing_tells_what_is_used_of_each_count() -> None:
    quota = Quota(servers=3, live=2, whole_cards=1)
    found = standing(quota, Usage(NOON, live=1, whole_cards=1, servers=2))
    assert found == (("servers", 3, 2, None), ("live", 2, 1, None), ("whole_cards", 1, 1, None))


def test_who_has_nothing_has_used_nothing() -> None:
    quota = Quota(servers=1, live=1, whole_cards=1, gpu_hours_per_week=1)
    assert check(quota, Usage(NOON), SMALL) == ""
    assert [Usage(NOON).counted(name) for name in ("servers", "live", "whole_cards")] == [0, 0, 0]


def test_what_was_used_up_frees_to_the_minute() -> None:
    hour = timedelta(hours=1)
    used = Usage(NOON, spans=(Span(NOON - hour, NOON, 1.0),))
    assert used.frees_at(WEEK, 1.5) == NOON
    # What was used first leaves the window first.
    assert used.frees_at(WEEK, 0.5) == NOON + WEEK - hour / 2 + timedelta(minutes=1)
    # Nearly nothing is left only when the last minute has gone.
    assert used.frees_at(WEEK, 1e-9) == NOON + WEEK
    assert used.frees_at(WEEK, 0) is None


@pytest.mark.parametrize(("hours", "over"), [(0.999, False), (1, True), (1.001, True)])
def test_a_quota_of_hours_is_used_up_when_it_is_reached(hours: float, over: bool) -> None:
    used = Usage(NOON, spans=(Span(NOON - timedelta(hours=hours), None, 1.0),))
    assert bool(check(Quota(gpu_hours_per_week=1), used, SMALL)) == over
    assert bool(check(Quota(gpu_hours_per_month=1), used, SMALL)) == over


@pytest.mark.parametrize(("days", "week", "month"), [(6, True, True), (8, False, True)])
def test_a_week_and_a_month_are_counted_apart(days: int, week: bool, month: bool) -> None:
    begin = NOON - timedelta(days=days)
    used = Usage(NOON, spans=(Span(begin, begin + timedelta(hours=2), 0.5),))
    assert bool(check(Quota(gpu_hours_per_week=1), used, SMALL)) == week
    assert bool(check(Quota(gpu_hours_per_month=1), used, SMALL)) == month
    late = NOON - timedelta(days=31)
    gone = Usage(NOON, spans=(Span(late, late + timedelta(hours=2), 0.5),))
    assert check(Quota(gpu_hours_per_month=1), gone, SMALL) == ""


def test_a_cap_holds_for_the_members_of_its_group_only() -> None:
    quotas = parse_quotas(
        {"default": {"live": 5}, "group:students": {"live": 1, "cap": True}, "group:staff": {}}
    )
    assert quotas.for_person(Person("ada", frozenset({"students"}))).live == 1
    assert quotas.for_person(Person("grace", frozenset({"staff"}))).live == 5
    assert quotas.for_person(Person("linus")).live == 5


def test_the_entry_of_a_person_is_no_cap() -> None:
    with pytest.raises(ConfigError, match="cap"):
        parse_quotas({"user:ada": {"live": 1, "cap": True}})
    plain = parse_quotas({"default": {"live": 1}, "group:staff": {"live": 3}})
    assert plain.for_person(Person("ada", frozenset({"staff"}))).live == 3


def test_a_whole_card_that_is_being_stopped_is_not_one_more_server() -> None:
    ending = Ending("a", "Card", NOON, whole=True, counts_as_server=False)
    used = Usage(NOON, servers=1, ending=(ending,))
    assert [used.counted(name) for name in ("servers", "live", "whole_cards")] == [1, 1, 1]
