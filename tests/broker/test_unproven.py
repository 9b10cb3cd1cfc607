"""A session that has ended counts against its holder until its slice is proven empty."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, SEVENTHS, WHOLE, Lab, card

ROOT = Person("root", admin=True)
ADA = Person("ada")
MakeLab = Callable[..., Lab]


def end(lab: Lab, lease: LeaseRow, waiting_for: str = "NVML still lists pid 4711") -> LeaseRow:
    """A session ends, and something stays on its slice."""
    if lease.state == "pending":
        lab.broker.leases.activate(lease.attempt)
    lab.broker.leases.release_server(lease.user, lease.server, "the server stopped", lease.user)
    lab.broker.leases.note_waiting(lease.id, waiting_for)
    return lab.broker.leases.get(lease.id)


def refusal(lab: Lab, *args: str, **kwargs: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        lab.start(*args, **kwargs)  # type: ignore[arg-type]
    return caught.value


def limits(lab: Lab, user: str = "ada", servers: int | None = None) -> dict[str, float | None]:
    found = lab.broker.quotas.of(Person(user), servers=servers)
    return {each.field: each.used for each in found}


def offer_of(lab: Lab, tier: str = "small", user: str = "ada") -> tuple[bool, str]:
    (offer,) = (each for each in lab.broker.tiers.of(Person(user)) if each.tier.name == tier)
    return offer.usable, offer.why


def test_as_many_slices_as_the_quota_allows_are_held_whatever_is_stopped(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(quotas={"default": {"live": 2}})
    lab.report()
    first, second = end(lab, lab.start()), end(lab, lab.start())
    for server in ("", "other", "third"):
        assert refusal(lab, "ada", server=server).reason == "quota"
    assert limits(lab) == {"live": 2}
    assert offer_of(lab)[0] is False
    assert len(lab.broker.leases.find(user="ada")) == 2
    lab.broker.leases.confirm_empty(first.id)
    third = lab.start()
    assert refusal(lab, "ada", server="other").reason == "quota"
    lab.stop(third)
    lab.broker.leases.confirm_empty(second.id)
    assert limits(lab) == {"live": 0}


def test_a_refusal_says_what_still_ends_since_when_and_what_to_do(make_lab: MakeLab) -> None:
    lab = make_lab(
        tiers=[{"name": "s1", "title": "Small slice", "profile": "1g.5gb"}],
        quotas={"default": {"live": 1}},
    )
    lab.report()
    end(lab, lab.start("ada", "s1", server="exp"))
    found = refusal(lab, "ada", "s1")
    assert "Your server 'exp' (tier Small slice) ended at Mon 23 Nov 2026 09:00 UTC" in str(found)
    assert "a program is still running on its slice" in str(found)
    assert "try again then" in str(found)
    assert "4711" not in str(found)
    # The form and a request to wait get the same answer.
    assert offer_of(lab, "s1") == (False, str(found))


def test_a_start_may_wait_for_what_has_just_ended_but_not_for_what_is_stuck(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(quotas={"default": {"live": 2}})
    lab.report()
    end(lab, lab.start(server="one"))
    lab.clock.pass_time(seconds=50)
    lab.start(server="two")
    assert refusal(lab, "ada", server="three").soon is True
    lab.clock.pass_time(seconds=10)
    assert refusal(lab, "ada", server="three").soon is False
    end(lab, lab.broker.leases.find(user="ada")[1])
    # The second one is over in a moment, which is enough.
    assert refusal(lab, "ada", server="three").soon is True
    # Nothing that runs is over in a moment.
    lab.start("grace", server="one")
    lab.start("grace", server="two")
    assert refusal(lab, "grace", server="three").soon is False


def test_only_what_is_over_soon_makes_others_wait_for_a_full_tier(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report(card(0, [("1g.5gb", 0)]))
    end(lab, lab.start("grace"))
    lab.clock.pass_time(seconds=59)
    assert lab.broker.leases.being_returned("small")
    lab.clock.pass_time(seconds=1)
    assert not lab.broker.leases.being_returned("small")


def test_a_whole_card_that_is_cut_back_is_waited_for(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report(card(0, MIXED))
    lab.grant()
    lease = lab.start("ada", "card")
    lab.report(card(0, WHOLE))
    lab.broker.layouts.finish_target("GPU-0")
    lab.stop(lease)
    assert refusal(lab, "ada", "card").reason == "capacity"
    assert lab.broker.leases.being_returned("card")
    assert lab.broker.leases.being_returned("medium")
    assert not lab.broker.leases.being_returned("cpu")
    lab.report(card(0, MIXED))
    lab.broker.layouts.finish_target("GPU-0")
    assert not lab.broker.leases.being_returned("card")
    lab.start("ada", "card")


def test_whole_cards_that_are_not_proven_empty_count(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"whole_cards": 1}})
    lab.report()
    lab.grant()
    lab.grant()
    end(lab, lab.start("ada", "card"))
    found = refusal(lab, "ada", "card", server="b")
    assert (found.reason, found.soon) == ("quota", True)
    assert "1 whole card at a time" in str(found)
    assert "ended at" in str(found)
    assert limits(lab) == {"whole_cards": 1}
    # A slice is no whole card, and a slice that ends is none either.
    end(lab, lab.start("ada", "small", server="c"))
    assert limits(lab) == {"whole_cards": 1}


def test_no_grant_holds_two_cards(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report()
    lab.grant()
    lease = end(lab, lab.start("ada", "card"))
    for server in ("", "other"):
        found = refusal(lab, "ada", "card", server=server)
        assert (found.reason, found.soon) == ("approval", True)
        assert "Your grant for tier 'card' is still in use. Your default server" in str(found)
    assert offer_of(lab, "card") == (False, str(found))
    lab.clock.pass_time(minutes=1)
    lab.report()
    assert refusal(lab, "ada", "card").soon is False
    # Another grant is not in use.
    lab.grant()
    second = lab.start("ada", "card")
    assert second.request_id != lease.request_id
    lab.broker.leases.confirm_empty(lease.id)
    lab.report()
    lab.broker.layouts.finish_target(lease.card_uuid)
    assert lab.start("ada", "card", server="other").request_id == lease.request_id


def test_the_form_says_that_a_grant_is_in_use_as_the_start_does(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report()
    grant = lab.grant()
    lab.start("ada", "card", server="exp")
    found = refusal(lab, "ada", "card")
    assert (found.reason, found.soon) == ("approval", False)
    assert offer_of(lab, "card") == (False, str(found))
    (offer,) = (each for each in lab.broker.tiers.of(ADA) if each.tier.name == "card")
    assert offer.grant is not None
    assert offer.grant.id == grant.id
    assert not offer.may_ask


def test_what_is_held_for_a_place_has_its_grant_at_every_hub(make_lab: MakeLab) -> None:
    lab = make_lab()
    other = make_lab(hub="west")
    lab.report()
    for each in (lab, other):
        each.broker.hubs.claim(f"{each.broker.hub}:/etc/hub.py")
    lab.grant()
    first, second = (lab.start(name, "card") for name in ("grace", "linus") if lab.grant(name))
    here = lab.broker.queue.join(ADA, "card")
    there = other.broker.queue.join(ADA, "card")
    for lease in (first, second):
        lab.stop(lease)
    lab.report()
    for uuid in ("GPU-0", "GPU-1"):
        lab.broker.layouts.finish_target(uuid)
    assert lab.broker.offers.make(here.id, ADA).lease is not None
    # One card for the one grant, no matter who asks for it and where.
    assert other.broker.offers.make(there.id, ADA).lease is None
    found = refusal(other, "ada", "card")
    assert found.reason == "approval"
    assert "a card is held for your ticket at hub 'hub'" in str(found)
    lab.start("ada", "card")
    assert sum(lease.whole for lease in lab.broker.leases.find()) == 1


def test_an_offer_is_not_made_on_a_grant_that_a_running_server_has(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report()
    lab.broker.hubs.claim("here:/etc/hub.py")
    lab.grant()
    lab.grant("grace")
    running, other = lab.start("ada", "card"), lab.start("grace", "card")
    ticket = lab.broker.queue.join(ADA, "card")
    lab.stop(other)
    lab.report()
    lab.broker.layouts.finish_target(other.card_uuid)
    offered = lab.broker.offers.make(ticket.id, ADA)
    assert offered.lease is None
    assert "in use by your default server" in offered.ticket.blocked
    lab.stop(running)
    assert lab.broker.offers.make(ticket.id, ADA).lease is not None


def test_a_place_is_not_served_beyond_the_quota(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    lab.report()
    lab.broker.hubs.claim("here:/etc/hub.py")
    lease = end(lab, lab.start())
    ticket = lab.broker.queue.join(ADA, "small", server="other")
    offered = lab.broker.offers.make(ticket.id, ADA)
    assert offered.lease is None
    assert "1 GPU server at a time" in offered.why
    # It may be over in a moment, so the place is not passed over for it.
    assert offered.ticket.blocked == ""
    lab.clock.pass_time(minutes=1)
    lab.report()
    blocked = lab.broker.offers.make(ticket.id, ADA).ticket.blocked
    assert blocked == str(refusal(lab, "ada"))
    lab.broker.leases.confirm_empty(lease.id)
    assert lab.broker.offers.make(ticket.id, ADA).lease is not None


def test_what_was_offered_and_not_taken_keeps_nobody_from_a_start(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    lab.report(card(0, [("1g.5gb", 0), ("1g.5gb", 1)]))
    lab.broker.hubs.claim("here:/etc/hub.py")
    others = [lab.start("grace"), lab.start("linus")]
    ticket = lab.broker.queue.join(ADA, "small")
    for lease in others:
        lab.stop(lease)
    held = lab.broker.offers.make(ticket.id, ADA).lease
    assert held is not None
    lab.broker.queue.leave(ticket.id, ADA)
    assert lab.broker.leases.get(held.id).state == "releasing"
    assert limits(lab) == {"live": 0}
    assert offer_of(lab)[0] is True
    lab.start("ada")
    # Another place is not served beside it, though.
    again = lab.broker.queue.join(Person("linus"), "medium")
    assert lab.broker.offers.make(again.id, Person("linus")).lease is None


def test_sessions_that_have_ended_count_as_servers(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"servers": 2}})
    lab.report()
    end(lab, lab.start(server="one"))
    assert limits(lab, servers=0) == {"servers": 1}
    assert limits(lab) == {"servers": None}
    end(lab, lab.start(server="one"))
    found = refusal(lab, "ada", server="two")
    assert "2 servers at a time and you have 2" in str(found)
    assert found.soon is True
    assert refusal(lab, "ada", "small", server="two").reason == "quota"


def test_a_server_that_the_hub_is_stopping_is_counted_once(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"servers": 2}})
    other = make_lab(hub="west", quotas={"default": {"servers": 2}})
    lab.report()
    end(lab, lab.start(server="one"))
    found = lab.broker.quotas.of(ADA, servers=1, stopping=["one"])
    assert [each.used for each in found] == [1]
    start = lab.broker.leases.acquire
    assert start(ADA, "two", "small", "a1", other_servers=1, stopping=["one"]) is not None
    lab.broker.leases.cancel("a1", "never mind")
    with pytest.raises(Refusal, match="you have 3"):
        start(ADA, "two", "small", "a2", other_servers=1)
    # What runs at another hub is counted there.
    assert [each.used for each in other.broker.quotas.of(ADA, servers=0)] == [0]


def test_hours_run_until_the_proof(make_lab: MakeLab) -> None:
    lab = make_lab(quotas={"default": {"gpu_hours_per_week": 1}})
    lab.report()
    lease = end(lab, lab.start())
    lab.clock.pass_time(hours=7)
    lab.report()
    assert limits(lab)["gpu_hours_per_week"] == pytest.approx(1)
    assert refusal(lab, "ada").reason == "quota"
    lab.broker.leases.confirm_empty(lease.id)
    lab.clock.pass_time(hours=7)
    assert limits(lab)["gpu_hours_per_week"] == pytest.approx(1)


def test_a_slice_that_is_not_proven_empty_is_lent_to_nobody(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report(card(0, [("1g.5gb", 0)]))
    lease = end(lab, lab.start())
    lab.clock.pass_time(hours=1)
    lab.report(card(0, [("1g.5gb", 0)]))
    assert refusal(lab, "grace").reason == "capacity"
    (status,) = lab.broker.slices.find()
    assert (status.state, status.leases) == ("leased", (lab.broker.leases.get(lease.id),))
    assert status.why.startswith("A session on it ended at Mon 23 Nov 2026 09:00 UTC")


def test_nobody_plans_with_the_end_of_what_is_stuck(make_lab: MakeLab) -> None:
    """A card that something keeps is not the one that a coming grant will have."""
    tiers = [{"name": "card", "profile": "whole", "approval": True, "max_hours": 5}]
    lab = make_lab(tiers=tiers, approvers=["user:root"])
    lab.report()
    lab.grant("grace", hours=1)
    end(lab, lab.start("grace", "card"))
    lab.clock.pass_time(hours=2)
    lab.report()
    # Ada's grant begins in three hours: one card is left, and grace's session would have ended.
    begin = lab.clock() + timedelta(hours=3)
    request = lab.broker.requests.create(ADA, "card", 2, "later", starts_at=begin)
    lab.broker.requests.decide(request.id, ROOT, True)
    lab.grant("linus", hours=5)
    assert lab.start("linus", "card").ends_at == begin


def test_nobody_who_waits_is_promised_what_is_stuck(make_lab: MakeLab) -> None:
    tiers = [{"name": "small", "profile": "1g.5gb", "max_hours": 2}]
    lab = make_lab(tiers=tiers)
    lab.report(card(0, (("1g.5gb", 0), ("1g.5gb", 1))))
    lab.start("grace")
    lease = end(lab, lab.start("linus"))
    lab.broker.hubs.claim("here")
    lab.broker.queue.join(ADA, "small")

    def wait() -> tuple[timedelta | None, timedelta | None, int]:
        (status,) = lab.broker.queue.status("ada")
        assert status.expectation is not None
        found = status.expectation
        return found.likely, found.latest, found.stuck

    assert wait() == (timedelta(0), timedelta(0), 0)  # proven empty in a moment, as a rule
    lab.clock.pass_time(minutes=1)
    left = timedelta(minutes=119)
    assert wait() == (left, left, 1)
    lab.clock.pass_time(hours=3)
    assert wait() == (None, None, 2)  # grace's should have ended, too
    lab.broker.leases.confirm_empty(lease.id)
    assert wait() == (None, None, 1)


def test_admins_are_told_once_of_a_slice_that_stays_taken(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report()
    lease = end(lab, lab.start(), "processes of the ended server are still running: pid 4711")
    lab.start("grace")
    assert lab.broker.notices.warn_of_stuck() == ()
    lab.clock.pass_time(minutes=4, seconds=59)
    assert lab.broker.notices.warn_of_stuck() == ()
    lab.broker.slices.keep_back(
        lease.slice_id, "Not empty after lease 1: process 4711 (python, user ada); kill"
    )
    lab.clock.pass_time(seconds=1)
    assert [each.id for each in lab.broker.notices.warn_of_stuck()] == [lease.id]
    (event,) = [each for each in lab.broker.events.find() if each.kind == "lease.stuck"]
    assert event.user == "ada"
    assert "process 4711 (python, user ada)" in event.detail["why"]
    assert event.detail["mend"].startswith("Run that command on node n1")
    lab.clock.pass_time(hours=9)
    assert lab.broker.notices.warn_of_stuck() == ()
    other = Lab(lab.url, clock=lab.clock, hub="physics")
    assert other.broker.notices.warn_of_stuck() == ()
    other.close()


def test_two_services_tell_of_a_slice_that_stays_taken_once(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report()
    for user in ("ada", "grace", "linus"):
        end(lab, lab.start(user))
    lab.clock.pass_time(minutes=5)
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: lab.broker.notices.warn_of_stuck(), range(4)))
    assert sorted(lease.user for each in told for lease in each) == ["ada", "grace", "linus"]
    assert lab.kinds().count("lease.stuck") == 3


def test_a_card_that_is_stuck_is_not_counted_on_for_a_coming_grant(make_lab: MakeLab) -> None:
    tiers = [
        {"name": "small", "profile": "1g.5gb", "max_hours": 1},
        {"name": "card", "profile": "whole", "approval": True, "max_hours": 5},
    ]
    lab = make_lab(tiers=tiers, approvers=["user:root"])
    lab.report()
    lab.grant("grace", hours=1)
    stuck = end(lab, lab.start("grace", "card"))
    lab.start("linus", "small")
    request = lab.broker.requests.create(
        ADA, "card", 2, "later", starts_at=lab.clock() + timedelta(minutes=30)
    )
    lab.broker.requests.decide(request.id, ROOT, True)
    lab.clock.pass_time(minutes=2)
    lab.report()
    kept = lab.broker.reservations.keep()
    assert kept
    assert stuck.card_uuid not in kept


def test_admins_see_what_keeps_a_slice_and_its_holder_sees_words(make_lab: MakeLab) -> None:
    lab = make_lab()
    lab.report(card(0, SEVENTHS))
    lease = end(lab, lab.start())
    (slice_,) = (each for each in lab.broker.slices.find() if each.leases)
    (seen,) = views.slice_view(slice_)["unproven"]
    assert (seen["lease"], seen["releasing_at"]) == (lease.id, "2026-11-23T09:00:00Z")
    assert seen["waiting_for"] == "NVML still lists pid 4711"
    assert "kill -9 4711" in seen["mend"]
    (mine,) = views.slice_view(slice_, ADA)["unproven"]
    assert mine["waiting_for"] == "a program is still running on its slice"
    assert mine["mend"] == ""
    assert views.slice_view(slice_, Person("grace"))["unproven"] == []
    full, own = views.lease_view(lease), views.lease_view(lease, admin=False)
    assert full["releasing_at"] == own["releasing_at"] == "2026-11-23T09:00:00Z"
    assert "kill -9 4711" in full["mend"]
    assert (own["waiting_for"], own["mend"]) == ("a program is still running on its slice", "")
    lab.broker.slices.quarantine(
        slice_.row.id, "pid 4711 of user mallory; `sudo kill -9 4711`", "agent"
    )
    (shut,) = (each for each in lab.broker.slices.find() if each.leases)
    assert "mallory" in views.slice_view(shut)["why"]
    assert "mallory" not in str(views.slice_view(shut, ADA))
    (entry,) = views.card_view(lab.broker.cards.find()[0], lab.broker.slices.find())["unproven"]
    assert (entry["lease"], entry["user"]) == (lease.id, "ada")
    assert "Run that command on node n1" in entry["mend"]
    lab.broker.leases.confirm_empty(lease.id)
    (empty,) = (each for each in lab.broker.slices.find() if each.state == "quarantined")
    assert "mallory" in views.slice_view(empty)["why"]
    assert "mallory" not in views.slice_view(empty, ADA)["why"]
    assert views.card_view(lab.broker.cards.find()[0], lab.broker.slices.find())["unproven"] == []


def test_ending_what_is_ending_says_what_keeps_it_and_the_way_out(lab: Lab) -> None:
    lease = end(lab, lab.start(), "processes of the ended server are still running: pid 7, 8")
    before = lab.stored()
    with pytest.raises(Refusal) as caught:
        lab.broker.leases.release(lease.id, "again", "root")
    said = str(caught.value)
    assert caught.value.reason == "conflict"
    assert f"Lease {lease.id} of ada already ended at Mon 23 Nov 2026 09:00 UTC" in said
    assert "(the server stopped)" in said
    assert "still running: pid 7, 8" in said
    assert "kill -9 7 8" in said
    assert lab.stored() == before
    lab.broker.leases.note_waiting(lease.id, "NVML cannot say who is on it: unknown error")
    with pytest.raises(Refusal, match="nvidia-smi"):
        lab.broker.leases.release(lease.id, "again", "root")
    lab.broker.slices.quarantine(lease.slice_id, "on node n1, `sudo kill -9 7` ends it", "agent")
    with pytest.raises(Refusal, match="It is quarantined: on node n1, `sudo kill -9 7` ends it"):
        lab.broker.leases.release(lease.id, "again", "root")
