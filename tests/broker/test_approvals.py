"""Requests: every transition by every kind of person, and input that makes no sense."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import START, Lab
from tests.broker.test_lease_life import STRANGE, refused

ADA = Person("ada")
ROOT = Person("root", admin=True)
PI = Person("noether", frozenset({"pi"}))
OTHER = Person("grace", frozenset({"vision"}))


def request_of(lab: Lab, hours: float = 10) -> RequestRow:
    return lab.broker.requests.create(ADA, "card", hours, "a long training run")


def brought_to(lab: Lab, state: str) -> RequestRow:
    """A request of ada's in that state."""
    request = request_of(lab)
    if state == "approved":
        return lab.broker.requests.decide(request.id, ROOT, True)
    if state == "denied":
        return lab.broker.requests.decide(request.id, ROOT, False)
    if state == "cancelled":
        return lab.broker.requests.cancel(request.id, ADA)
    if state in ("expired", "expired grant"):
        if state == "expired grant":
            lab.broker.requests.decide(request.id, ROOT, True)
        lab.clock.pass_time(days=40)
        (expired,) = lab.broker.requests.expire()
        return expired
    return request


def test_a_request_is_pending_until_somebody_else_decides(lab: Lab) -> None:
    request = request_of(lab)
    assert (request.user, request.tier, request.hours) == ("ada", "card", 10.0)
    assert (request.state, request.created_at, request.reason) == (
        "pending",
        START,
        "a long training run",
    )
    lab.clock.pass_time(hours=1)
    grant = lab.broker.requests.decide(request.id, PI, True, "good work", hours=4)
    assert (grant.state, grant.hours, grant.decided_by) == ("approved", 4.0, "noether")
    assert (grant.decided_at, grant.decision_reason) == (lab.clock.now, "good work")
    assert grant.valid_until == lab.clock.now + timedelta(hours=4)
    assert lab.broker.requests.find() == (grant,)
    assert lab.broker.requests.get(request.id) == grant


def test_each_decision_is_an_event_with_its_reason(lab: Lab) -> None:
    seen = lab.broker.events.find()[-1].id
    request = request_of(lab)
    lab.broker.requests.decide(request.id, PI, True, "good work")
    lab.broker.requests.cancel(request.id, ADA)
    events = lab.broker.events.find(after_id=seen)
    assert [(e.kind, e.actor, e.user, e.request_id, e.detail["why"]) for e in events] == [
        ("request.created", "ada", "ada", request.id, "a long training run"),
        ("request.approved", "noether", "ada", request.id, "good work"),
        ("request.cancelled", "ada", "ada", request.id, ""),
    ]


ACTS: dict[str, Callable[[Lab, int, Person], RequestRow]] = {
    "approve": lambda lab, number, by: lab.broker.requests.decide(number, by, True),
    "deny": lambda lab, number, by: lab.broker.requests.decide(number, by, False),
    "cancel": lambda lab, number, by: lab.broker.requests.cancel(number, by),
}
PEOPLE = {"the user": ADA, "an admin": ROOT, "an approver": PI, "somebody": OTHER}
ALLOWED = {
    ("pending", "approve", "an admin"): "approved",
    ("pending", "approve", "an approver"): "approved",
    ("pending", "deny", "an admin"): "denied",
    ("pending", "deny", "an approver"): "denied",
    ("pending", "cancel", "the user"): "cancelled",
    ("pending", "cancel", "an admin"): "cancelled",
    ("pending", "cancel", "an approver"): "cancelled",
    ("approved", "cancel", "the user"): "cancelled",
    ("approved", "cancel", "an admin"): "cancelled",
    ("approved", "cancel", "an approver"): "cancelled",
}


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(
    "state", ["pending", "approved", "denied", "cancelled", "expired", "expired grant"]
)
def test_every_transition_is_allowed_or_refused_as_the_table_says(
    lab: Lab, state: str, act: str
) -> None:
    for who, person in PEOPLE.items():
        request = brought_to(lab, state)
        to = ALLOWED.get((state, act, who))
        if to is not None:
            assert ACTS[act](lab, request.id, person).state == to
            assert lab.broker.requests.get(request.id).state == to
            continue
        before = lab.stored()
        person_may_not = who == "somebody" or (who == "the user" and act != "cancel")
        reason = "not-allowed" if person_may_not else "conflict"
        assert refused(reason, ACTS[act], lab, request.id, person).endswith(".")
        assert lab.stored() == before


