"""Exceptions from quotas: who makes them, what they lift, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.quotas import QuotaExceptionRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import START, Lab
from tests.broker.test_contention import at_once

ROOT = Person("root", admin=True)
DAY = timedelta(days=1)


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """One server at a time, and two hours of a whole card a week."""
    lab = make_lab(quotas={"default": {"live": 1, "gpu_hours_per_week": 2, "cap": True}})
    lab.report()
    return lab


def lift(
    lab: Lab, field: str = "live", amount: Any = 2, user: str = "ada", **given: Any
) -> QuotaExceptionRow:
    values = {"until": lab.clock() + DAY, "reason": "a deadline", "by": ROOT, **given}
    return lab.broker.quotas.grant_exception(
        user, field, amount, values["until"], values["reason"], values["by"]
    )


def refused(act: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(Refusal) as caught:
        act()
    return caught.value.reason, str(caught.value)


def test_an_exception_lifts_one_limit_of_one_person_until_its_end(lab: Lab) -> None:
    row = lift(lab)
    assert lab.broker.quotas.exceptions() == lab.broker.quotas.exceptions("ada") == (row,)
    lab.start("ada")
    lab.start("ada", server="second")
    assert "2 GPU servers" in refused(lambda: lab.start("ada", server="third"))[1]
    lab.start("grace")
    assert refused(lambda: lab.start("grace", server="second"))[0] == "quota"
    lab.clock.pass_time(days=1)
    lab.report()
    assert lab.broker.quotas.exceptions() == ()
    assert lab.broker.quotas.exceptions(include_past=True) == (row,)
    lab.broker.leases.release_server("ada", "second", "stopped", "ada")
    reason, why = refused(lambda: lab.start("ada", server="second"))
    assert reason == "quota"
    assert "1 GPU server at a time" in why


def test_the_most_generous_of_several_counts_and_none_is_no_limit(lab: Lab) -> None:
    lift(lab, amount=3)
    lift(lab, amount=2)
    (live, _) = lab.broker.quotas.of(Person("ada"))
    assert (live.field, live.limit, live.used, len(live.exceptions)) == ("live", 3.0, 0, 2)
    lift(lab, amount=None)
    assert [each.field for each in lab.broker.quotas.of(Person("ada"))] == ["gpu_hours_per_week"]


def test_hours_that_are_used_up_are_lifted(lab: Lab) -> None:
    lease = lab.start("ada")
    lab.clock.pass_time(hours=14)
    lab.report()
    lab.stop(lease)
    assert refused(lambda: lab.start("ada"))[0] == "quota"
    (_, week) = lab.broker.quotas.of(Person("ada"))
    assert week.frees_at is not None
    assert week.frees_at > lab.clock()
    lift(lab, "gpu_hours_per_week", 2.5)
    lab.start("ada")


def test_an_exception_that_is_ended_counts_no_more(lab: Lab) -> None:
    row = lift(lab)
    first, second = lab.start("ada"), lab.start("ada", server="second")
    ended = lab.broker.quotas.end_exception(row.id, "abused", ROOT)
    assert (ended.ended_by, ended.ended_at) == ("root", START)
    assert refused(lambda: lab.start("ada", server="third"))[0] == "quota"
    # What is held stays.
    assert {each.id for each in lab.broker.leases.find()} == {first.id, second.id}
    assert refused(lambda: lab.broker.quotas.end_exception(row.id, "", ROOT))[0] == "conflict"
    assert refused(lambda: lab.broker.quotas.end_exception(row.id + 1, "", ROOT))[0] == "not-found"
    details = [e.detail for e in lab.broker.events.find() if e.kind.startswith("quota.")]
    assert [detail["why"] for detail in details] == ["a deadline", "abused"]


@pytest.mark.parametrize(
    ("given", "reason", "word"),
    [
        ({"by": Person("grace")}, "not-allowed", "Only admins"),
        ({"by": Person("grace", frozenset({"pi"}))}, "not-allowed", "Only admins"),
        ({"by": Person("ada", admin=True)}, "not-allowed", "for yourself"),
        ({"field": "lives"}, "options", "'live'"),
        ({"field": "cap"}, "options", "cap"),
        ({"field": ""}, "options", "the quotas are"),
        ({"amount": -1}, "options", "-1"),
        ({"amount": 1.5}, "options", "whole number"),
        ({"amount": True}, "options", "True"),
        ({"amount": "3"}, "options", "'3'"),
        ({"amount": float("nan")}, "options", "nan"),
        ({"amount": float("inf")}, "options", "inf"),
        ({"amount": 10**400}, "options", "expected"),
        ({"until": START}, "options", "2026"),
        ({"until": START - DAY}, "options", "in the next"),
        ({"until": START + 367 * DAY}, "options", "366 days"),
        ({"until": datetime(2026, 12, 1)}, "options", "zone"),
        ({"until": "tomorrow"}, "options", "'tomorrow'"),
        ({"reason": ""}, "options", "reason"),
        ({"reason": "x" * 2001}, "options", "2001"),
        ({"user": ""}, "options", "user name"),
        ({"user": "nul\0"}, "options", "cannot be stored"),
    ],
)
def test_what_is_refused_has_no_effect(
    lab: Lab, given: dict[str, Any], reason: str, word: str
) -> None:
    before = lab.stored()
    found, why = refused(lambda: lift(lab, **given))
    assert found == reason
    assert word in why
    assert lab.stored() == before
    assert lab.broker.quotas.exceptions(include_past=True) == ()


def test_only_admins_end_one(lab: Lab) -> None:
    row = lift(lab)
    end = lab.broker.quotas.end_exception
    assert refused(lambda: end(row.id, "", Person("ada")))[0] == "not-allowed"
    assert lab.broker.quotas.exceptions() == (row,)


def test_no_quota_is_exceeded_by_starts_at_once(lab: Lab) -> None:
    lift(lab, amount=3)
    answers = at_once([lambda n=n: lab.start("ada", server=f"s{n}") for n in range(12)])
    assert sum(isinstance(each, LeaseRow) for each in answers) == 3
    assert {each.reason for each in answers if isinstance(each, Refusal)} == {"quota"}


def test_a_quota_of_servers_counts_those_without_a_gpu(make_lab: Callable[..., Lab]) -> None:
    tiers = [{"name": "cpu", "profile": "none"}, {"name": "small", "profile": "1g.5gb"}]
    lab = make_lab(tiers=tiers, quotas={"default": {"servers": 2}})
    lab.report()
    acquire = lab.broker.leases.acquire
    assert acquire(Person("ada"), "", "cpu", "one", other_servers=1) is None
    for tier in ("cpu", "small"):
        found = refused(lambda tier=tier: acquire(Person("ada"), "", tier, tier, other_servers=2))
        assert found[0] == "quota"
        assert "2 servers at a time" in found[1]
    (servers,) = lab.broker.quotas.of(Person("ada"))
    assert (servers.limit, servers.used) == (2, None)
    (servers,) = lab.broker.quotas.of(Person("ada"), servers=1)
    assert servers.used == 1


def test_a_renamed_user_keeps_an_exception(lab: Lab) -> None:
    row = lift(lab)
    lab.broker.users.rename("ada", "lovelace")
    assert [each.id for each in lab.broker.quotas.exceptions("lovelace")] == [row.id]
    lab.start("lovelace")
    lab.start("lovelace", server="second")


def test_a_deleted_user_s_exception_is_not_for_who_gets_the_name(lab: Lab) -> None:
    lift(lab)
    lab.broker.users.forget("ada")
    assert lab.broker.quotas.exceptions() == ()
    lab.start("ada")
    assert refused(lambda: lab.start("ada", server="second"))[0] == "quota"
