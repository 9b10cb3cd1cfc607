"""Two hubs on one lease database: neither touches what is the other's, and names have one owner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import START, Lab


@pytest.fixture
def other(lab: Lab) -> Iterator[Lab]:
    """Another hub on the same database, at the same time."""
    lab.report()
    found = Lab(lab.url, clock=lab.clock, hub="physics")
    yield found
    found.close()


def claimed(lab: Lab, home: str, *, adopt: bool = False) -> str:
    """``""``, or why it was refused."""
    try:
        lab.broker.hubs.claim(home, adopt=adopt)
    except Refusal as refusal:
        return f"{refusal.reason}: {refusal}"
    return ""


def test_servers_of_one_name_at_two_hubs_are_two_servers(lab: Lab, other: Lab) -> None:
    here, there = lab.start("ada"), other.start("ada")
    assert here.slice_uuid != there.slice_uuid
    assert (here.hub, there.hub) == ("hub", "physics")
    assert lab.broker.leases.find() == (here, there)
    assert lab.broker.leases.find(hub="hub") == (here,)
    assert other.broker.leases.find(hub="physics") == (there,)


def test_a_server_that_ends_ends_no_lease_of_another_hub(lab: Lab, other: Lab) -> None:
    here, there = lab.start("ada"), other.start("ada")
    assert [
        lease.id for lease in lab.broker.leases.release_server("ada", "", "stopped", "hub")
    ] == [here.id]
    assert lab.broker.leases.get(there.id).state == "pending"
    # A new start ends what an earlier one of the same hub has left, and nothing else.
    again = other.start("ada")
    states = {lease.id: lease.state for lease in lab.broker.leases.find()}
    assert states == {here.id: "releasing", there.id: "releasing", again.id: "pending"}


def test_an_attempt_of_one_hub_is_none_of_the_other(lab: Lab, other: Lab) -> None:
    lease = lab.start("ada")
    with pytest.raises(Refusal, match="another server") as caught:
        other.start("ada", attempt=lease.attempt)
    assert caught.value.reason == "conflict"


def test_a_quota_is_a_person_s_at_all_hubs(make_lab: Callable[..., Lab]) -> None:
    quotas = {"default": {"live": 1}}
    lab = make_lab(quotas=quotas)
    lab.report()
    other = Lab(lab.url, clock=lab.clock, hub="physics", quotas=quotas)
    lab.start("ada")
    with pytest.raises(Refusal) as caught:
        other.start("ada")
    assert caught.value.reason == "quota"
    other.close()


def test_a_name_belongs_to_one_home(lab: Lab) -> None:
    assert claimed(lab, "n1:/etc/jupyterhub") == ""
    assert claimed(lab, "n1:/etc/jupyterhub") == ""
    why = claimed(lab, "n2:/etc/jupyterhub")
    assert why.startswith("conflict: ")
    assert "'n1:/etc/jupyterhub'" in why
    assert "c.MigBroker.hub" in why
    assert "db adopt" in why
    (hub,) = lab.broker.hubs.find()
    assert (hub.name, hub.home, hub.seen_at) == ("hub", "n1:/etc/jupyterhub", START)
    assert lab.kinds().count("hub.claimed") == 1


def test_two_hubs_with_names_of_their_own_do_not_mind_each_other(lab: Lab, other: Lab) -> None:
    assert claimed(lab, "here") == claimed(other, "there") == ""
    assert [hub.name for hub in lab.broker.hubs.find()] == ["hub", "physics"]


def test_a_silent_hub_keeps_its_name_while_anything_of_it_lives(lab: Lab) -> None:
    lab.report()
    assert claimed(lab, "old place") == ""
    lease = lab.start("ada")
    lab.clock.pass_time(days=30)
    assert "1 live lease." in claimed(lab, "new place")
    lab.report()
    lab.stop(lease)
    assert claimed(lab, "new place") == ""


def test_a_hub_with_nothing_live_loses_its_name_only_when_it_is_silent(lab: Lab) -> None:
    assert claimed(lab, "old place") == ""
    lab.clock.pass_time(seconds=119)
    assert "holds 0 live leases" in claimed(lab, "new place")
    lab.clock.pass_time(seconds=1)
    assert claimed(lab, "new place") == ""
    assert "'new place'" in claimed(lab, "old place")


def test_a_hub_that_has_moved_is_adopted_with_its_leases(lab: Lab) -> None:
    lab.report()
    assert claimed(lab, "old place") == ""
    lease = lab.start("ada")
    assert claimed(lab, "new place", adopt=True) == ""
    assert claimed(lab, "new place") == ""
    assert lab.broker.leases.find(hub="hub") == (lease,)
    assert "'new place'" in claimed(lab, "old place")


def test_a_hub_that_is_called_otherwise_takes_its_leases_and_requests_along(lab: Lab) -> None:
    lab.report()
    assert claimed(lab, "here") == ""
    lease = lab.start("ada")
    past = lab.stop(lab.start("grace"))
    grant = lab.grant("ada")
    renamed = Lab(lab.url, clock=lab.clock, hub="physics")
    assert claimed(renamed, "here") == ""
    assert [hub.name for hub in lab.broker.hubs.find()] == ["physics"]
    found = renamed.broker.leases.find(hub="physics", include_past=True)
    assert [each.id for each in found] == [lease.id, past.id]
    assert renamed.broker.requests.get(grant.id).hub == "physics"
    (event,) = (e for e in lab.broker.events.find() if e.kind == "hub.renamed")
    assert event.detail == {"hub": "physics", "old": "hub", "leases": 2, "requests": 1}
    renamed.close()


def test_what_is_there_from_before_hubs_had_names_goes_to_the_first_that_has_one(lab: Lab) -> None:
    lab.report()
    lease = lab.start("ada")
    first = Lab(lab.url, clock=lab.clock, hub="physics")
    second = Lab(lab.url, clock=lab.clock, hub="biology")
    assert claimed(first, "here") == claimed(second, "there") == ""
    assert [each.id for each in first.broker.leases.find(hub="physics")] == [lease.id]
    assert second.broker.leases.find(hub="biology") == ()
    first.close()
    second.close()


def test_a_deleted_user_of_one_hub_keeps_what_they_have_at_the_other(lab: Lab, other: Lab) -> None:
    here, there = lab.grant("ada"), other.grant("ada")
    assert lab.broker.users.forget("ada") == 1
    assert lab.broker.requests.get(here.id).state == "cancelled"
    assert lab.broker.requests.get(there.id).state == "approved"


def test_what_the_deleted_had_asked_for_is_not_for_who_gets_the_name(lab: Lab) -> None:
    lab.report()
    grant = lab.grant("ada")
    asked = lab.broker.requests.create(Person("ada"), "card", 1, "more")
    deleted = lab.clock()
    lab.clock.pass_time(minutes=1)
    # By the time that the database learns it, a new user has the name and has asked already.
    new = lab.broker.requests.create(Person("ada"), "card", 1, "mine")
    assert lab.broker.users.forget("ada", deleted) == 2
    states = {r.id: r.state for r in lab.broker.requests.find("ada")}
    assert states == {grant.id: "cancelled", asked.id: "cancelled", new.id: "pending"}
    with pytest.raises(Refusal) as caught:
        lab.start("ada", "card")
    assert caught.value.reason == "approval"
    assert lab.broker.users.forget("ada", deleted) == 0


def test_a_renamed_user_keeps_slice_grant_and_what_they_have_used(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(quotas={"default": {"gpu_hours_per_week": 2}})
    lab.report()
    grant = lab.grant("ada")
    past = lab.start("ada", server="old")
    lab.clock.pass_time(hours=13)
    lab.report()
    lab.stop(past)
    lease = lab.start("ada")
    assert lab.broker.users.rename("ada", "lovelace") == 3
    assert lab.broker.users.rename("ada", "lovelace") == 0
    assert [each.user for each in lab.broker.leases.find(include_past=True)] == ["lovelace"] * 2
    assert lab.broker.requests.get(grant.id).user == "lovelace"
    # 13 hours of a seventh are 1.9 GPU-hours: the next two hours are over the quota.
    lab.clock.pass_time(hours=2)
    lab.report()
    with pytest.raises(Refusal) as caught:
        lab.start("lovelace", server="more")
    assert caught.value.reason == "quota"
    assert [each.id for each in lab.broker.leases.release_server("lovelace", "", "x", "hub")] == [
        lease.id
    ]


def test_a_rename_that_is_told_late_leaves_the_name_s_next_owner_alone(lab: Lab) -> None:
    lab.report()
    first = lab.start("ada")
    renamed = lab.clock()
    lab.clock.pass_time(minutes=1)
    # The database was away when ada became lovelace; another user is ada now.
    second = lab.start("ada", server="b")
    assert lab.broker.users.rename("ada", "lovelace", renamed) == 1
    users = {lease.id: lease.user for lease in lab.broker.leases.find()}
    assert users == {first.id: "lovelace", second.id: "ada"}


def test_what_was_left_under_the_new_name_ends(lab: Lab) -> None:
    lab.report()
    left, lease = lab.start("lovelace"), lab.start("ada")
    assert lab.broker.users.rename("ada", "lovelace") == 1
    states = {each.id: (each.user, each.state) for each in lab.broker.leases.find()}
    assert states == {
        left.id: ("lovelace", "releasing"),
        lease.id: ("lovelace", "pending"),
    }


def test_a_renamed_server_s_lease_follows_while_it_ends(lab: Lab) -> None:
    lab.report()
    lease, other = lab.start("ada", server="old"), lab.start("ada", server="b")
    lab.broker.leases.release_server("ada", "old", "stopped", "hub")
    assert lab.broker.users.rename_server("ada", "old", "new") == 1
    assert [(each.id, each.server) for each in lab.broker.leases.find()] == [
        (lease.id, "new"),
        (other.id, "b"),
    ]
    (event,) = (e for e in lab.broker.events.find() if e.kind == "lease.renamed")
    assert (event.lease_id, event.detail["old"], event.detail["server"]) == (lease.id, "old", "new")
    assert lab.start("ada", server="new").id != lease.id


def test_a_younger_server_of_the_old_name_is_left_alone(lab: Lab) -> None:
    lab.report()
    renamed = lab.clock() - timedelta(seconds=1)
    lease = lab.start("ada", server="old")
    assert lab.broker.users.rename_server("ada", "old", "new", renamed) == 0
    assert lab.broker.leases.find() == (lease,)


@pytest.mark.parametrize("name", ["", " ", "x" * 256, "nul\0"])
def test_names_that_cannot_be_are_refused(lab: Lab, name: str) -> None:
    before = lab.stored()
    for call in (
        lambda: lab.broker.users.rename("ada", name),
        lambda: lab.broker.users.forget(name),
        lambda: lab.broker.hubs.claim(name * 4),
    ):
        with pytest.raises(Refusal) as caught:
            call()
        assert caught.value.reason == "options"
    assert lab.stored() == before


def test_a_rename_that_is_told_late_lets_the_new_start_be(lab: Lab) -> None:
    """The database was away at the rename; meanwhile the server was started under the new name."""
    lab.report()
    old = lab.start("ada")
    renamed = lab.clock()
    lab.clock.pass_time(seconds=5)
    new = lab.start("lovelace")
    assert lab.broker.users.rename("ada", "lovelace", renamed) == 1
    states = {lease.id: (lease.user, lease.state) for lease in lab.broker.leases.find()}
    assert states == {old.id: ("lovelace", "releasing"), new.id: ("lovelace", "pending")}


def test_what_was_asked_before_hubs_had_names_is_the_first_hub_s(
    make_lab: Callable[..., Lab],
) -> None:
    before = make_lab()
    before.report()
    grant = before.grant("ada")
    lab = make_lab(hub="physics")
    lab.broker.hubs.claim("n1:/etc/jupyterhub")
    assert lab.broker.requests.get(grant.id).hub == "physics"
    # The next one of that name does not inherit it.
    assert lab.broker.users.forget("ada") == 1


def test_a_name_is_not_adopted_over_a_server_that_both_hold(lab: Lab, other: Lab) -> None:
    for one in (lab, other):
        one.start("ada")
    lab.broker.hubs.claim("here")
    other.broker.hubs.claim("there")
    why = claimed(other, "here", adopt=True)
    assert why.startswith("conflict: The hubs 'hub' and 'physics' both hold a lease")
    for lease in other.broker.leases.find(hub="physics"):
        other.stop(lease)
    assert claimed(other, "here", adopt=True) == ""
    assert [lease.hub for lease in lab.broker.leases.find()] == ["physics"]
