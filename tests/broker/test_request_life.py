"""The life of a request on both databases: for a coming time, by two, by whom, revoked, drafted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import START, TIERS, Lab, card
from tests.broker.test_lease_life import refused

BOARD = {"name": "board", "profile": "3g.20gb", "approval": True, "approvals": 2}
ONCE = {"name": "once", "profile": "1g.5gb", "approval": True, "grant_starts": 2}
APPROVERS = [
    "group:pi",
    {"approvers": ["user:eve"], "for_groups": ["vision"]},
    {"approvers": ["user:joe"], "tiers": ["board"]},
]
ADA = Person("ada", frozenset({"vision"}))
LEE = Person("lee", frozenset({"language"}))
PEOPLE = {
    "owner": ADA,
    "pi": Person("noether", frozenset({"pi"})),
    "pi of the group": Person("eve"),
    "approver of another tier": Person("joe"),
    "admin": Person("root", admin=True),
    "owner who is an admin": Person("ada", frozenset({"vision"}), admin=True),
    "somebody": Person("mallory", frozenset({"vision"})),
}


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    lab = make_lab(tiers=[*TIERS, BOARD, ONCE], approvers=APPROVERS)
    lab.report(card(0, (("3g.20gb", 0), ("1g.5gb", 4))))
    return lab


def ask(lab: Lab, tier: str = "card", person: Person = ADA, **more: Any) -> RequestRow:
    return lab.broker.requests.create(person, tier, 10, "a run", **more)


ACTS: dict[str, Callable[[Lab, int, Person], Any]] = {
    "approve": lambda lab, number, by: lab.broker.requests.decide(number, by, True),
    "deny": lambda lab, number, by: lab.broker.requests.decide(number, by, False),
    "cancel": lambda lab, number, by: lab.broker.requests.cancel(number, by),
    "revoke": lambda lab, number, by: lab.broker.requests.revoke(number, by, "needed")[0],
}
DECIDERS = {"pi", "pi of the group", "admin"}
TO = {"approve": "approved", "deny": "denied", "cancel": "cancelled", "revoke": "cancelled"}


def bring(lab: Lab, state: str) -> RequestRow:
    """A request of ada's in that state; one that is ``over`` nobody has called expired yet."""
    request = ask(lab, "once" if state == "used" else "card")
    if state in ("approved", "denied", "over", "used"):
        lab.broker.requests.decide(request.id, PEOPLE["admin"], state != "denied")
    if state == "cancelled":
        lab.broker.requests.cancel(request.id, ADA)
    elif state == "expired":
        lab.clock.pass_time(days=40)
        lab.report()
        lab.broker.requests.expire()
    elif state == "over":
        lab.clock.pass_time(hours=11)
        lab.report()
    elif state == "used":
        for _ in range(2):
            lease = lab.start("ada", "once")
            lab.broker.leases.activate(lease.attempt)
            lab.stop(lease)
    written = "approved" if state == "over" else state
    assert lab.broker.requests.get(request.id).state == written
    return request


STATES = ["pending", "approved", "denied", "cancelled", "expired", "over", "used"]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("state", STATES)
def test_who_may_do_what_in_which_state(lab: Lab, state: str, act: str) -> None:
    for who, person in PEOPLE.items():
        request = bring(lab, state)
        is_owner = who.startswith("owner")
        may = who in DECIDERS or (is_owner and act == "cancel")
        works = {
            "approve": state == "pending",
            "deny": state == "pending",
            "cancel": state in ("pending", "approved"),
            "revoke": state == "approved",
        }[act]
        before = lab.stored()
        if may and works:
            assert ACTS[act](lab, request.id, person).state == TO[act], (who, act)
            if TO[act] == "approved":
                lab.broker.requests.cancel(request.id, ADA)
            continue
        reason = "conflict" if may else "not-allowed"
        assert refused(reason, ACTS[act], lab, request.id, person), (who, act)
        assert lab.stored() == before, (who, act)
        if state in ("pending", "approved"):
            lab.broker.requests.cancel(request.id, ADA)


