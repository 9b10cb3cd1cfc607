"""The waiting list on both databases: places, turns, offers, and what ends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.broker.statuses import Offered
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.event_watch import Watched
from tests.broker.lab import MIXED, SEVENTHS, START, Lab, card
from tests.broker.test_lease_life import refused

HOME = "n1:/etc/jupyterhub"
ROOT = Person("root", admin=True)


@pytest.fixture(autouse=True)
def watched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction is compared with the events it wrote; not where several run at once."""
    if "at_once" not in request.node.name:
        monkeypatch.setattr("tests.broker.lab.Store", Watched)


@pytest.fixture
def full(make_lab: Callable[..., Lab]) -> Lab:
    """One card: a large, a medium and a small slice, the medium and small ones taken."""
    return filled(make_lab())


def filled(lab: Lab) -> Lab:
    lab.broker.hubs.claim(HOME)
    lab.report(card(0, MIXED))
    lab.start("mary", "medium")
    lab.start("sam", "small")
    return lab


def join(lab: Lab, user: str, tier: str = "medium", **more: Any) -> TicketRow:
    groups: Sequence[str] = more.pop("groups", ())
    return lab.broker.queue.join(Person(user, frozenset(groups)), tier, **more)


def offer(lab: Lab, ticket: TicketRow, *groups: str, others: int = 0) -> Offered:
    person = Person(ticket.user, frozenset(groups))
    return lab.broker.offers.make(ticket.id, person, other_servers=others)


def later(lab: Lab, **units: float) -> None:
    """Time passes, with the node's agent and the hub's service alive."""
    lab.clock.pass_time(**units)
    lab.report(card(0, MIXED))
    lab.broker.hubs.claim(HOME)


def stop_of(lab: Lab, user: str) -> None:
    (lease,) = lab.broker.leases.find(user=user)
    lab.stop(lease)


def state(lab: Lab, ticket: TicketRow) -> str:
    (found,) = (
        t
        for t in lab.broker.queue.tickets(
            states=("waiting", "offered", "taken", "lapsed", "cancelled")
        )
        if t.id == ticket.id
    )
    return found.state


def held(result: Offered) -> LeaseRow:
    assert result.lease is not None, result.why
    return result.lease


def test_a_place_is_kept_while_what_it_is_for_changes(full: Lab) -> None:
    first = join(full, "ada")
    full.clock.pass_time(minutes=5)
    join(full, "grace")
    again = join(full, "ada", server="work", start=True, upward=True, groups=["vision"])
    assert (again.id, again.created_at) == (first.id, START)
    assert (again.server, again.start, again.tiers) == ("work", True, ("medium", "large"))
    assert [status.place for status in full.broker.queue.status()] == [1, 2]
    assert [status.row.user for status in full.broker.queue.status("grace")] == ["grace"]
    assert full.kinds().count("ticket.joined") == 2
    assert full.kinds().count("ticket.changed") == 1


def test_there_has_to_be_something_to_wait_for(full: Lab) -> None:
    assert "has 1 free" in refused("conflict", join, full, "ada", "large", groups=["vision"])
    assert "no GPU" in refused("conflict", join, full, "ada", "cpu")
    assert "not open to you" in refused("not-allowed", join, full, "ada", "large")
    assert "There is no tier" in refused("options", join, full, "ada", "mediun")
    assert "request it first" in refused("approval", join, full, "ada", "card")
    assert full.broker.queue.tickets() == ()


def test_places_are_few(make_lab: Callable[..., Lab]) -> None:
    many = [{"name": f"t{number}", "profile": "2g.10gb"} for number in range(6)]
    lab = make_lab(tiers=many)
    lab.broker.hubs.claim(HOME)
    for number in range(5):
        join(lab, "ada", f"t{number}")
    assert "leave one" in refused("conflict", join, lab, "ada", "t5")
    join(lab, "ada", "t0", start=True)


