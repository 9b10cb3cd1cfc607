"""What was stored of a tier outlives it: tickets, offers, requests, grants, drafts, sessions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, TIERS, Lab, card
from tests.broker.test_lease_life import refused

ADA, ROOT = Person("ada"), Person("root", admin=True)
MakeLab = Callable[..., Lab]


def changed(make_lab: MakeLab, before: Lab, tiers: list[dict[str, Any]]) -> Lab:
    """The same hub after its admin has written other tiers and started it again."""
    after = make_lab(tiers=tiers)
    after.broker.hubs.claim("n1:/etc/jupyterhub")
    return after


def without(*names: str) -> list[dict[str, Any]]:
    return [tier for tier in TIERS if tier["name"] not in names]


def full(make_lab: MakeLab) -> Lab:
    """One card: a large, a medium and a small slice, the medium one taken."""
    lab = make_lab()
    lab.broker.hubs.claim("n1:/etc/jupyterhub")
    lab.report(card(0, MIXED))
    lab.start("mary", "medium")
    return lab


def test_a_ticket_for_a_removed_tier_ends_and_says_why(make_lab: MakeLab) -> None:
    """Its turn would never come: it would wait forever."""
    before = full(make_lab)
    ticket = before.broker.queue.join(ADA, "medium")
    after = changed(make_lab, before, without("medium"))
    (ended,) = after.broker.offers.settle()
    assert (ended.id, ended.state) == (ticket.id, "cancelled")
    assert "'medium' was removed" in ended.end_reason
    assert after.broker.queue.status() == ()
    assert after.broker.offers.settle() == ()
    assert "ticket.cancelled" in after.kinds()


def test_a_ticket_for_a_tier_that_lost_its_gpu_ends(make_lab: MakeLab) -> None:
    before = full(make_lab)
    before.broker.queue.join(ADA, "medium")
    no_gpu = [*without("medium"), {"name": "medium", "title": "Middle", "profile": "none"}]
    (ended,) = changed(make_lab, before, no_gpu).broker.offers.settle()
    assert "'Middle' no longer has a GPU" in ended.end_reason


def test_an_offer_of_a_removed_tier_is_given_back(make_lab: MakeLab) -> None:
    before = make_lab()
    before.broker.hubs.claim("n1:/etc/jupyterhub")
    before.report(card(0, MIXED))
    taken = before.start("mary", "medium")
    ticket = before.broker.queue.join(ADA, "medium", start=True)
    before.stop(taken)
    offered = before.broker.offers.make(ticket.id, ADA)
    assert offered.lease is not None
    after = changed(make_lab, before, without("medium"))
    (ended,) = after.broker.offers.settle()
    assert ended.state == "cancelled"
    lease = after.broker.leases.get(offered.lease.id)
    assert lease.state == "releasing"
    assert "was removed" in lease.end_reason


def test_an_offer_of_a_larger_tier_that_was_removed_waits_again(make_lab: MakeLab) -> None:
    before = full(make_lab)
    visionary = Person("ada", frozenset({"vision"}))
    before.start("hugo", "large", groups=["vision"])
    ticket = before.broker.queue.join(visionary, "medium", upward=True)
    before.stop(next(each for each in before.broker.leases.find() if each.tier == "large"))
    offered = before.broker.offers.make(ticket.id, visionary)
    assert offered.lease is not None
    assert offered.lease.tier == "large"
    after = changed(make_lab, before, without("large"))
    (again,) = after.broker.offers.settle()
    assert again.state == "waiting"
    assert after.broker.leases.get(offered.lease.id).state == "releasing"


def test_another_hubs_tickets_are_not_judged_by_these_tiers(make_lab: MakeLab) -> None:
    before = full(make_lab)
    ticket = before.broker.queue.join(ADA, "medium")
    other = make_lab(tiers=without("medium"), hub="other")
    assert other.broker.offers.settle() == ()
    assert [each.row.id for each in before.broker.queue.status()] == [ticket.id]


def test_a_removed_tiers_ticket_can_be_shown_and_left_at_once(make_lab: MakeLab) -> None:
    before = full(make_lab)
    ticket = before.broker.queue.join(ADA, "medium")
    after = changed(make_lab, before, without("medium"))
    (status,) = after.broker.queue.status("ada")
    assert views.ticket_view(status)["wait"] is None or status.expectation is not None
    assert after.broker.offers.turns(blocked=True) == ()
    assert after.broker.queue.leave(ticket.id, ADA).state == "cancelled"


@given(asked=st.floats(0.5, 48), allows=st.floats(0.5, 48), gives=st.floats(0.1, 60))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None
)
def test_no_grant_is_longer_than_its_tier_allows_now(
    make_lab: MakeLab, asked: float, allows: float, gives: float
) -> None:
    before = make_lab()
    request = before.broker.requests.create(ADA, "card", asked, "long training")
    tiers = [*without("card"), {**TIERS[3], "max_hours": allows}]
    after = changed(make_lab, before, tiers)
    try:
        if gives <= min(asked, allows):
            after.broker.requests.decide(request.id, ROOT, True, hours=gives)
        else:
            sentence = refused(
                "options", after.broker.requests.decide, request.id, ROOT, True, hours=gives
            )
            assert "now" in sentence or allows >= asked
            if asked <= allows:
                after.broker.requests.decide(request.id, ROOT, True)
            else:
                refused("options", after.broker.requests.decide, request.id, ROOT, True)
                after.broker.requests.decide(request.id, ROOT, False)
        found = after.broker.requests.get(request.id)
        if found.valid_until is not None:
            assert found.hours <= min(asked, allows)
    finally:
        after.close()
        before.close()


@pytest.mark.parametrize("removed", [True, False], ids=["removed", "a slice by now"])
def test_no_card_is_kept_for_a_grant_of_a_tier_that_changed(
    make_lab: MakeLab, removed: bool
) -> None:
    """The grant may begin days from now; the card would serve nobody until then."""
    before = make_lab()
    before.broker.hubs.claim("n1:/etc/jupyterhub")
    before.report(card(0))
    at = before.clock() + timedelta(hours=1)
    asked = before.broker.requests.create(ADA, "card", 10, "x", at)
    before.broker.requests.decide(asked.id, ROOT, True)
    assert before.broker.reservations.keep() == ("GPU-0",)
    tiers = without("card")
    if not removed:
        tiers.append({"name": "card", "profile": "3g.20gb", "approval": True})
    after = changed(make_lab, before, tiers)
    after.broker.reservations.look_after()
    assert [each.reserved_for for each in after.broker.cards.find()] == [None]
    assert "card.unreserved" in after.kinds()


def test_a_card_of_another_hubs_grant_stays_kept(make_lab: MakeLab) -> None:
    before = make_lab()
    before.broker.hubs.claim("n1:/etc/jupyterhub")
    before.report(card(0))
    at = before.clock() + timedelta(hours=1)
    asked = before.broker.requests.create(ADA, "card", 10, "x", at)
    before.broker.requests.decide(asked.id, ROOT, True)
    before.broker.reservations.keep()
    other = make_lab(tiers=without("card"), hub="other")
    other.broker.reservations.look_after()
    assert [each.reserved_for for each in other.broker.cards.find()] == [asked.id]


def test_sessions_grants_and_drafts_of_a_removed_tier_go_on_and_can_be_ended(
    make_lab: MakeLab,
) -> None:
    before = full(make_lab)
    grant = before.grant("ada")
    draft = before.broker.drafts.save(ADA, tier="card", hours="3", reason="soon")
    after = changed(make_lab, before, without("card", "medium"))
    (lease,) = after.broker.leases.find()
    assert after.broker.sessions.standings() is not None
    assert refused("conflict", after.broker.sessions.extend, lease.id, Person("mary"))
    assert [request.state for request in after.broker.requests.find()] == ["approved"]
    assert "card" not in [offer.tier.name for offer in after.broker.tiers.of(ADA)]
    assert "card" in refused("options", after.broker.drafts.file, ADA, draft.id)
    assert after.broker.drafts.of(ADA) == (draft,)
    assert after.broker.requests.cancel(grant.id, ADA).state == "cancelled"
    assert after.broker.drafts.drop(ADA, draft.id) == draft
    assert after.stop(lease).state == "released"