def test_a_pi_decides_for_their_own_group_only(lab: Lab) -> None:
    eve = PEOPLE["pi of the group"]
    request = ask(lab, person=LEE)
    assert "other tiers or groups" in refused(
        "not-allowed", lab.broker.requests.decide, request.id, eve, True
    )
    # The groups count that they had when they asked.
    mine = ask(lab)
    assert lab.broker.requests.decide(mine.id, eve, True).state == "approved"
    assert mine.groups == ("vision",)


def test_two_have_to_approve_and_they_are_two(lab: Lab) -> None:
    joe, pi = PEOPLE["approver of another tier"], PEOPLE["pi"]
    request = ask(lab, "board")
    first = lab.broker.requests.decide(request.id, joe, True, "fine", hours=6)
    assert (first.state, first.first_by, first.hours, first.valid_until) == (
        "pending",
        "joe",
        6.0,
        None,
    )
    assert "already" in refused("conflict", lab.broker.requests.decide, request.id, joe, True)
    refused("approval", lab.start, "ada", "board", groups=["vision"])
    # Each may shorten it, and nobody lengthens it again.
    assert "at most the 6" in refused(
        "options", lab.broker.requests.decide, request.id, pi, True, "", 8
    )
    grant = lab.broker.requests.decide(request.id, pi, True, hours=5)
    assert (grant.state, grant.decided_by, grant.hours) == ("approved", "noether", 5.0)
    assert lab.start("ada", "board", groups=["vision"]).request_id == request.id
    kinds = [kind for kind in lab.kinds() if kind.startswith("request.")]
    assert kinds == ["request.created", "request.seconded", "request.approved"]


def test_one_of_two_denies(lab: Lab) -> None:
    request = ask(lab, "board")
    lab.broker.requests.decide(request.id, PEOPLE["pi"], True)
    assert lab.broker.requests.decide(request.id, PEOPLE["pi"], False).state == "denied"


def test_of_many_first_approvers_at_once_two_decide(lab: Lab) -> None:
    request = ask(lab, "board")
    people = [Person(f"pi{n}", frozenset({"pi"})) for n in range(6)]

    def decide(by: Person) -> str:
        try:
            return lab.broker.requests.decide(request.id, by, True).state
        except Refusal as refusal:
            return refusal.reason

    with ThreadPoolExecutor(6) as pool:
        states = sorted(pool.map(decide, people))
    assert states == ["approved", *["conflict"] * 4, "pending"]
    found = lab.broker.requests.get(request.id)
    assert found.first_by != found.decided_by


def test_a_grant_for_a_coming_time_begins_then(lab: Lab) -> None:
    begin = START + timedelta(hours=40)
    # The same moment, told in another zone.
    there = begin.astimezone(timezone(timedelta(hours=5, minutes=30)))
    request = ask(lab, "once", starts_at=there)
    grant = lab.broker.requests.decide(request.id, PEOPLE["admin"], True)
    assert (grant.valid_from, grant.valid_until) == (begin, begin + timedelta(hours=10))
    sentence = refused("approval", lab.start, "ada", "once")
    assert "begins Wed 25 Nov 2026 01:00 UTC" in sentence
    lab.clock.pass_time(hours=41)
    lab.report(card(0, (("3g.20gb", 0), ("1g.5gb", 4))))
    lease = lab.start("ada", "once")
    assert (lease.request_id, lease.ends_at) == (grant.id, begin + timedelta(hours=10))


def test_a_beginning_that_is_over_at_the_decision_is_now(lab: Lab) -> None:
    request = ask(lab, starts_at=START + timedelta(hours=2))
    lab.clock.pass_time(hours=5)
    grant = lab.broker.requests.decide(request.id, PEOPLE["admin"], True)
    assert (grant.valid_from, grant.valid_until) == (
        lab.clock(),
        lab.clock() + timedelta(hours=10),
    )


@pytest.mark.parametrize(
    "begin",
    [
        datetime(2026, 11, 24, 9, 0),
        START - timedelta(days=1),
        START + timedelta(days=181),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
        "2026-11-24T09:00:00Z",
        7,
    ],
)
def test_beginnings_that_make_no_sense_are_refused(lab: Lab, begin: Any) -> None:
    before = lab.stored()
    assert "The start time is" in refused("options", ask, lab, starts_at=begin)
    assert lab.stored() == before