def test_what_gets_free_is_held_for_the_first_who_waits(full: Lab) -> None:
    ada = join(full, "ada")
    full.clock.pass_time(minutes=1)
    grace = join(full, "grace")
    assert full.broker.offers.turns() == ()
    stop_of(full, "mary")
    # Nobody slips in between, and those who wait learn who comes first.
    assert "2 people are waiting" in refused("capacity", full.start, "eve", "medium")
    assert "1 person is waiting" in refused("capacity", full.start, "ada", "medium")
    assert [ticket.id for ticket in full.broker.offers.turns()] == [ada.id]
    lease = held(offer(full, ada))
    assert (lease.user, lease.state, lease.ticket_id) == ("ada", "pending", ada.id)
    assert lease.deadline == full.clock() + timedelta(minutes=10)
    assert full.states()[(0, "2g.10gb", 4)] == "leased"
    assert full.broker.offers.turns() == ()
    refused("capacity", full.start, "grace", "medium")
    assert state(full, grace) == "waiting"

    full.clock.pass_time(minutes=3)
    started = full.start("ada", "medium", attempt="a1")
    assert (started.id, started.slice_uuid, started.ticket_id) == (
        lease.id,
        lease.slice_uuid,
        None,
    )
    assert (started.since, started.attempt) == (full.clock(), "a1")
    assert state(full, ada) == "taken"
    assert full.start("ada", "medium", attempt="a1").id == lease.id
    kinds = full.kinds()
    assert [k for k in kinds if k.startswith("ticket.")] == [
        "ticket.joined",
        "ticket.joined",
        "ticket.offered",
        "ticket.taken",
    ]


def test_an_offer_nobody_takes_goes_to_the_next(full: Lab) -> None:
    ada = join(full, "ada")
    full.clock.pass_time(minutes=1)
    grace = join(full, "grace")
    stop_of(full, "mary")
    lease = held(offer(full, ada))
    full.clock.pass_time(minutes=9)
    assert full.broker.offers.settle() == ()
    later(full, minutes=1)
    assert [ticket.state for ticket in full.broker.offers.settle()] == ["lapsed"]
    assert full.broker.leases.get(lease.id).state == "releasing"
    full.broker.leases.confirm_empty(lease.id)
    assert [ticket.id for ticket in full.broker.offers.turns()] == [grace.id]
    assert state(full, ada) == "lapsed"
    # Nobody is charged for what only waited for them.
    assert full.broker.offers.settle() == ()
    held(offer(full, grace))


def test_an_offer_does_not_use_up_gpu_hours(make_lab: Callable[..., Lab]) -> None:
    lab = filled(make_lab(quotas={"default": {"gpu_hours_per_week": 10}}, offer_minutes=600))
    ada = join(lab, "ada")
    stop_of(lab, "mary")
    lease = held(offer(lab, ada))
    later(lab, hours=10)
    lab.broker.offers.settle()
    lab.broker.leases.confirm_empty(lease.id)
    (hours,) = (q for q in lab.broker.quotas.of(Person("ada")) if q.field.startswith("gpu_hours"))
    assert hours.used == 0


def test_a_server_that_runs_makes_room_for_its_own_ticket(make_lab: Callable[..., Lab]) -> None:
    """With one server at a time allowed, people can wait for a larger one while they work."""
    lab = filled(make_lab(quotas={"default": {"live": 1}}))
    sam = join(lab, "sam", "medium")
    elsewhere = join(lab, "ada", "medium", server="second")
    ada = lab.broker.leases.find(user="sam")[0]
    stop_of(lab, "mary")
    lease = held(offer(lab, sam))
    # The running server keeps its slice, and ending it does not end the offer.
    assert lab.broker.leases.get(ada.id).state == "pending"
    lab.broker.leases.release_server("sam", "", "stopped", "sam")
    assert lab.broker.leases.get(lease.id).state == "pending"
    lab.broker.leases.confirm_empty(ada.id)
    assert lab.start("sam", "medium").id == lease.id
    assert state(lab, elsewhere) == "waiting"


