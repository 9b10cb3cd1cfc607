"""A hub whose servers run on one node gives out the slices of that node only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, Lab, card


@pytest.fixture
def here(make_lab: Callable[..., Lab]) -> Lab:
    """Two slices and a whole card's worth on this node, many more on another."""
    lab = make_lab(only_node="n1")
    lab.report(card(0, MIXED), node="n1")
    lab.report(card(1), card(2), node="n2")
    return lab


def tier(lab: Lab, name: str, user: str = "eve") -> tuple[int, int, bool]:
    (found,) = [each for each in lab.broker.tiers.of(Person(user)) if each.tier.name == name]
    return found.free, found.total, found.usable


def test_slices_of_other_nodes_are_neither_offered_nor_given(here: Lab) -> None:
    assert tier(here, "small") == (1, 1, True)
    lease = here.start("ada", "small")
    assert lease.node == "n1"
    assert tier(here, "small") == (0, 1, False)
    with pytest.raises(Refusal, match="the only one is in use") as caught:
        here.start("grace", "small")
    assert caught.value.reason == "capacity"
    # All of them are given out by a hub that reaches both.
    everywhere = Lab(here.url, clock=here.clock)
    assert tier(everywhere, "small") == (14, 15, True)
    everywhere.close()


def test_another_node_cannot_be_asked_for(here: Lab) -> None:
    with pytest.raises(Refusal, match="servers run on node 'n1' only"):
        here.start("ada", "small", node="n2")
    assert here.start("ada", "small", node="n1").node == "n1"


def test_people_wait_for_what_comes_back_here(here: Lab) -> None:
    here.broker.hubs.claim("this hub")
    lease = here.start("ada", "small")
    ticket = here.broker.queue.join(Person("grace"), "small")
    # There are free slices enough on the other node.
    assert here.broker.offers.turns() == ()
    here.stop(lease)
    (turn,) = here.broker.offers.turns()
    assert turn.id == ticket.id
    offered = here.broker.offers.make(turn.id, Person("grace"), other_servers=0)
    assert offered.lease is not None
    assert offered.lease.node == "n1"


def test_whole_cards_of_other_nodes_are_not_given(here: Lab) -> None:
    here.start("ada", "medium")
    here.grant("grace")
    with pytest.raises(Refusal, match="emptied") as caught:
        here.start("grace", "card")
    assert caught.value.reason == "capacity"
    reserved = [each for each in here.broker.cards.find() if each.reserved_for is not None]
    assert [each.node for each in reserved] == ["n1"]


def test_what_is_out_of_service_elsewhere_is_not_told(here: Lab) -> None:
    here.broker.cards.drain("GPU-1", "repair", "root")
    (found,) = [each for each in here.broker.tiers.of(Person("eve")) if each.tier.name == "small"]
    assert found.outage == ""
    here.broker.cards.drain("GPU-0", "repair", "root")
    (found,) = [each for each in here.broker.tiers.of(Person("eve")) if each.tier.name == "small"]
    assert found.outage == "Its only card is out of service."


def test_an_offer_of_another_node_is_not_taken(make_lab: Callable[..., Lab]) -> None:
    """As after a hub was moved, or when its spawner was changed while an offer was held."""
    lab = make_lab()
    lab.broker.hubs.claim("this hub")
    lab.report(card(0, MIXED), node="n1")
    lab.start("ada", "medium")
    ticket = lab.broker.queue.join(Person("grace"), "medium")
    lab.report(card(1, MIXED), node="n2")
    offered = lab.broker.offers.make(ticket.id, Person("grace"), other_servers=0)
    assert offered.lease is not None
    assert offered.lease.node == "n2"
    moved = Lab(lab.url, clock=lab.clock, only_node="n1")
    try:
        with pytest.raises(Refusal):
            moved.start("grace", "medium")
        held = [lease for lease in moved.broker.leases.find() if lease.user == "grace"]
        assert all(lease.ticket_id is not None or lease.ending for lease in held)
    finally:
        moved.close()


def test_two_hubs_keep_one_card_for_a_grant(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(only_node="n1", hub="one")
    other = Lab(lab.url, clock=lab.clock, only_node="n2", hub="two")
    try:
        lab.report(card(0, MIXED), node="n1")
        lab.report(card(1, MIXED), node="n2")
        begin = lab.clock.now + timedelta(minutes=30)
        request = lab.broker.requests.create(
            Person("ada"), "card", 3, "a deadline", starts_at=begin
        )
        lab.broker.requests.decide(request.id, Person("root", admin=True), True)
        assert other.broker.reservations.keep() == ()
        assert lab.broker.reservations.keep() == ("GPU-0",)
        assert other.broker.reservations.keep() == ()
        kept = [each.uuid for each in lab.broker.cards.find() if each.reserved_for is not None]
        assert kept == ["GPU-0"]
    finally:
        other.close()