def test_a_grant_is_used_up_by_its_starts(lab: Lab) -> None:
    lab.grant("ada", "once")
    for number in range(2):
        lease = lab.start("ada", "once", attempt=f"a{number}")
        lab.broker.leases.activate(lease.attempt)
        lab.broker.leases.activate(lease.attempt)
        assert lab.broker.requests.find()[0].uses == number + 1
        lab.stop(lease)
    assert lab.broker.requests.find()[0].state == "used"
    assert "request it first" in refused("approval", lab.start, "ada", "once")
    assert lab.kinds().count("request.used") == 1


def test_a_start_that_fails_uses_nothing_up(lab: Lab) -> None:
    lab.grant("ada", "once")
    for _ in range(3):
        lease = lab.start("ada", "once")
        lab.broker.leases.cancel(lease.attempt, "it failed")
        lab.broker.leases.confirm_empty(lease.id)
    assert (lab.broker.requests.find()[0].uses, lab.broker.requests.find()[0].state) == (
        0,
        "approved",
    )


def test_a_revoked_grant_ends_what_runs_on_it_after_a_warning(lab: Lab) -> None:
    grant = lab.grant("ada", "once", hours=20)
    lease = lab.start("ada", "once")
    lab.broker.leases.activate(lease.attempt)
    other = lab.start("grace", "small") if lab.broker.tiers.of(ADA)[0].free else None
    root = PEOPLE["admin"]
    assert "expected minutes" in refused(
        "options", lab.broker.requests.revoke, grant.id, root, "x", -1
    )
    assert "expected minutes" in refused(
        "options", lab.broker.requests.revoke, grant.id, root, "x", float("nan")
    )
    assert "is empty" in refused("options", lab.broker.requests.revoke, grant.id, root, " ")
    request, leases = lab.broker.requests.revoke(grant.id, root, "the fan is dying", 30)
    assert (request.state, request.decision_reason) == ("cancelled", "the fan is dying")
    # Not until when it was granted once.
    assert request.valid_until == START + timedelta(minutes=30)
    assert [each.ends_at for each in leases] == [START + timedelta(minutes=30)]
    assert lab.broker.leases.get(lease.id).state == "active"
    if other is not None:
        assert lab.broker.leases.get(other.id).ends_at == other.ends_at
    refused("approval", lab.start, "ada", "once", "second")
    # Once more only to end it sooner.
    refused("conflict", lab.broker.requests.revoke, grant.id, root, "again", 30)
    request, leases = lab.broker.requests.revoke(grant.id, root, "it smokes", 1)
    assert leases[0].ends_at == request.valid_until == START + timedelta(minutes=1)


@pytest.mark.parametrize("by", [ADA, PEOPLE["admin"]])
def test_a_grant_that_is_taken_back_says_by_whom_and_until_when_it_was_one(
    lab: Lab, by: Person
) -> None:
    grant = lab.grant("ada", "once", hours=20)
    lab.clock.pass_time(hours=1)
    back = lab.broker.requests.cancel(grant.id, by)
    assert (back.decided_by, back.decided_at, back.valid_until) == (by.name, *[lab.clock.now] * 2)
    lab.report()
    used = lab.grant("ada", "once", hours=20)
    lease = lab.start("ada", "once")
    lab.broker.leases.activate(lease.attempt)
    back = lab.broker.requests.cancel(used.id, by)
    assert (back.decided_by, back.valid_until) == (by.name, lease.ends_at)
    asked = ask(lab)
    assert lab.broker.requests.cancel(asked.id, by).valid_until is None


@pytest.mark.parametrize("hours", [0, 1])
def test_a_revoked_grant_that_is_not_in_use_is_over_at_once(lab: Lab, hours: int) -> None:
    grant = lab.grant("ada", "once", hours=20)
    lab.clock.pass_time(hours=hours)
    request, leases = lab.broker.requests.revoke(grant.id, PEOPLE["admin"], "x", 30)
    assert (request.valid_until, leases) == (lab.clock.now, ())