def test_a_quota_blocks_a_ticket_and_lets_others_pass(make_lab: Callable[..., Lab]) -> None:
    lab = filled(make_lab(quotas={"default": {"live": 1}}))
    sam = join(lab, "sam", "medium", server="second")
    lab.clock.pass_time(minutes=1)
    ada = join(lab, "ada", "medium")
    stop_of(lab, "mary")
    assert [t.id for t in lab.broker.offers.turns()] == [sam.id]
    assert "Your quota allows 1 GPU server" in offer(lab, sam).why
    assert [t.id for t in lab.broker.offers.turns()] == [ada.id]
    statuses = {status.row.user: status for status in lab.broker.queue.status()}
    assert (statuses["sam"].place, statuses["ada"].place) == (0, 1)
    assert "Your quota" in statuses["sam"].row.blocked
    # Looked at again once it is over: it has kept its position.
    stop_of(lab, "sam")
    assert [t.id for t in lab.broker.offers.turns(blocked=True)] == [sam.id]
    assert held(offer(lab, sam)).user == "sam"


def test_two_offers_do_not_add_up_beyond_a_quota(make_lab: Callable[..., Lab]) -> None:
    lab = filled(make_lab(quotas={"default": {"live": 1}}))
    medium, small = join(lab, "ada", "medium"), join(lab, "ada", "small", server="second")
    stop_of(lab, "mary")
    stop_of(lab, "sam")
    held(offer(lab, medium))
    assert "Your quota" in offer(lab, small).why
    lab.start("ada", "medium")
    refused("quota", lab.start, "ada", "small", "second")


def test_a_place_ends_with_the_right_to_it(full: Lab) -> None:
    full.start("lee", "large", groups=["vision"])
    large = join(full, "ada", "large", groups=["vision"])
    gone = join(full, "grace", "medium")
    for user in ("lee", "mary"):
        stop_of(full, user)
    assert "no longer open to its user" in offer(full, large).why
    assert full.broker.offers.make(gone.id, None).why == "the hub no longer has this user"
    assert (state(full, large), state(full, gone)) == ("cancelled", "cancelled")
    assert full.broker.leases.find(user="ada") == full.broker.leases.find(user="grace") == ()
    assert full.broker.offers.make(large.id, Person("ada", frozenset({"vision"}))).lease is None


def test_a_larger_one_will_do(full: Lab) -> None:
    full.start("lee", "large", groups=["vision"])
    ada = join(full, "ada", "medium", upward=True, groups=["vision"])
    stop_of(full, "lee")
    lease = held(offer(full, ada, "vision"))
    assert (lease.tier, lease.profile) == ("large", "3g.20gb")
    started = full.start("ada", "large", groups=["vision"])
    assert started.id == lease.id
    assert started.ends_at == full.clock() + timedelta(hours=12)


def test_who_lost_the_right_to_the_larger_one_still_gets_their_own(full: Lab) -> None:
    full.start("lee", "large", groups=["vision"])
    ada = join(full, "ada", "medium", upward=True, groups=["vision"])
    stop_of(full, "lee")
    assert offer(full, ada).lease is None
    stop_of(full, "mary")
    assert held(offer(full, ada)).tier == "medium"


def test_leaving_gives_back_what_is_held(full: Lab) -> None:
    ada = join(full, "ada")
    assert "There is no ticket" in refused(
        "not-found", full.broker.queue.leave, ada.id, Person("eve")
    )
    assert "There is no ticket" in refused("not-found", full.broker.queue.leave, 99, ROOT)
    assert "There is no ticket" in refused("not-found", full.broker.queue.leave, -(2**70), ROOT)
    stop_of(full, "mary")
    lease = held(offer(full, ada))
    assert full.broker.queue.leave(ada.id, Person("ada")).state == "cancelled"
    assert full.broker.leases.get(lease.id).state == "releasing"
    assert "cancelled already" in refused(
        "conflict", full.broker.queue.leave, ada.id, Person("ada")
    )
    again = join(full, "ada")
    assert again.id != ada.id
    assert full.broker.queue.leave(again.id, ROOT, "maintenance").end_reason == "maintenance"


