"""A lease from before the launch until the slice is proven empty, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, START, Lab, card


def refused(reason: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(Refusal) as caught:
        call(*args, **kwargs)
    assert caught.value.reason == reason
    return str(caught.value)


def test_a_lease_goes_from_pending_over_active_and_releasing_to_released(lab: Lab) -> None:
    lease = lab.start("ada", "small")
    assert (lease.state, lease.profile, lease.slice_uuid) == ("pending", "1g.5gb", "MIG-0-1g.5gb-0")
    assert (lease.memory_mib, lease.node, lease.card_uuid) == (4864, "n1", "GPU-0")
    assert (lease.since, lease.deadline) == (START, START + timedelta(seconds=300))
    active = lab.broker.leases.activate(lease.attempt)
    assert active is not None
    assert (active.state, active.deadline) == ("active", None)
    lab.clock.pass_time(hours=2)
    (releasing,) = lab.broker.leases.release_server("ada", "", "stopped by its user", "ada")
    assert (releasing.state, releasing.end_reason) == ("releasing", "stopped by its user")
    assert (releasing.releasing_at, releasing.ended_at) == (lab.clock.now, None)
    lab.clock.pass_time(seconds=3)
    released = lab.broker.leases.confirm_empty(lease.id)
    assert (released.state, released.end_reason) == ("released", "stopped by its user")
    assert released.ended_at == lab.clock.now
    assert lab.broker.leases.find() == ()
    assert lab.broker.leases.find(include_past=True) == (released,)
    assert lab.broker.leases.get(lease.id) == released


def test_each_step_is_an_event_with_who_when_and_why(lab: Lab) -> None:
    seen = lab.broker.events.find()[-1].id
    lease = lab.start("ada", server="exp")
    lab.broker.leases.activate(lease.attempt)
    lab.clock.pass_time(minutes=1)
    lab.broker.leases.release(lease.id, "needed for the course", "root")
    lab.broker.leases.note_waiting(lease.id, "process 42 still runs")
    lab.broker.leases.confirm_empty(lease.id)
    events = lab.broker.events.find(after_id=seen)
    assert [(e.kind, e.actor, e.user, e.lease_id) for e in events] == [
        ("lease.pending", "ada", "ada", lease.id),
        ("lease.active", "ada", "ada", lease.id),
        ("lease.releasing", "root", "ada", lease.id),
        ("lease.waiting", "migspawner", "ada", lease.id),
        ("lease.released", "migspawner", "ada", lease.id),
    ]
    assert [e.at for e in events[:3]] == [START, START, START + timedelta(minutes=1)]
    assert events[2].detail["why"] == "needed for the course"
    assert events[3].detail["waiting_for"] == "process 42 still runs"
    assert events[4].detail["why"] == "needed for the course"
    assert {e.card_uuid for e in events} == {lease.card_uuid}
    assert lab.broker.events.find(after_id=seen, limit=2) == events[:2]


def test_a_slice_is_free_only_when_it_was_proven_empty(lab: Lab) -> None:
    place = (0, "1g.5gb", 0)
    lease = lab.start()
    for step in (
        lambda: None,
        lambda: lab.broker.leases.activate(lease.attempt),
        lambda: lab.broker.leases.release(lease.id, "over", "ada"),
        lambda: lab.broker.leases.note_waiting(lease.id, "a process"),
    ):
        step()
        assert lab.states()[place] == "leased"
    lab.broker.leases.confirm_empty(lease.id)
    assert lab.states()[place] == "free"


def test_the_same_attempt_gets_the_same_lease(lab: Lab) -> None:
    lease = lab.start(attempt="a")
    assert lab.start(attempt="a") == lease
    active = lab.broker.leases.activate("a")
    assert lab.start(attempt="a") == active
    assert lab.broker.leases.of_attempt("a") == active
    assert len(lab.broker.leases.find()) == 1


@pytest.mark.parametrize(
    "other",
    [{"user": "grace"}, {"server": "other"}, {"tier": "medium"}],
)
def test_an_attempt_belongs_to_one_server_and_tier(lab: Lab, other: dict[str, str]) -> None:
    lab.report(card(0), card(1, MIXED))
    lease = lab.start(attempt="a")
    refused("conflict", lab.start, **{"attempt": "a", **other})
    assert lab.broker.leases.find() == (lease,)


def test_an_attempt_that_is_over_gets_nothing_any_more(lab: Lab) -> None:
    lease = lab.start(attempt="a")
    lab.broker.leases.activate(lease.attempt)
    lab.broker.leases.release(lease.id, "taken back", "root")
    assert "taken back" in refused("conflict", lab.start, attempt="a")
    lab.broker.leases.confirm_empty(lease.id)
    assert "taken back" in refused("conflict", lab.start, attempt="a")
    assert lab.broker.leases.find() == ()


def test_a_cancelled_attempt_is_refused_even_when_it_comes_late(lab: Lab) -> None:
    assert lab.broker.leases.cancel("a", "the user left") is None
    assert lab.broker.leases.cancel("a", "again") is None
    assert "the user left" in refused("conflict", lab.start, attempt="a")
    refused("conflict", lab.broker.leases.acquire, Person("ada"), "", "cpu", "a")
    assert lab.broker.leases.find() == ()


def test_cancelling_an_attempt_ends_the_lease_it_holds(lab: Lab) -> None:
    lease = lab.start(attempt="a")
    ended = lab.broker.leases.cancel("a", "the user left")
    assert ended is not None
    assert (ended.id, ended.state, ended.end_reason) == (lease.id, "releasing", "the user left")
    again = lab.broker.leases.cancel("a", "another reason")
    assert again == ended
    assert lab.broker.leases.confirm_empty(lease.id).end_reason == "the user left"
    assert lab.broker.leases.activate("a") is None
    refused("conflict", lab.start, attempt="a")


def test_cancelled_attempts_are_forgotten_when_no_thread_can_wait_any_more(lab: Lab) -> None:
    lab.broker.leases.cancel("a", "left")
    lab.broker.leases.forget_cancelled()
    refused("conflict", lab.start, attempt="a")
    lab.clock.pass_time(days=3)
    lab.report()
    lab.broker.leases.forget_cancelled()
    assert lab.start(attempt="a").state == "pending"


def test_activating_needs_a_lease_that_has_not_begun_to_end(lab: Lab) -> None:
    assert lab.broker.leases.activate("unknown") is None
    lease = lab.start(attempt="a")
    first = lab.broker.leases.activate("a")
    assert lab.broker.leases.activate("a") == first
    assert lab.kinds().count("lease.active") == 1
    lab.broker.leases.release(lease.id, "over", "ada")
    assert lab.broker.leases.activate("a") is None


def test_renewing_gives_a_pending_lease_its_full_time_again(lab: Lab) -> None:
    lab.start(attempt="a")
    lab.clock.pass_time(seconds=299)
    renewed = lab.broker.leases.renew("a")
    assert renewed is not None
    assert renewed.deadline == lab.clock.now + timedelta(seconds=300)
    active = lab.broker.leases.activate("a")
    assert lab.broker.leases.renew("a") == active
    lab.broker.leases.cancel("a", "over")
    assert lab.broker.leases.renew("a") is None
    assert lab.broker.leases.renew("unknown") is None


def test_a_start_may_say_how_long_it_takes(lab: Lab) -> None:
    lease = lab.broker.leases.acquire(Person("ada"), "", "small", "a", pending_seconds=900)
    assert lease is not None
    assert lease.deadline == START + timedelta(seconds=900)


def test_what_a_crashed_start_left_begins_to_end_with_the_next_one(lab: Lab) -> None:
    old = lab.start("ada")
    lab.broker.leases.activate(old.attempt)
    other = lab.start("ada", server="other")
    new = lab.start("ada")
    states = {lease.id: lease.state for lease in lab.broker.leases.find()}
    assert states == {old.id: "releasing", other.id: "pending", new.id: "pending"}
    assert new.slice_id != old.slice_id
    assert "new start" in lab.broker.leases.get(old.id).end_reason


def test_what_a_crashed_start_left_begins_to_end_even_when_the_next_one_is_refused(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0, [("1g.5gb", 0)]))
    old = lab.start("ada")
    refused("capacity", lab.start, "ada")
    assert lab.broker.leases.get(old.id).state == "releasing"
    lab.broker.leases.confirm_empty(old.id)
    assert lab.start("ada").slice_id == old.slice_id


def test_a_tier_without_gpu_takes_no_lease_but_ends_what_is_left(lab: Lab) -> None:
    old = lab.start("ada")
    assert lab.broker.leases.acquire(Person("ada"), "", "cpu", "b") is None
    assert lab.broker.leases.get(old.id).state == "releasing"
    assert len(lab.broker.leases.find()) == 1


def test_releasing_a_server_leaves_other_servers_and_other_people_alone(lab: Lab) -> None:
    mine, named = lab.start("ada"), lab.start("ada", server="named")
    theirs = lab.start("grace")
    assert [x.id for x in lab.broker.leases.release_server("ada", "", "over", "ada")] == [mine.id]
    assert lab.broker.leases.release_server("ada", "", "over", "ada") == ()
    assert lab.broker.leases.release_server("nobody", "", "over", "ada") == ()
    held = {lease.id for lease in lab.broker.leases.find(states=("pending", "active"))}
    assert held == {named.id, theirs.id}


def test_a_release_that_comes_late_leaves_the_next_start_alone(lab: Lab) -> None:
    lab.start("ada")
    stopped_at = lab.clock.now
    lab.clock.pass_time(seconds=1)
    new = lab.start("ada")
    assert lab.broker.leases.release_server("ada", "", "late", "hub", taken_before=stopped_at) == ()
    assert lab.broker.leases.get(new.id).state == "pending"


def test_releasing_a_lease_twice_is_refused_and_keeps_the_first_reason(lab: Lab) -> None:
    lease = lab.start()
    lab.broker.leases.activate(lease.attempt)
    lab.broker.leases.release(lease.id, "first", "root")
    said = refused("conflict", lab.broker.leases.release, lease.id, "second", "root")
    assert f"Lease {lease.id} of ada already ended at Mon 23 Nov 2026 09:00 UTC" in said
    assert "(first)" in said
    lab.broker.leases.confirm_empty(lease.id)
    refused("conflict", lab.broker.leases.release, lease.id, "third", "root")
    assert lab.broker.leases.get(lease.id).end_reason == "first"


def test_a_lease_whose_server_is_still_starting_is_not_released_by_hand(lab: Lab) -> None:
    """Its slice would be empty, and lent again, just before the launch."""
    lease = lab.start()
    said = refused("conflict", lab.broker.leases.release, lease.id, "over", "root")
    assert "still starting" in said
    assert lab.broker.leases.get(lease.id).state == "pending"
    lab.clock.pass_time(seconds=lab.broker.settings.pending_seconds)
    assert lab.broker.leases.release(lease.id, "over", "root").state == "releasing"


@pytest.mark.parametrize("lease_id", [0, -1, 4711, 2**63, 10**40])
def test_an_unknown_lease_is_not_found(lab: Lab, lease_id: int) -> None:
    refused("not-found", lab.broker.leases.get, lease_id)
    refused("not-found", lab.broker.leases.release, lease_id, "why", "root")
    refused("not-found", lab.broker.leases.confirm_empty, lease_id)
    lab.broker.leases.note_waiting(lease_id, "nothing")


def test_a_slice_under_a_running_server_cannot_be_confirmed_empty(lab: Lab) -> None:
    lease = lab.start()
    refused("conflict", lab.broker.leases.confirm_empty, lease.id)
    lab.broker.leases.activate(lease.attempt)
    refused("conflict", lab.broker.leases.confirm_empty, lease.id)
    assert lab.broker.leases.get(lease.id).state == "active"


def test_confirming_empty_twice_frees_the_slice_once(lab: Lab) -> None:
    lease = lab.start("ada")
    released = lab.stop(lease)
    again = lab.start("grace")
    assert again.slice_id == lease.slice_id
    assert lab.broker.leases.confirm_empty(lease.id) == released
    assert lab.states()[(0, "1g.5gb", 0)] == "leased"


def test_why_a_slice_is_not_empty_yet_is_told_until_it_is(lab: Lab) -> None:
    lease = lab.start()
    lab.broker.leases.note_waiting(lease.id, "too early")
    assert lab.broker.leases.get(lease.id).waiting_for == ""
    lab.broker.leases.activate(lease.attempt)
    lab.broker.leases.release(lease.id, "over", "ada")
    before = len(lab.broker.events.find())
    for _ in range(3):
        lab.broker.leases.note_waiting(lease.id, "process 42 still runs")
    assert lab.broker.leases.get(lease.id).waiting_for == "process 42 still runs"
    assert len(lab.broker.events.find()) == before + 1
    lab.broker.leases.confirm_empty(lease.id)
    assert lab.broker.leases.get(lease.id).waiting_for == ""


def test_leases_can_be_listed_by_user_server_node_and_state(lab: Lab) -> None:
    a = lab.start("ada")
    b = lab.start("ada", server="b")
    c = lab.stop(lab.start("grace"))
    lab.broker.leases.activate(a.attempt)
    ids = lambda **asked: [x.id for x in lab.broker.leases.find(**asked)]  # noqa: E731
    assert ids() == [a.id, b.id]
    assert ids(include_past=True) == [a.id, b.id, c.id]
    assert ids(user="grace") == []
    assert ids(user="grace", include_past=True) == [c.id]
    assert ids(user="ada", server="b") == [b.id]
    assert ids(server="") == [a.id]
    assert ids(node="n1") == [a.id, b.id]
    assert ids(node="n2") == []
    assert ids(states=("active",)) == [a.id]
    assert ids(states=("active", "released")) == [a.id, c.id]
    assert ids(states=()) == []


def test_a_tier_with_a_time_limit_says_when_the_lease_ends(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0, MIXED))
    assert lab.start("ada", "large", groups=["vision"]).ends_at == START + timedelta(hours=12)
    assert lab.start("grace", "small").ends_at is None


STRANGE = [
    "<script>alert(1)</script>",
    "a\tb\r\n\x1b[31m\x7f",
    "Zoë 😀 ‮abc",
    "'; --",
    "%s {x}",
    "\\",
]


@pytest.mark.parametrize("text", STRANGE)
def test_strange_text_is_kept_as_it_came(lab: Lab, text: str) -> None:
    lease = lab.start(text, server=text, attempt=text)
    lab.broker.leases.release_server(text, text, text, text)
    lab.broker.leases.note_waiting(lease.id, text)
    stored = lab.broker.leases.get(lease.id)
    assert (stored.user, stored.server, stored.attempt) == (text, text, text)
    assert (stored.end_reason, stored.waiting_for) == (text, text)
    (event,) = (e for e in lab.broker.events.find() if e.detail.get("why") == text)
    assert (event.user, event.actor, event.detail["server"]) == (text, text, text)


@pytest.mark.parametrize("text", ["nul\x00", "half \ud800 a character", "x" * 300])
def test_text_that_cannot_be_stored_is_refused_in_a_sentence(lab: Lab, text: str) -> None:
    before = lab.stored()
    broker = lab.broker
    refused("options", lab.start, text)
    refused("options", lab.start, server=text)
    refused("options", lab.start, attempt=text)
    refused("options", lab.start, node=text)
    refused("options", lab.start, tier=text)
    refused("options", broker.leases.cancel, text, "why")
    for reason in (text * 100, "nul\x00"):
        refused("options", broker.leases.release_server, "ada", "", reason, "ada")
        refused("options", broker.leases.release, 1, reason, "ada")
    assert lab.stored() == before


def test_questions_about_text_that_cannot_be_stored_are_answered_with_nothing(lab: Lab) -> None:
    for text in ("nul\x00", "half \ud800"):
        assert lab.broker.leases.of_attempt(text) is None
        assert lab.broker.leases.activate(text) is None
        assert lab.broker.leases.renew(text) is None
        assert lab.broker.leases.find(user=text) == ()
        assert lab.broker.leases.release_server(text, "", "why", "root") == ()
        assert lab.broker.requests.find(user=text) == ()
        assert lab.broker.cards.find(node=text) == ()


def test_waiting_helps_only_while_a_slice_of_the_tier_is_on_its_way_back(lab: Lab) -> None:
    lease = lab.start()
    assert not lab.broker.leases.being_returned("small")
    lab.broker.leases.activate(lease.attempt)
    lab.broker.leases.release(lease.id, "over", "ada")
    assert lab.broker.leases.being_returned("small")
    assert lab.broker.leases.being_returned("card")
    for tier in ("medium", "cpu", "no such tier"):
        assert not lab.broker.leases.being_returned(tier)
    lab.broker.leases.confirm_empty(lease.id)
    assert not lab.broker.leases.being_returned("small")