@pytest.mark.parametrize("minutes", [0, 30])
def test_what_a_revocation_ends_says_who_did_it_and_why(lab: Lab, minutes: int) -> None:
    grant = lab.grant("ada", "once", hours=20)
    lease = lab.start("ada", "once")
    lab.broker.leases.activate(lease.attempt)
    lab.broker.requests.revoke(grant.id, PEOPLE["admin"], "the fan is dying", minutes)
    (standing,) = lab.broker.sessions.standings("ada")
    why = f"its grant was revoked by {PEOPLE['admin'].name}: the fan is dying"
    assert why in standing.verdict.why
    lab.clock.pass_time(minutes=minutes)
    ended = lab.broker.sessions.end_over(lease.id)
    assert ended is not None
    assert ended.state == "releasing"
    assert why in ended.end_reason
    (event,) = (each for each in lab.broker.events.find() if each.kind == "lease.releasing")
    assert why in event.detail["why"]


def test_what_ends_before_a_revocation_does_so_for_its_own_reason(lab: Lab) -> None:
    grant = lab.grant("ada", "once", hours=20)
    lease = lab.start("ada", "once")
    lab.broker.leases.activate(lease.attempt)
    lab.broker.requests.revoke(grant.id, PEOPLE["admin"], "the fan is dying", 30)
    lab.broker.leases.release_server("ada", "", "the server stopped", "hub")
    assert lab.broker.leases.get(lease.id).end_reason == "the server stopped"


@pytest.mark.parametrize("by", [ADA, PEOPLE["admin"]])
def test_what_was_given_or_taken_back_can_be_revoked_while_it_runs(lab: Lab, by: Person) -> None:
    grant = lab.grant("ada", "once", hours=20)
    lease = lab.start("ada", "once")
    lab.broker.leases.activate(lease.attempt)
    lab.broker.requests.cancel(grant.id, by)
    _, leases = lab.broker.requests.revoke(grant.id, PEOPLE["pi"], "a fire", 5)
    assert [each.ends_at for each in leases] == [START + timedelta(minutes=5)]
    lab.stop(lease)
    refused("conflict", lab.broker.requests.revoke, grant.id, PEOPLE["pi"], "again", 1)


def test_an_end_that_is_sooner_stays(lab: Lab) -> None:
    grant = lab.grant("ada", "once", hours=1)
    lease = lab.start("ada", "once")
    _, leases = lab.broker.requests.revoke(grant.id, PEOPLE["admin"], "x", 120)
    assert leases == ()
    assert lab.broker.leases.get(lease.id).ends_at == lease.ends_at


def test_reminders_come_once(lab: Lab) -> None:
    ask(lab)
    grant = lab.grant("ada", "once", hours=30)
    assert lab.broker.requests.remind() == ()
    lab.clock.pass_time(hours=24)
    assert [request.state for request in lab.broker.requests.remind()] == ["pending"]
    lab.clock.pass_time(hours=5)
    assert [request.id for request in lab.broker.requests.remind()] == [grant.id]
    assert lab.broker.requests.remind() == ()
    kinds = lab.kinds()
    assert (kinds.count("request.reminder"), kinds.count("request.ending")) == (1, 1)


# -- drafts ---------------------------------------------------------------------------------------


def test_a_draft_is_kept_as_it_was_typed_and_checked_when_it_is_filed(lab: Lab) -> None:
    draft = lab.broker.drafts.save(ADA, tier="card", hours="ten", reason="a run")
    assert lab.broker.requests.find() == ()
    assert lab.broker.drafts.of(LEE) == ()
    assert "The hours are 'ten'" in refused("options", lab.broker.drafts.file, ADA, draft.id)
    assert lab.broker.drafts.of(ADA) == (draft,)
    lab.broker.drafts.save(
        ADA,
        tier="card",
        hours="10",
        reason="a run",
        starts_at="2026-11-24T09:00",
        draft_id=draft.id,
    )
    request = lab.broker.drafts.file(ADA, draft.id)
    assert (request.state, request.hours) == ("pending", 10.0)
    assert request.starts_at == datetime(2026, 11, 24, 9, 0, tzinfo=timezone.utc)
    assert lab.broker.drafts.of(ADA) == ()
    assert "You have no draft" in refused("not-found", lab.broker.drafts.file, ADA, draft.id)