def test_starting_without_an_offer_ends_the_wait(full: Lab) -> None:
    ada = join(full, "ada")
    stop_of(full, "mary")
    lease = full.start("ada", "medium")
    assert (lease.ticket_id, state(full, ada)) == (None, "taken")


def test_an_offer_that_an_admin_takes_back_or_a_card_loses_waits_again(full: Lab) -> None:
    ada = join(full, "ada")
    stop_of(full, "mary")
    lease = held(offer(full, ada))
    full.broker.leases.release(lease.id, "needed", "root")
    assert [ticket.state for ticket in full.broker.offers.settle()] == ["waiting"]
    full.broker.leases.confirm_empty(lease.id)
    assert [ticket.id for ticket in full.broker.offers.turns()] == [ada.id]
    second = held(offer(full, ada))
    assert second.id != lease.id
    full.report(card(1))
    assert full.broker.leases.get(second.id).state == "lost"
    assert [ticket.state for ticket in full.broker.offers.settle()] == ["waiting"]


def test_tickets_of_a_hub_that_is_not_there_keep_nobody_waiting(full: Lab) -> None:
    join(full, "ada")
    stop_of(full, "mary")
    refused("capacity", full.start, "eve", "medium")
    full.clock.pass_time(minutes=3)
    full.report(card(0, MIXED))
    assert full.start("eve", "medium").state == "pending"


def test_a_waiting_list_is_one_for_all_hubs(full: Lab, make_lab: Callable[..., Lab]) -> None:
    other = make_lab(hub="other")
    other.broker.hubs.claim("n2:/etc/jupyterhub")
    ada = join(other, "ada")
    full.clock.pass_time(minutes=1)
    grace = join(full, "grace")
    stop_of(full, "mary")
    assert full.broker.offers.turns() == ()
    assert [ticket.id for ticket in other.broker.offers.turns()] == [ada.id]
    lease = held(offer(other, ada))
    # The same name at another hub is another person.
    refused("capacity", full.start, "ada", "medium")
    assert other.start("ada", "medium").id == lease.id
    assert [status.place for status in full.broker.queue.status("grace")] == [1]
    assert state(full, grace) == "waiting"


def test_fair_share_puts_light_users_first(full: Lab) -> None:
    (mary,) = full.broker.leases.find(user="mary")
    later(full, hours=70)
    full.stop(mary)
    full.start("bob", "medium")
    heavy = join(full, "mary")
    later(full, minutes=90)
    light = join(full, "ada")
    # 70 hours of 2/7 of a card are 20 GPU-hours, which count as two hours of waiting.
    assert {status.row.user: status.place for status in full.broker.queue.status()} == {
        "ada": 1,
        "mary": 2,
    }
    stop_of(full, "bob")
    assert [ticket.id for ticket in full.broker.offers.turns()] == [light.id]
    held(offer(full, light))
    (after,) = full.broker.queue.tickets("mary")
    assert (after.id, after.overtaken) == (heavy.id, 1)


def test_a_card_is_emptied_and_cut_for_a_ticket_with_a_grant(full: Lab) -> None:
    full.grant("ada", hours=30)
    ada = join(full, "ada", "card", start=True)
    assert [ticket.id for ticket in full.broker.offers.turns()] == [ada.id]
    assert "is being emptied for your grant" in offer(full, ada).why
    # Now it only waits.
    assert full.broker.offers.turns() == ()
    refused("capacity", full.start, "eve", "small")
    for user in ("mary", "sam"):
        stop_of(full, user)
    assert [ticket.id for ticket in full.broker.offers.turns()] == [ada.id]
    lease = held(offer(full, ada))
    assert (lease.whole, lease.slice_uuid) == (True, None)
    full.report(card(0, ()))
    full.report(card(0, (("7g.40gb", 0),)))
    full.broker.layouts.finish_target("GPU-0")
    started = full.start("ada", "card")
    assert (started.id, started.slice_uuid) == (lease.id, "MIG-0-7g.40gb-0")
    assert state(full, ada) == "taken"


