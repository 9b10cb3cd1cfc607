"""Who cannot be served keeps nobody else waiting, and loses nothing by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

import pytest

from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, SEVENTHS, Lab, card
from tests.broker.test_lease_life import refused

HOME = "n1:/etc/jupyterhub"
WHOLE = [
    {"name": "small", "profile": "1g.5gb", "max_hours": 1},
    {"name": "card", "profile": "whole", "approval": True, "max_hours": 4},
]


def person(name: str, *groups: str) -> Person:
    return Person(name, frozenset(groups))


def alive(lab: Lab, *cards: object) -> None:
    lab.report(*(cards or (card(0, MIXED),)))  # type: ignore[arg-type]
    lab.broker.hubs.claim(HOME)


def serve(lab: Lab, people: Mapping[str, Person] | None = None, *, blocked: bool = False) -> None:
    """A round of the service."""
    lab.broker.offers.settle()
    for ticket in lab.broker.offers.turns(blocked=blocked):
        lab.broker.offers.make(ticket.id, (people or {}).get(ticket.user, Person(ticket.user)))


def states(lab: Lab) -> dict[str, str]:
    return {ticket.user: ticket.state for ticket in lab.broker.queue.tickets()}


def ticket_of(lab: Lab, user: str) -> TicketRow:
    (ticket,) = lab.broker.queue.tickets(user)
    return ticket


def test_a_larger_tier_that_one_may_not_have_any_more_is_others(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    alive(lab)
    lab.start("mary", "medium")
    big = lab.start("bob", "large", groups=["vision"])
    lab.broker.queue.join(person("ada", "vision"), "medium", upward=True)
    lab.clock.pass_time(minutes=1)
    alive(lab)
    lab.broker.queue.join(person("eve", "vision"), "large")
    lab.stop(big)
    people = {"ada": person("ada"), "eve": person("eve", "vision")}
    for _ in range(3):
        serve(lab, people)
    assert states(lab) == {"ada": "waiting", "eve": "offered"}
    assert ticket_of(lab, "ada").tiers == ("medium",)


def test_one_that_is_passed_over_keeps_nobody_and_is_looked_at_again(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    alive(lab)
    held = lab.start("mary", "medium")
    lab.broker.queue.join(Person("ada"), "medium")
    lab.stop(held)
    refused("capacity", lab.start, "zed", "medium")
    lab.broker.offers.pass_over(ticket_of(lab, "ada").id, "nobody knows who that is")
    zed = lab.start("zed", "medium")
    lab.stop(zed)
    assert lab.broker.offers.turns() == ()
    serve(lab, blocked=True)
    assert states(lab) == {"ada": "offered"}


def test_one_that_is_blocked_is_overtaken_by_nobody(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    alive(lab)
    held = lab.start("mary", "medium")
    for name in ("ada", "eve", "bob"):
        lab.broker.queue.join(Person(name), "medium")
        lab.clock.pass_time(minutes=1)
        alive(lab)
    lab.broker.offers.pass_over(ticket_of(lab, "ada").id, "nobody knows who that is")
    lab.stop(held)
    assert lab.broker.offers.make(ticket_of(lab, "bob").id, Person("bob")).lease is not None
    # What ada could not have been given was eve's turn, and not hers.
    assert (ticket_of(lab, "ada").overtaken, ticket_of(lab, "eve").overtaken) == (0, 1)


def test_what_blocked_several_is_looked_at_for_each(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    alive(lab)
    held = lab.start("mary", "medium")
    for name in ("ada", "eve"):
        lab.broker.queue.join(Person(name), "medium", server="x")
    lab.start("ada", "small", "other")
    other = lab.start("eve", "large", "other", groups=["vision"])
    lab.stop(held)
    for _ in range(3):
        serve(lab)
    assert all(ticket.blocked for ticket in lab.broker.queue.tickets())
    late = lab.start("late", "medium")
    lab.stop(other)
    # Nothing is free, and it is seen all the same that nothing keeps eve any more.
    serve(lab, blocked=True)
    assert ticket_of(lab, "ada").blocked
    assert not ticket_of(lab, "eve").blocked
    refused("capacity", lab.start, "later", "medium")
    lab.stop(late)
    serve(lab)
    assert states(lab) == {"ada": "waiting", "eve": "offered"}


@pytest.mark.parametrize(("waits", "comes"), [("own", "lab"), ("lab", "own")])
def test_slices_of_one_size_are_waited_for_whatever_their_seats(
    make_lab: Callable[..., Lab], waits: str, comes: str
) -> None:
    tiers = [
        {"name": "own", "profile": "3g.20gb"},
        {"name": "lab", "profile": "3g.20gb", "seats": 2},
    ]
    lab = make_lab(tiers=tiers)
    alive(lab)
    held = lab.start("x", "own")
    lab.broker.queue.join(Person("ada"), waits)
    lab.stop(held)
    assert "1 person is waiting" in refused("capacity", lab.start, "late", comes)
    serve(lab)
    assert states(lab) == {"ada": "offered"}


def test_a_seat_that_is_free_is_nobodys_who_waits_for_a_slice(make_lab: Callable[..., Lab]) -> None:
    tiers = [
        {"name": "own", "profile": "3g.20gb"},
        {"name": "lab", "profile": "3g.20gb", "seats": 2},
    ]
    lab = make_lab(tiers=tiers)
    alive(lab)
    lab.start("x", "lab")
    lab.broker.queue.join(Person("ada"), "own")
    assert lab.start("late", "lab").seat == 1


def test_who_has_a_card_set_aside_starts_although_others_wait(make_lab: Callable[..., Lab]) -> None:
    cards = (card(0, SEVENTHS), card(1, SEVENTHS))
    lab = make_lab(tiers=WHOLE)
    alive(lab, *cards)
    begin = lab.clock() + timedelta(hours=3)
    asked = lab.broker.requests.create(Person("ada"), "card", 3, "x", begin)
    lab.broker.requests.decide(asked.id, Person("root", admin=True), True)
    lab.clock.pass_time(hours=2, minutes=55)
    alive(lab, *cards)
    assert len(lab.broker.reservations.keep()) == 1
    for number in range(7):
        lab.start(f"u{number}", "small")
    lab.grant("bob", hours=4)
    lab.broker.queue.join(Person("bob"), "card")
    serve(lab)
    lab.clock.pass_time(minutes=6)
    alive(lab, *cards)
    serve(lab)
    offer = next(o for o in lab.broker.tiers.of(Person("ada")) if o.tier.name == "card")
    assert (offer.usable, offer.why) == (True, "")
    assert lab.start("ada", "card").card_uuid
    assert states(lab) == {"bob": "waiting"}


def test_an_offer_outlasts_a_time_in_which_nobody_could_take_it(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    alive(lab)
    held = lab.start("mary", "medium")
    lab.broker.queue.join(Person("ada"), "medium", start=True)
    lab.stop(held)
    serve(lab)
    lab.clock.pass_time(minutes=12)
    alive(lab)
    assert lab.broker.offers.renew() == 1
    assert lab.broker.offers.settle() == ()
    (lease,) = lab.broker.leases.find(user="ada")
    assert lease.deadline == lab.clock() + timedelta(minutes=10)
    assert ticket_of(lab, "ada").offer_until == lease.deadline
    lab.clock.pass_time(minutes=11)
    assert [each.state for each in lab.broker.offers.settle()] == ["lapsed"]


def test_another_hub_gives_back_what_a_silent_one_holds_and_its_people_keep_their_place(
    make_lab: Callable[..., Lab],
) -> None:
    lab, other = make_lab(), make_lab(hub="physics")
    alive(lab)
    other.broker.hubs.claim("elsewhere")
    held = lab.start("mary", "medium")
    lab.broker.queue.join(Person("ada"), "medium")
    lab.stop(held)
    serve(lab)
    lab.clock.pass_time(minutes=9)
    lab.broker.hubs.claim(HOME)
    lab.clock.pass_time(minutes=1, seconds=30)
    assert other.broker.offers.settle() == ()
    lab.clock.pass_time(minutes=1)
    assert [each.state for each in other.broker.offers.settle()] == ["waiting"]


def test_a_card_that_is_not_cut_in_time_costs_nobody_their_place(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(tiers=WHOLE)
    alive(lab, card(0, SEVENTHS))
    lab.grant("ada", hours=4)
    held = lab.start("x", "small")
    lab.broker.queue.join(Person("ada"), "card", start=True)
    serve(lab)
    lab.stop(held)
    serve(lab)
    assert states(lab) == {"ada": "offered"}
    lab.clock.pass_time(minutes=11)
    alive(lab, card(0, SEVENTHS))
    assert [each.state for each in lab.broker.offers.settle()] == ["waiting"]
    (event,) = [each for each in lab.broker.events.find() if each.kind == "ticket.changed"]
    assert "was not cut in time" in event.detail["why"]


def test_two_names_of_a_hub_and_one_place(make_lab: Callable[..., Lab]) -> None:
    one, two = make_lab(hub="a"), make_lab(hub="b")
    one.broker.hubs.claim("first home")
    two.broker.hubs.claim("second home")
    one.report(card(0, MIXED))
    one.start("mary", "medium")
    for lab in (one, two):
        lab.broker.queue.join(Person("ada"), "medium")
    one.broker.queue.join(Person("eve"), "medium")
    one.clock.pass_time(hours=1)
    joined = make_lab(hub="b")
    assert joined.broker.hubs.claim("first home").name == "b"
    assert [(t.hub, t.user) for t in joined.broker.queue.tickets()] == [("b", "ada"), ("b", "eve")]


def test_ones_own_place_at_another_hub_keeps_nobody_from_starting(
    make_lab: Callable[..., Lab],
) -> None:
    one, two = make_lab(hub="a"), make_lab(hub="b")
    one.broker.hubs.claim("first home")
    two.broker.hubs.claim("second home")
    one.report(card(0, MIXED))
    held = one.start("mary", "medium")
    one.broker.queue.join(Person("ada"), "medium")
    one.stop(held)
    assert two.start("ada", "medium").hub == "b"


def test_the_name_of_a_hub_that_has_moved_serves_nobody_at_the_old_home(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.broker.hubs.claim(HOME)
    lab.broker.hubs.demand(HOME)
    lab.broker.hubs.claim("elsewhere", adopt=True)
    assert "is at 'elsewhere' now" in refused("conflict", lab.broker.hubs.demand, HOME)