@pytest.mark.parametrize("number", [0, -1, 99, 2**70])
def test_a_draft_is_its_users_alone(lab: Lab, number: int) -> None:
    draft = lab.broker.drafts.save(ADA, reason="secret")
    for person in (LEE, PEOPLE["admin"], PEOPLE["pi"]):
        for use in (lab.broker.drafts.file, lab.broker.drafts.drop):
            assert "no draft" in refused("not-found", use, person, draft.id)
        before = lab.broker.drafts.of(ADA)
        refused(
            "not-found", lambda person=person: lab.broker.drafts.save(person, draft_id=draft.id)
        )
        assert lab.broker.drafts.of(ADA) == before
    refused("not-found", lab.broker.drafts.drop, ADA, number)
    assert lab.broker.drafts.drop(ADA, draft.id).reason == "secret"


def test_drafts_are_few_and_go_with_their_user(lab: Lab) -> None:
    for _ in range(20):
        lab.broker.drafts.save(ADA)
    assert "20 drafts" in refused("conflict", lab.broker.drafts.save, ADA)
    lab.broker.users.rename("ada", "lovelace")
    assert len(lab.broker.drafts.of(Person("lovelace"))) == 20
    lab.broker.users.forget("lovelace")
    assert lab.broker.drafts.of(Person("lovelace")) == ()


# -- cards for a coming time ----------------------------------------------------------------------


def whole_lab(make_lab: Callable[..., Lab], cards: int = 2) -> Lab:
    tiers = [
        {"name": "small", "profile": "1g.5gb", "max_hours": 8},
        {"name": "card", "profile": "whole", "approval": True, "max_hours": 12},
    ]
    lab = make_lab(tiers=tiers, approvers=APPROVERS)
    lab.report(*(card(index) for index in range(cards)))
    return lab


def reserved(lab: Lab) -> dict[str, int]:
    return {c.uuid: c.reserved_for for c in lab.broker.cards.find() if c.reserved_for is not None}


def test_a_card_is_kept_from_when_new_work_might_still_run_at_the_beginning(
    make_lab: Callable[..., Lab],
) -> None:
    lab = whole_lab(make_lab, cards=1)
    begin = START + timedelta(hours=20)
    grant = lab.broker.requests.create(ADA, "card", 5, "x", begin)
    lab.broker.requests.decide(grant.id, PEOPLE["admin"], True)
    lab.start("grace")
    assert lab.broker.reservations.keep() == ()
    lab.clock.pass_time(hours=11, minutes=59)
    lab.report(card(0))
    assert lab.broker.reservations.keep() == ()
    lab.start("linus")
    lab.clock.pass_time(minutes=1)
    assert lab.broker.reservations.keep() == ("GPU-0",)
    assert reserved(lab) == {"GPU-0": grant.id}
    refused("capacity", lab.start, "eve")
    # Nobody who works there is ended for it, and asking again changes nothing.
    assert {lease.state for lease in lab.broker.leases.find()} == {"pending"}
    before = lab.stored()
    assert lab.broker.reservations.keep() == ("GPU-0",)
    assert lab.stored() == before


def test_an_idle_card_is_kept_first_and_until_some_time_after_the_beginning(
    make_lab: Callable[..., Lab],
) -> None:
    lab = whole_lab(make_lab)
    lease = lab.start("grace")
    idle = "GPU-1" if lease.card_uuid == "GPU-0" else "GPU-0"
    begin = START + timedelta(hours=6)
    grant = lab.broker.requests.create(ADA, "card", 5, "x", begin)
    lab.broker.requests.decide(grant.id, PEOPLE["admin"], True)
    assert lab.broker.reservations.keep() == (idle,)
    lab.broker.reservations.look_after()
    (kept,) = (c for c in lab.broker.cards.find() if c.uuid == idle)
    assert kept.reserved_until == begin + timedelta(minutes=30)
    lab.clock.pass_time(hours=6)
    lab.report(card(0), card(1))
    lab.broker.reservations.look_after()
    assert lab.start("ada", "card").card_uuid == idle


def test_two_grants_never_get_one_card(make_lab: Callable[..., Lab]) -> None:
    lab = whole_lab(make_lab)
    for hours in (4, 5, 6):
        begin = START + timedelta(hours=hours)
        request = lab.broker.requests.create(ADA, "card", 5, "x", begin)
        lab.broker.requests.decide(request.id, PEOPLE["admin"], True)
    kept = lab.broker.reservations.keep()
    assert sorted(kept) == ["GPU-0", "GPU-1"]
    assert len(set(reserved(lab).values())) == 2