def test_an_admin_does_not_approve_their_own_request(lab: Lab) -> None:
    request = lab.broker.requests.create(ROOT, "card", 5, "mine")
    for person in (ROOT, Person("root", frozenset({"pi"}), admin=True)):
        assert "your own request" in refused(
            "not-allowed", lab.broker.requests.decide, request.id, person, True
        )
    assert lab.broker.requests.get(request.id).state == "pending"


@pytest.mark.parametrize("number", [0, -1, 4711, 2**63, 10**30])
def test_an_unknown_request_is_not_found(lab: Lab, number: int) -> None:
    refused("not-found", lab.broker.requests.decide, number, ROOT, True)
    refused("not-found", lab.broker.requests.cancel, number, ADA)
    refused("not-found", lab.broker.requests.get, number)


BAD_HOURS = [0, -1, -0.0, float("nan"), float("inf"), 10**400, True, "10", None, [10], 48.5]


@pytest.mark.parametrize("hours", BAD_HOURS)
def test_hours_that_make_no_sense_are_refused(lab: Lab, hours: Any) -> None:
    sentence = refused("options", lab.broker.requests.create, ADA, "card", hours, "why")
    assert "at most the 48 that tier 'card' allows" in sentence
    assert lab.broker.requests.find() == ()


def test_without_a_limit_of_the_tier_a_month_is_the_most(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=[{"name": "card", "profile": "whole", "approval": True}])
    assert lab.broker.requests.create(ADA, "card", 24 * 31, "why").hours == 744
    refused("options", lab.broker.requests.create, ADA, "card", 24 * 31 + 1, "why")


@pytest.mark.parametrize("hours", [10.5, 0, -1, float("nan"), True, "4"])
def test_an_approver_may_shorten_but_not_lengthen(lab: Lab, hours: Any) -> None:
    request = request_of(lab, hours=10)
    refused("options", lab.broker.requests.decide, request.id, ROOT, True, "", hours)
    assert lab.broker.requests.get(request.id) == request
    assert lab.broker.requests.decide(request.id, ROOT, True, "", 10).hours == 10


@pytest.mark.parametrize(
    ("tier", "reason"),
    [("small", "options"), ("none", "options"), ("", "options"), (None, "options"), (3, "options")],
)
def test_only_tiers_that_need_approval_can_be_requested(lab: Lab, tier: Any, reason: str) -> None:
    refused(reason, lab.broker.requests.create, ADA, tier, 5, "why")


def test_a_tier_of_another_group_cannot_be_requested(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(
        tiers=[
            {"name": "cpu", "profile": "none"},
            {"name": "card", "profile": "whole", "approval": True, "groups": ["vision"]},
        ]
    )
    refused("not-allowed", lab.broker.requests.create, ADA, "card", 5, "why")
    assert lab.broker.requests.create(OTHER, "card", 5, "why").state == "pending"


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 2001, "nul\x00", "half \udfff", None, 3])
def test_a_request_needs_a_reason_that_can_be_kept(lab: Lab, reason: Any) -> None:
    refused("options", lab.broker.requests.create, ADA, "card", 5, reason)
    assert lab.broker.requests.find() == ()


@pytest.mark.parametrize("text", [*STRANGE, "x" * 2000])
def test_reasons_are_kept_as_they_came(lab: Lab, text: str) -> None:
    request = lab.broker.requests.create(ADA, "card", 5, text)
    decided = lab.broker.requests.decide(request.id, Person(text[:200], admin=True), False, text)
    assert (decided.reason, decided.decision_reason) == (text, text)
    assert lab.broker.requests.get(request.id) == decided


