"""Cards for grants that begin later: kept late enough, found again, given on in time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.broker import reservations
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reservations import longest_until
from tests.broker.lab import SEVENTHS, START, Lab, card
from tests.broker.lab import WHOLE as CUT_WHOLE
from tests.broker.test_lease_life import refused

ROOT = Person("root", admin=True)
TIERS = [
    {"name": "small", "profile": "1g.5gb", "max_hours": 1},
    {"name": "card", "profile": "whole", "approval": True, "max_hours": 48},
]


def promise(lab: Lab, user: str, hours: float, begin: float) -> RequestRow:
    """A grant that begins in so many hours."""
    at = lab.clock() + timedelta(hours=begin)
    asked = lab.broker.requests.create(Person(user), "card", hours, "x", at)
    return lab.broker.requests.decide(asked.id, ROOT, True)


def reserved(lab: Lab) -> dict[str, int | None]:
    return {each.uuid: each.reserved_for for each in lab.broker.cards.find()}


def test_long_grants_do_not_set_cards_aside_early(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(card(0))
    grant = promise(lab, "ada", 1, 47)
    assert lab.broker.reservations.keep() == ()
    lab.start("sam", "small")
    lab.clock.pass_time(hours=46)
    lab.report(card(0))
    assert lab.broker.reservations.keep() == ("GPU-0",)
    assert reserved(lab) == {"GPU-0": grant.id}


def test_a_card_until_then_is_lent_and_given_on_in_time(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(card(0))
    promise(lab, "ada", 5, 20)
    lab.grant("bob", hours=40)
    lease = lab.start("bob", "card")
    assert lease.ends_at == START + timedelta(hours=20)


def test_where_there_are_cards_enough_nobody_ends_sooner(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(card(0), card(1), card(2))
    promise(lab, "ada", 5, 20)
    lab.grant("bob", hours=40)
    assert lab.start("bob", "card").ends_at == START + timedelta(hours=40)
    lab.grant("eve", hours=40)
    assert lab.start("eve", "card").ends_at == START + timedelta(hours=40)
    lab.grant("joe", hours=40)
    assert lab.start("joe", "card").ends_at == START + timedelta(hours=20)


def test_right_before_a_promise_nothing_is_begun(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(card(0))
    promise(lab, "ada", 5, 0.1)
    lab.grant("bob", hours=4)
    assert "is reserved for a grant that begins" in refused("capacity", lab.start, "bob", "card")


ENDS = st.none() | st.integers(0, 100)


@given(st.integers(1, 6), st.lists(ENDS, max_size=5), st.lists(st.integers(1, 100), max_size=5))
def test_every_promise_finds_a_card(
    total: int, others: list[int | None], begins: list[int]
) -> None:
    def at(hours: int | None) -> object:
        return None if hours is None else START + timedelta(hours=hours)

    latest = longest_until(total, [at(h) for h in others], [at(h) for h in begins])  # type: ignore[misc]
    mine = None if latest is None else (latest - START) / timedelta(hours=1)
    for number, begin in enumerate(sorted(begins), start=1):
        taken = sum(end is None or end > begin for end in others)
        taken += mine is None or mine > begin
        if total - sum(end is None or end > begin for end in others) >= number:
            # It would have found one without this session, and does so with it.
            assert total - taken >= number
    assert latest is None or latest in [at(h) for h in begins]


@pytest.mark.parametrize("problem", ["lost", "drained"])
def test_a_card_that_is_out_of_service_is_replaced(
    make_lab: Callable[..., Lab], problem: str
) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(card(0), card(1))
    grant = promise(lab, "ada", 3, 1)
    (kept,) = lab.broker.reservations.keep()
    other = {"GPU-0": 1, "GPU-1": 0}[kept]
    if problem == "lost":
        lab.report(card(other))
    else:
        lab.broker.cards.drain(kept, "repair", "root")
    assert lab.broker.reservations.keep() == (f"GPU-{other}",)
    assert reserved(lab) == {kept: None, f"GPU-{other}": grant.id}


def test_a_card_that_comes_back_whole_is_kept_before_others_get_at_it(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(card(0))
    lab.grant("bob", hours=2)
    lease = lab.start("bob", "card")
    lab.broker.leases.activate(lease.attempt)
    lab.report(card(0, CUT_WHOLE))
    lab.broker.layouts.finish_target("GPU-0")
    grant = promise(lab, "ada", 4, 2.5)
    lab.clock.pass_time(hours=1.6)
    lab.report(card(0, CUT_WHOLE))
    assert lab.broker.reservations.keep() == ("GPU-0",)
    # The holder keeps it until their time is over.
    assert lab.broker.leases.get(lease.id).state == "active"
    lab.stop(lease)
    lab.report(card(0, ()))
    lab.report(card(0, SEVENTHS))
    lab.broker.layouts.finish_target("GPU-0")
    refused("capacity", lab.start, "eve", "small")
    lab.clock.pass_time(hours=1)
    lab.report(card(0, SEVENTHS))
    lab.broker.reservations.look_after()
    assert lab.start("ada", "card").request_id == grant.id


def test_two_hubs_keep_one_card_for_a_grant(
    make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, other = make_lab(tiers=TIERS), make_lab(tiers=TIERS, hub="physics")
    lab.report(card(0), card(1), card(2))
    grant = promise(lab, "ada", 3, 1)
    keep = reservations.keep_for
    both = []

    def slowly(*args: object) -> str:
        both.append(1)
        return keep(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reservations, "keep_for", slowly)
    with ThreadPoolExecutor(6) as pool:
        for each in [lab.broker, other.broker] * 3:
            pool.submit(each.reservations.keep)
    assert len(both) == 6
    assert list(reserved(lab).values()).count(grant.id) == 1


def test_a_reminder_is_given_once_by_however_many(make_lab: Callable[..., Lab]) -> None:
    lab, other = make_lab(tiers=TIERS), make_lab(tiers=TIERS, hub="physics")
    lab.report(card(0))
    lab.broker.requests.create(Person("ada"), "card", 3, "x")
    lab.clock.pass_time(hours=25)
    with ThreadPoolExecutor(6) as pool:
        for each in [lab.broker, other.broker] * 3:
            pool.submit(each.requests.remind)
    assert lab.kinds().count("request.reminder") == 1


def test_a_brief_grant_is_not_called_short_at_once(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(card(0))
    lab.grant("ada", hours=0.5)
    assert lab.broker.requests.remind() == ()
    assert "request.ending" not in lab.kinds()


def test_who_approved_first_cannot_be_the_second_under_another_name(
    make_lab: Callable[..., Lab],
) -> None:
    tiers = [{"name": "card", "profile": "whole", "approval": True, "approvals": 2}]
    lab = make_lab(tiers=tiers, approvers=["group:pi"])
    asked = lab.broker.requests.create(Person("ada"), "card", 3, "x")
    lab.broker.requests.decide(asked.id, Person("pia", frozenset({"pi"})), True)
    lab.broker.users.rename("pia", "curie")
    curie = Person("curie", frozenset({"pi"}))
    assert "a second approval is needed" in refused(
        "conflict", lab.broker.requests.decide, asked.id, curie, True
    )
