"""Whole cards: only on a grant, only when nothing lives there, and back into their layout."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import A30, MIXED, QUARTERS, SEVENTHS, START, WHOLE, Lab, card
from tests.broker.test_lease_life import refused


def the_card(lab: Lab, uuid: str = "GPU-0") -> CardRow:
    (found,) = (c for c in lab.broker.cards.find() if c.uuid == uuid)
    return found


def test_a_whole_card_is_refused_without_a_grant(lab: Lab) -> None:
    assert "needs approval: request it" in refused("approval", lab.start, "ada", "card")
    request = lab.broker.requests.create(Person("ada"), "card", 5, "training")
    assert f"request {request.id} waits" in refused("approval", lab.start, "ada", "card")
    lab.broker.requests.decide(request.id, Person("root", admin=True), False)
    refused("approval", lab.start, "ada", "card")
    lab.grant("grace")
    refused("approval", lab.start, "ada", "card")
    assert lab.broker.leases.find() == ()


def test_a_whole_card_is_the_plain_profile_of_an_rtx_pro_6000(lab: Lab, tmp_path: Path) -> None:
    """Its driver also lists one with graphics, of the same size."""
    simulator.create_state(tmp_path / "rtx.json", cards=1, model="rtx pro 6000", layouts=[[]])
    nvml = Nvml(f"sim:{tmp_path / 'rtx.json'}")
    lab.broker.nodes.record_inventory("rtx", nvml.inventory())
    nvml.close()
    (found,) = (each for each in lab.broker.cards.find() if each.node == "rtx")
    assert found.whole == ("4g.96gb", 0)


def test_a_whole_card_is_targeted_cut_given_back_and_cut_back(lab: Lab) -> None:
    grant = lab.grant("ada", hours=10)
    lease = lab.start("ada", "card")
    assert (lease.profile, lease.start, lease.whole, lease.share) == ("7g.40gb", 0, True, 1.0)
    assert (lease.slice_uuid, lease.memory_mib, lease.request_id) == (None, 40192, grant.id)
    uuid, other = lease.card_uuid, "GPU-1" if lease.card_uuid == "GPU-0" else "GPU-0"
    index = int(uuid[-1])
    assert the_card(lab, uuid).target == WHOLE
    assert the_card(lab, other).target is None
    assert lab.states()[(index, "7g.40gb", 0)] == "leased"
    assert lab.states()[(index, "1g.5gb", 3)] == "draining"

    # The agent destroys the sevenths, then makes the whole one, and may look in between.
    cards = {0: card(0), 1: card(1)}
    for layout in (SEVENTHS[:3], (), WHOLE):
        cards[index] = card(index, layout)
        assert not lab.broker.layouts.finish_target(uuid)
        lab.report(*cards.values())
    assert lab.broker.layouts.finish_target(uuid)
    assert not lab.broker.layouts.finish_target(uuid)
    bound = lab.broker.leases.get(lease.id)
    assert bound.slice_uuid == f"MIG-{index}-7g.40gb-0"
    assert the_card(lab, uuid).target is None
    assert the_card(lab, uuid).layout == SEVENTHS
    assert {place for place in lab.states() if place[0] == index} == {(index, "7g.40gb", 0)}

    lab.stop(lease)
    assert the_card(lab, uuid).target == SEVENTHS
    assert lab.states()[(index, "7g.40gb", 0)] == "draining"
    cards[index] = card(index)
    lab.report(*cards.values())
    assert lab.broker.layouts.finish_target(uuid)
    assert lab.states() == {(i, name, s): "free" for i in (0, 1) for name, s in SEVENTHS}
    kinds = lab.kinds()
    assert (kinds.count("card.target"), kinds.count("card.cut")) == (2, 2)


def test_a_card_that_is_cut_whole_already_needs_no_cut(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0), card(1, WHOLE))
    lab.grant("ada")
    lease = lab.start("ada", "card")
    assert (lease.card_uuid, lease.slice_uuid) == ("GPU-1", "MIG-1-7g.40gb-0")
    assert the_card(lab, "GPU-1").target is None
    lab.stop(lease)
    assert the_card(lab, "GPU-1").target is None
    assert lab.states()[(1, "7g.40gb", 0)] == "free"


def test_nothing_is_given_out_on_a_card_that_is_about_to_be_cut(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0))
    lab.grant("ada")
    lease = lab.start("ada", "card")
    refused("capacity", lab.start, "grace", "small")
    lab.report(card(0, WHOLE))
    lab.broker.layouts.finish_target("GPU-0")
    lab.stop(lease)
    refused("capacity", lab.start, "grace", "small")
    lab.grant("linus")
    refused("capacity", lab.start, "linus", "card")
    lab.report(card(0))
    refused("capacity", lab.start, "grace", "small")
    lab.broker.layouts.finish_target("GPU-0")
    assert lab.start("grace", "small").profile == "1g.5gb"


def test_a_card_with_something_live_or_shut_on_it_is_not_given_out_whole(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0))
    lab.grant("ada")
    lease = lab.start("grace", "small")
    assert refused("capacity", lab.start, "ada", "card") == (
        "No card is free for tier card: the only card is in use or out of service. Card 0 of "
        "node n1 is being emptied for your grant 1: 1 person is still on it. Start again when "
        "it is empty: it is kept for you for 30 minutes. Free now: cpu."
    )
    lab.broker.leases.activate(lease.attempt)
    lab.broker.leases.release(lease.id, "over", "grace")
    refused("capacity", lab.start, "ada", "card")
    lab.broker.leases.confirm_empty(lease.id)
    lab.broker.slices.quarantine(lease.slice_id, "a process is left", "agent")
    refused("capacity", lab.start, "ada", "card")
    lab.broker.slices.unquarantine(lease.slice_id, "root")
    assert lab.start("ada", "card").whole


@pytest.mark.parametrize(
    "problem", [{"problem": "The card is lost."}, {"mig_enabled": False, "instances": ()}]
)
def test_a_card_with_a_problem_is_not_given_out(
    make_lab: Callable[..., Lab], problem: dict[str, Any]
) -> None:
    lab = make_lab()
    lab.report(card(0, **problem))
    lab.grant("ada")
    refused("capacity", lab.start, "ada", "card")
    refused("capacity", lab.start, "grace", "small")


def test_the_lease_ends_with_the_grant_or_the_tier_whichever_is_first(lab: Lab) -> None:
    lab.grant("ada", hours=5)
    lab.clock.pass_time(hours=1)
    lab.report()
    first = lab.start("ada", "card")
    assert first.ends_at == START + timedelta(hours=5)


def test_one_server_at_a_time_runs_on_a_grant(lab: Lab) -> None:
    lab.grant("ada")
    first = lab.start("ada", "card", server="exp")
    assert "in use by your server 'exp'" in refused(
        "approval", lab.start, "ada", "card", server="other"
    )
    # What is left of the server when it starts again begins to end, and has the grant until it has.
    assert "still in use" in refused("approval", lab.start, "ada", "card", server="exp")
    assert lab.broker.leases.get(first.id).state == "releasing"
    assert "still in use" in refused("approval", lab.start, "ada", "card", server="other")
    lab.broker.leases.confirm_empty(first.id)
    assert lab.start("ada", "card", server="other").card_uuid != first.card_uuid


def test_a_second_grant_allows_a_second_card(lab: Lab) -> None:
    grants = {lab.grant("ada").id, lab.grant("ada").id}
    leases = [lab.start("ada", "card", server=name) for name in ("a", "b")]
    assert {lease.request_id for lease in leases} == grants
    refused("approval", lab.start, "ada", "card", server="c")


def test_whole_cards_have_a_quota_of_their_own(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(quotas={"default": {"whole_cards": 1}})
    lab.report()
    lab.grant("ada")
    lab.grant("ada")
    lab.start("ada", "card", server="a")
    assert "1 whole card at a time" in refused("quota", lab.start, "ada", "card", server="b")
    lab.start("ada", "small", server="b")


def test_an_expired_or_cancelled_grant_gives_nothing(lab: Lab) -> None:
    lab.grant("ada", hours=1)
    lab.clock.pass_time(hours=1)
    lab.report()
    refused("approval", lab.start, "ada", "card")
    grant = lab.grant("ada")
    lab.broker.requests.cancel(grant.id, Person("ada"))
    refused("approval", lab.start, "ada", "card")
    assert lab.broker.leases.find() == ()


def test_a_lease_that_is_called_off_before_the_cut_puts_the_layout_back(lab: Lab) -> None:
    lab.grant("ada")
    lease = lab.start("ada", "card")
    lab.stop(lease)
    assert the_card(lab, lease.card_uuid).target == SEVENTHS
    lab.report()
    assert lab.broker.layouts.finish_target(lease.card_uuid)
    assert set(lab.states().values()) == {"free"}


def test_a_layout_of_many_profiles_comes_back(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0, MIXED))
    lab.grant("ada")
    lab.stop(lab.start("ada", "card"))
    assert the_card(lab).target == MIXED


def test_a_card_of_another_model_is_given_whole_by_its_own_profile(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0, QUARTERS, profiles=A30))
    lab.grant("ada")
    lease = lab.start("ada", "card")
    assert (lease.profile, lease.memory_mib, lease.share) == ("4g.24gb", 24004, 1.0)
    assert the_card(lab).target == (("4g.24gb", 0),)


def test_the_card_that_is_missed_least_is_given_whole(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0), card(1, QUARTERS, profiles=A30), card(2))
    lab.start("grace", "small")
    lab.grant("ada")
    assert lab.start("ada", "card").card_uuid == "GPU-1"


def test_a_card_is_emptied_for_a_grant_and_kept_for_it(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0), card(1))
    busy = [lab.start(f"user{number}") for number in range(9)]
    lab.grant("ada")
    # Two people are on one card and seven on the other.
    sentence = refused("capacity", lab.start, "ada", "card")
    (emptied,) = [c for c in lab.broker.cards.find() if c.reserved_for is not None]
    on_it = [lease for lease in busy if lease.card_uuid == emptied.uuid]
    assert len(on_it) == 2
    assert f"Card {emptied.index} of node n1 is being emptied" in sentence
    assert "2 people are still on it" in sentence
    refused("capacity", lab.start, "late", "small")
    assert {s for place, s in lab.states().items() if place[0] == emptied.index} == {
        "leased",
        "draining",
    }
    # Asking again, and other grants, change nothing about it.
    assert refused("capacity", lab.start, "ada", "card") == sentence
    lab.grant("grace")
    assert "Card" in refused("capacity", lab.start, "grace", "card")
    reserved = {c.uuid: c.reserved_for for c in lab.broker.cards.find()}
    assert len(set(reserved.values())) == 2
    for lease in on_it:
        lab.stop(lease)
    refused("capacity", lab.start, "grace", "card")
    refused("capacity", lab.start, "late", "small")
    taken = lab.start("ada", "card")
    assert taken.card_uuid == emptied.uuid
    assert the_card(lab, emptied.uuid).reserved_for is None
    assert the_card(lab, emptied.uuid).target == WHOLE
    assert lab.kinds().count("card.reserved") == 2


def test_the_tier_can_be_started_while_a_card_is_emptied_for_it(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0))
    lab.start("grace", "small")

    def offer(user: str) -> tuple[int, bool]:
        offers = lab.broker.tiers.of(Person(user))
        (found,) = [each for each in offers if each.tier.name == "card"]
        return found.free, found.usable

    assert offer("ada") == (0, False)
    lab.grant("ada")
    assert offer("ada") == (0, True)
    assert offer("linus") == (0, False)


def test_a_reservation_ends_with_its_grant(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0))
    lab.start("grace", "small")
    lab.grant("ada", hours=2)
    refused("capacity", lab.start, "ada", "card")
    lab.broker.reservations.look_after()
    assert the_card(lab).reserved_for is not None
    lab.clock.pass_time(hours=2)
    lab.report(card(0))
    lab.broker.reservations.look_after()
    assert the_card(lab).reserved_for is None
    assert lab.start("linus", "small").card_uuid == "GPU-0"
    grant = lab.grant("ada")
    refused("capacity", lab.start, "ada", "card")
    lab.broker.requests.cancel(grant.id, Person("ada"))
    lab.broker.reservations.look_after()
    assert the_card(lab).reserved_for is None
    assert lab.kinds().count("card.unreserved") == 2


def the_reserved(lab: Lab) -> list[str]:
    return [each.uuid for each in lab.broker.cards.find() if each.reserved_for is not None]


def test_an_emptied_card_is_kept_for_half_an_hour_and_not_for_ever(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0))
    busy = lab.start("grace", "small")
    lab.grant("ada", hours=48)
    refused("capacity", lab.start, "ada", "card")
    lab.clock.pass_time(hours=5)
    lab.report(card(0))
    lab.broker.reservations.look_after()
    assert the_reserved(lab) == ["GPU-0"], "it is not empty yet, however long that takes"
    lab.stop(busy)
    lab.broker.reservations.look_after()
    assert lab.kinds().count("card.emptied") == 1
    lab.clock.pass_time(minutes=29)
    lab.report(card(0))
    lab.broker.reservations.look_after()
    refused("capacity", lab.start, "grace", "small")
    lab.clock.pass_time(minutes=1)
    lab.report(card(0))
    lab.broker.reservations.look_after()
    assert the_reserved(lab) == []
    (over,) = [e for e in lab.broker.events.find() if e.kind == "card.unreserved"]
    assert over.detail["why"] == "the empty card was not used in time"
    assert lab.start("grace", "small").card_uuid == "GPU-0"


def test_a_grant_that_gets_another_card_gives_back_the_one_that_is_emptied(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0), card(1))
    busy = [lab.start(f"user{number}") for number in range(9)]
    lab.grant("ada")
    refused("capacity", lab.start, "ada", "card")
    (emptied,) = the_reserved(lab)
    for lease in busy:
        if lease.card_uuid != emptied:
            lab.stop(lease)
    assert lab.start("ada", "card").card_uuid != emptied
    assert the_reserved(lab) == []
    assert lab.start("late", "small").card_uuid == emptied


def test_a_grant_whose_emptied_card_leaves_service_gets_another_one_emptied(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0), card(1))
    for number in range(9):
        lab.start(f"user{number}")
    lab.grant("ada")
    refused("capacity", lab.start, "ada", "card")
    (first,) = the_reserved(lab)
    lab.broker.cards.drain(first, "its fan is loud", "root")
    refused("capacity", lab.start, "ada", "card")
    (second,) = the_reserved(lab)
    assert second != first


def test_a_card_whose_layout_is_one_slice_is_not_targeted_twice(lab: Lab) -> None:
    """Its target for the lease is its layout: there is nothing to change when the lease ends."""
    lab.report(card(0))
    lab.broker.cards.drain("GPU-1", "elsewhere", "root")
    lab.broker.layouts.set("GPU-0", WHOLE, True, "root")
    lab.grant()
    lease = lab.start("ada", "card")
    assert lease.card_uuid == "GPU-0"
    assert lab.kinds().count("card.target") == 1
    lab.stop(lease)
    assert lab.kinds().count("card.target") == 1
    (row,) = [each for each in lab.broker.cards.find() if each.uuid == "GPU-0"]
    assert row.target == WHOLE