def test_a_ticket_whose_grant_is_over_is_blocked(full: Lab) -> None:
    grant = full.grant("ada", hours=30)
    ada = join(full, "ada", "card")
    full.broker.requests.cancel(grant.id, Person("ada"))
    assert "needs approval" in offer(full, ada).why
    assert "needs approval" in full.broker.queue.tickets("ada")[0].blocked


def test_users_and_servers_that_are_renamed_keep_their_places(full: Lab) -> None:
    ada = join(full, "ada", server="old")
    join(full, "grace")
    full.broker.users.rename_server("ada", "old", "new")
    full.broker.users.rename("ada", "ada2")
    (found,) = full.broker.queue.tickets("ada2")
    assert (found.id, found.server) == (ada.id, "new")
    stop_of(full, "mary")
    lease = held(offer(full, found))
    full.broker.users.rename("ada2", "ada3")
    assert full.start("ada3", "medium", "new").id == lease.id


def test_a_deleted_user_waits_for_nothing(full: Lab) -> None:
    ada = join(full, "ada")
    stop_of(full, "mary")
    lease = held(offer(full, ada))
    full.broker.users.forget("ada")
    assert state(full, ada) == "cancelled"
    assert full.broker.leases.get(lease.id).state == "releasing"


def test_waits_are_expected_from_ends_and_past_sessions(full: Lab) -> None:
    mary = full.broker.leases.find(user="mary")[0]
    later(full, hours=2)
    full.stop(mary)
    full.start("bob", "medium")
    join(full, "ada")
    (status,) = full.broker.queue.status("ada")
    assert status.expectation is not None
    assert status.expectation.likely == timedelta(hours=2)
    assert (status.expectation.latest, status.expectation.confidence) == (None, "low")


def test_many_who_wait_and_start_at_once_never_get_the_same(
    make_lab: Callable[..., Lab],
) -> None:
    """Offers, starts, newcomers and lapses from several processes' brokers at once."""
    lab = make_lab(quotas={"default": {"live": 1}})
    lab.broker.hubs.claim(HOME)
    lab.report(card(0, SEVENTHS))
    for number in range(7):
        lab.start(f"old{number}")
    waiting = [join(lab, f"user{number}", "small") for number in range(10)]
    labs = [
        lab,
        make_lab(quotas={"default": {"live": 1}}),
        make_lab(quotas={"default": {"live": 1}}),
    ]
    for number in range(7):
        stop_of(lab, f"old{number}")

    def serve(which: int) -> int:
        number = 0
        for ticket in labs[which].broker.offers.turns():
            number += offer(labs[which], ticket).lease is not None
        return number

    def start(number: int) -> None:
        with suppress(Refusal):
            labs[number % 3].start(f"user{number}")

    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(serve, which) for which in (0, 1, 2)]
        jobs += [pool.submit(start, number) for number in range(10)]
        jobs += [pool.submit(start, number) for number in range(10)]
        for job in jobs:
            job.result(60)
    live = lab.broker.leases.find()
    assert len({lease.slice_id for lease in live}) == len(live) <= 7
    for number in range(10):
        mine = [lease for lease in live if lease.user == f"user{number}"]
        assert len([lease for lease in mine if lease.ticket_id is None]) <= 1
    for ticket in lab.broker.queue.tickets(states=("offered",)):
        assert [lease for lease in live if lease.ticket_id == ticket.id]
    for lease in live:
        if lease.ticket_id is not None:
            assert state(lab, waiting[lease.ticket_id - waiting[0].id]) == "offered"