def test_the_reason_of_a_decision_is_bounded_too(lab: Lab) -> None:
    request = request_of(lab)
    refused("options", lab.broker.requests.decide, request.id, ROOT, True, "x" * 2001)
    refused("options", lab.broker.requests.decide, request.id, ROOT, True, "nul\x00")
    assert lab.broker.requests.get(request.id) == request


def test_a_person_cannot_pile_up_requests(lab: Lab) -> None:
    made = [request_of(lab) for _ in range(10)]
    assert "10 requests waiting" in refused(
        "conflict", lab.broker.requests.create, ADA, "card", 5, "one more"
    )
    lab.broker.requests.cancel(made[0].id, ADA)
    request_of(lab)
    lab.broker.requests.create(OTHER, "card", 5, "another user's")


def test_requests_expire_by_the_clock_even_before_anybody_notes_it(lab: Lab) -> None:
    waiting = request_of(lab)
    grant = lab.grant("grace", hours=10)
    lab.clock.pass_time(hours=10)
    refused("conflict", lab.broker.requests.cancel, grant.id, OTHER)
    lab.clock.pass_time(days=30)
    assert "already expired" in refused(
        "conflict", lab.broker.requests.decide, waiting.id, ROOT, True
    )
    assert {r.id for r in lab.broker.requests.expire()} == {waiting.id, grant.id}
    assert lab.broker.requests.expire() == ()
    assert lab.kinds().count("request.expired") == 2


def test_a_tier_that_is_gone_can_only_be_denied(make_lab: Callable[..., Lab]) -> None:
    before, after = make_lab(), make_lab(tiers=[{"name": "small", "profile": "1g.5gb"}])
    request = request_of(before)
    assert "deny it instead" in refused(
        "conflict", after.broker.requests.decide, request.id, ROOT, True
    )
    assert after.broker.requests.decide(request.id, ROOT, False).state == "denied"


def test_requests_can_be_listed_by_user_and_state(lab: Lab) -> None:
    first = request_of(lab)
    second = lab.grant("grace")
    assert lab.broker.requests.find() == (first, second)
    assert lab.broker.requests.find(user="grace") == (second,)
    assert lab.broker.requests.find(states=("pending",)) == (first,)
    assert lab.broker.requests.find(user="ada", states=("approved",)) == ()


def test_of_many_approvers_at_once_one_decides(lab: Lab) -> None:
    for _ in range(5):
        request = request_of(lab)
        barrier = threading.Barrier(8)

        def act(number: int, request: RequestRow = request, at: Any = barrier) -> str:
            at.wait()
            try:
                if number == 7:
                    lab.broker.requests.cancel(request.id, ADA)
                else:
                    lab.broker.requests.decide(
                        request.id, Person(f"p{number}", admin=True), number % 2 == 0
                    )
            except Refusal as refusal:
                return refusal.reason
            return "done"

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(act, range(8)))
        assert set(answers) == {"done", "conflict"}
        done = [answer == "done" for answer in answers]
        state = lab.broker.requests.get(request.id).state
        # An approval may still be given up by its user; nothing else follows a decision.
        assert done.count(True) == 1 or (done.count(True) == 2 and done[7] and state == "cancelled")
        if state == "approved":
            lab.broker.requests.cancel(request.id, ADA)


def test_a_grant_shows_in_the_tier_it_is_for(lab: Lab) -> None:
    grant = lab.grant("ada", hours=3)
    offers = {o.tier.name: o for o in lab.broker.tiers.of(ADA)}
    assert offers["card"].grant == grant
    assert offers["card"].usable
    assert {o.grant for name, o in offers.items() if name != "card"} == {None}
    lab.clock.pass_time(hours=3)
    lab.report()
    expired = {o.tier.name: o for o in lab.broker.tiers.of(ADA)}["card"]
    assert (expired.grant, expired.usable) == (None, False)


def test_giving_up_a_grant_leaves_the_server_that_runs_on_it(lab: Lab) -> None:
    grant = lab.grant("ada")
    lease = lab.start("ada", "card")
    lab.broker.requests.cancel(grant.id, ROOT)
    assert lab.broker.leases.activate(lease.attempt) is not None
    refused("approval", lab.start, "ada", "card", server="second")
