"""Tiers that say which cards they mean, on machines with cards of several models."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.db.allocation.slices import MOST_OFFERED
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import A30, START, card
from tests.broker.lab import WHOLE as CUT_WHOLE
from tests.broker.mixed_cards import (
    GRANTS,
    HOME,
    LINES,
    ONE,
    ROOT,
    TENS,
    MakeLab,
    a30,
    a100_80,
    busy,
    cold,
    figures,
    h100,
    held,
    join,
    lab_of,
    offer,
    offers,
    places,
    promise,
    reserved,
    t4,
    tier,
    turns,
)
from tests.broker.test_idle_sessions import hear
from tests.broker.test_lease_life import refused

pytestmark = pytest.mark.usefixtures("watched")


# -- what is given out -------------------------------------------------------------------------


WHOLES = [
    tier("big", "whole", "A100*"),
    tier("bare", "whole", "A100*", mig="off"),
    tier("old", "whole", "T4", mig="off"),
    tier("any", "whole", mig="off"),
    tier("memory", "whole", ">=80GB"),
]


def test_a_whole_card_is_one_of_those_that_the_tier_means(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, WHOLES, t4(0), a30(1), card(2), a100_80(3), t4(4))
    assert figures(lab) == {
        "big": (2, 2),
        "bare": (2, 2),
        "old": (2, 2),
        "any": (5, 5),
        "memory": (1, 1),
    }
    assert lab.start("ada", "memory").card_uuid == "GPU-3"
    assert lab.start("bob", "bare").card_uuid == "GPU-2"
    assert figures(lab) == {
        "big": (0, 2),
        "bare": (0, 2),
        "old": (2, 2),
        "any": (3, 5),
        "memory": (0, 1),
    }
    assert figures(lab) == figures(lab, cold(lab))
    said = refused("capacity", lab.start, "eve", "bare")
    assert "all 2 cards are in use" in said
    assert {lab.start(f"u{n}", "old").card_uuid for n in range(2)} == {"GPU-0", "GPU-4"}
    assert lab.start("joe", "any").card_uuid == "GPU-1"


def test_a_slice_is_on_a_card_that_the_tier_means(make_lab: MakeLab) -> None:
    tiers = [tier("h", "1g.10gb", "H100*"), tier("a", "1g.10gb", "A100*"), tier("any", "1g.10gb")]
    lab = lab_of(make_lab, tiers, a100_80(0, TENS[:2]), h100(1, TENS[:2]))
    assert figures(lab) == {"h": (2, 2), "a": (2, 2), "any": (4, 4)}
    assert [lab.start(f"u{n}", "h").card_uuid for n in range(2)] == ["GPU-1", "GPU-1"]
    assert figures(lab) == {"h": (0, 2), "a": (2, 2), "any": (2, 4)} == figures(lab, cold(lab))
    assert "2 of 2 are in use" in refused("capacity", lab.start, "eve", "h")
    assert [lab.start(f"v{n}", "any").card_uuid for n in range(2)] == ["GPU-0", "GPU-0"]
    refused("capacity", lab.start, "eve", "a")


def test_a_slice_is_found_behind_many_cards_of_another_model(make_lab: MakeLab) -> None:
    tiers = [tier("h", "1g.10gb", "H100*")]
    many = [a100_80(n, ONE) for n in range(2 * MOST_OFFERED)]
    lab = lab_of(make_lab, tiers, *many, h100(99, ONE))
    assert lab.start("ada", "h").card_uuid == "GPU-99"
    refused("capacity", lab.start, "eve", "h")


def test_a_node_that_is_asked_for_counts_with_the_cards_of_the_tier(make_lab: MakeLab) -> None:
    lab = make_lab(tiers=[tier("h", "1g.10gb", "H100*")])
    lab.report(h100(0), node="n1")
    lab.report(a100_80(1), node="n2")
    lab.report(a100_80(2), h100(3), node="n3")
    refused("capacity", lab.start, "ada", "h", node="n2")
    assert lab.start("ada", "h", node="n3").card_uuid == "GPU-3"


def test_seats_are_on_the_cards_of_their_tier(make_lab: MakeLab) -> None:
    course = tier("course", "1g.10gb", "H100*", seats=2)
    lab = lab_of(make_lab, [course, tier("any", "1g.10gb")], a100_80(0), h100(1, TENS[:2]))
    leases = [lab.start(f"u{n}", "course") for n in range(3)]
    assert {lease.card_uuid for lease in leases} == {"GPU-1"}
    assert figures(lab) == {"course": (1, 4), "any": (7, 9)} == figures(lab, cold(lab))
    lab.start("u3", "course")
    refused("capacity", lab.start, "u4", "course")


def test_nobody_joins_a_slice_on_a_card_that_its_tier_does_not_mean_any_more(
    make_lab: MakeLab,
) -> None:
    """They who sit there stay."""
    course = tier("course", "1g.10gb", seats=4)
    before = lab_of(make_lab, [course], a100_80(0), h100(1))
    first = before.start("u0", "course")
    other = {"GPU-0": "H100*", "GPU-1": "A100*"}[first.card_uuid]
    after = make_lab(tiers=[{**course, "card": other}])
    second = after.start("u1", "course")
    assert second.card_uuid != first.card_uuid
    assert after.broker.leases.get(first.id).state == "pending"
    # Of theirs are three seats left, and four on each of the other six slices.
    assert figures(after)["course"] == (27, 28)


def test_a_tier_for_which_there_is_no_card_says_so(make_lab: MakeLab) -> None:
    tiers = [tier("h", "1g.10gb", "H100*"), tier("w", "whole", ">=80GB"), tier("any", "1g.5gb")]
    lab = lab_of(make_lab, tiers, card(0))
    assert figures(lab) == {"h": (0, 0), "w": (0, 0), "any": (7, 7)}
    why = {name: offer.why for name, offer in offers(lab).items()}
    assert why["h"].endswith("no card of model H100* is cut into 1g.10gb now.")
    assert why["w"].endswith("no card with at least 80 GB is in service with MIG on.")
    assert why["h"] in refused("capacity", lab.start, "ada", "h")
    # Those who wait for it are in nobody's way.
    ticket = join(lab, "ada", "h")
    assert places(lab) == {ticket.id: 1}
    assert lab.start("bob", "any").card_uuid == "GPU-0"
    assert not lab.broker.leases.being_returned("h")


def test_only_what_the_tier_means_is_on_its_way_back(make_lab: MakeLab) -> None:
    tiers = [tier("h", "1g.10gb", "H100*"), tier("a", "1g.10gb", "A100*")]
    lab = lab_of(make_lab, tiers, a100_80(0, ONE), h100(1, ONE))
    lease = lab.start("ada", "h")
    lab.broker.leases.release_server("ada", "", "stopped", "ada")
    assert (lab.broker.leases.being_returned("h"), lab.broker.leases.being_returned("a")) == (
        True,
        False,
    )
    lab.broker.leases.confirm_empty(lease.id)
    assert not lab.broker.leases.being_returned("h")


def test_a_card_that_cannot_be_read_is_still_what_it_was(make_lab: MakeLab) -> None:
    tiers = [tier("big", "1g.10gb", ">=80GB")]
    lab = lab_of(make_lab, tiers, a100_80(0))
    failing = replace(a100_80(0), memory_mib=0, model="", problem="no answer", code=999)
    lab.report(failing)
    (known,) = lab.broker.cards.find()
    assert (known.model, known.memory_mib) == ("NVIDIA A100 80GB PCIe", 81920)
    assert offers(lab)["big"].outage == "Its only card is out of service."


def test_only_cards_that_the_tier_means_are_told_to_be_out_of_service(make_lab: MakeLab) -> None:
    tiers = [tier("h", "1g.10gb", "H100*"), tier("a", "1g.10gb", "A100*"), tier("w", "whole", "A*")]
    lab = lab_of(make_lab, tiers, a100_80(0), h100(1), h100(2))
    lab.broker.cards.drain("GPU-1", "a fan is loud", "root")
    lab.broker.cards.drain("GPU-0", "it is hot", "root")
    said = {offer.tier.name: offer.outage for offer in lab.broker.tiers.of(Person("r", admin=True))}
    assert said == {
        "h": "1 of its cards is out of service: a fan is loud.",
        "a": "Its only card is out of service: it is hot.",
        "w": "Its only card is out of service: it is hot.",
    }
    assert figures(lab) == {"h": (7, 7), "a": (0, 0), "w": (0, 0)} == figures(lab, cold(lab))


def test_tiers_share_with_those_on_the_same_cards(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, LINES, a100_80(0), h100(1))
    shares = {
        name: ([each.name for each in offer.shares_with], offer.shares_all)
        for name, offer in offers(lab).items()
    }
    assert shares == {
        "h": (["large", "any"], False),
        "a": (["large", "any"], False),
        "large": (["h", "a", "any"], False),
        "any": (["h", "a", "large"], False),
    }


# -- the waiting list --------------------------------------------------------------------------


def test_tiers_of_other_cards_have_lines_of_their_own(make_lab: MakeLab) -> None:
    lab, of_a, _ = busy(make_lab)
    first, second = join(lab, "ada", "h"), join(lab, "bob", "a")
    both, same = join(lab, "cyd", "any"), join(lab, "dan", "a")
    assert places(lab) == {first.id: 1, second.id: 1, both.id: 3, same.id: 3}
    lab.stop(of_a)
    assert turns(lab) == [second.id]
    assert held(lab, second).card_uuid == "GPU-0"
    overtaken = {t.id: t.overtaken for t in lab.broker.queue.tickets(states=("waiting",))}
    # It could not have had that slice: nobody has overtaken it.
    assert overtaken[first.id] == 0


def test_of_two_tiers_that_mean_the_same_card_the_first_to_wait_is_first(
    make_lab: MakeLab,
) -> None:
    lab, _, of_h = busy(make_lab)
    first, second = join(lab, "ada", "any"), join(lab, "bob", "h")
    lab.stop(of_h)
    # There is one slice, and one turn.
    assert turns(lab) == [first.id]
    assert held(lab, first).card_uuid == "GPU-1"
    assert turns(lab) == []
    assert places(lab)[second.id] == 1


def test_who_is_served_before_an_earlier_one_that_waits_for_the_same_card_overtakes_it(
    make_lab: MakeLab,
) -> None:
    lab, _, of_h = busy(make_lab)
    first, second, third = (
        join(lab, user, name) for user, name in [("ada", "any"), ("bob", "a"), ("cyd", "h")]
    )
    lab.stop(of_h)
    assert held(lab, third).card_uuid == "GPU-1"
    overtaken = {t.id: t.overtaken for t in lab.broker.queue.tickets(states=("waiting",))}
    assert overtaken == {first.id: 1, second.id: 0}


def test_a_start_takes_what_nobody_who_waits_could_have(make_lab: MakeLab) -> None:
    """A user waits for an H100; a free A100 would lie idle until then."""
    lab, of_a, of_h = busy(make_lab)
    waits = join(lab, "ada", "h")
    lab.stop(of_a)
    found = offers(lab)
    assert {name: (each.usable, each.waiting) for name, each in found.items()} == {
        "h": (False, 1),
        "a": (True, 0),
        "large": (True, 1),
        "any": (True, 1),
    }
    assert lab.start("bob", "any").card_uuid == "GPU-0"
    assert not offers(lab)["any"].usable
    lab.stop(of_h)
    # Now the only one that is free is waited for.
    assert offers(lab)["any"].why.startswith("1 person is waiting for tier any")
    assert "1 person is waiting" in refused("capacity", lab.start, "cyd", "any")
    assert held(lab, waits).card_uuid == "GPU-1"


def test_with_both_free_a_start_leaves_the_one_that_is_waited_for(make_lab: MakeLab) -> None:
    lab, of_a, of_h = busy(make_lab)
    waits = join(lab, "ada", "h")
    lab.stop(of_a)
    lab.stop(of_h)
    assert lab.start("bob", "any").card_uuid == "GPU-0"
    refused("capacity", lab.start, "cyd", "large")
    assert held(lab, waits).card_uuid == "GPU-1"


def test_of_two_free_ones_a_ticket_takes_the_one_that_no_other_waits_for(
    make_lab: MakeLab,
) -> None:
    for name in ("a", "h"):
        lab, of_a, of_h = busy(make_lab)
        first, second = join(lab, "ada", "any"), join(lab, "bob", name)
        lab.stop(of_a)
        lab.stop(of_h)
        assert turns(lab) == [first.id, second.id]
        assert held(lab, first).card_uuid == {"a": "GPU-1", "h": "GPU-0"}[name]
        assert held(lab, second).card_uuid == {"a": "GPU-0", "h": "GPU-1"}[name]
        for lease in lab.broker.leases.find():
            lab.broker.queue.leave(lease.ticket_id or 0, ROOT)
            lab.broker.leases.confirm_empty(lease.id)


def test_any_card_is_waited_for_before_a_start_for_certain_ones(make_lab: MakeLab) -> None:
    lab, of_a, _ = busy(make_lab)
    waits = join(lab, "ada", "any")
    lab.stop(of_a)
    assert "1 person is waiting" in refused("capacity", lab.start, "bob", "a")
    assert held(lab, waits).card_uuid == "GPU-0"


def test_the_wait_is_for_sessions_on_the_cards_of_the_tier(make_lab: MakeLab) -> None:
    tiers = [{**each, "max_hours": 8} for each in LINES]
    lab, *_ = busy(make_lab, tiers)
    lab.clock.pass_time(hours=1)
    lab.report(a100_80(0, ONE), h100(1, ONE))
    lab.broker.hubs.claim(HOME)
    lab.stop(lab.broker.leases.find(user="sam")[0])
    lab.start("sam", "h")
    first, second = join(lab, "ada", "h"), join(lab, "bob", "a")
    latest = {s.row.id: s.expectation.latest for s in lab.broker.queue.status() if s.expectation}
    assert latest == {first.id: timedelta(hours=8), second.id: timedelta(hours=7)}


def test_an_idle_session_is_wanted_by_who_could_use_its_card(make_lab: MakeLab) -> None:
    idle = {"idle_minutes": 60, "idle_minutes_when_wanted": 20}
    lab = lab_of(make_lab, [{**each, **idle} for each in LINES], a100_80(0, ONE), h100(1, ONE))
    leases = [lab.start("mary", "any"), lab.start("sam", "any")]
    assert {lease.card_uuid for lease in leases} == {"GPU-0", "GPU-1"}
    for lease in leases:
        lab.broker.leases.activate(lease.attempt)
        hear(lab, lease)
    lab.clock.pass_time(minutes=30)
    lab.report(a100_80(0, ONE), h100(1, ONE))
    lab.broker.hubs.claim(HOME)
    for lease in leases:
        hear(lab, lease)
    assert not any(each.verdict.warn for each in lab.broker.sessions.standings())
    join(lab, "ada", "h")
    wanted = {each.lease.card_uuid for each in lab.broker.sessions.standings() if each.verdict.warn}
    assert wanted == {"GPU-1"}


def test_any_larger_tier_is_one_on_the_same_cards(make_lab: MakeLab) -> None:
    tiers = [
        *LINES,
        tier("half", "3g.40gb", "A100*"),
        tier("half-h", "3g.40gb", "H100*"),
        tier("half-any", "3g.40gb"),
        tier("quarter", "2g.20gb", "A100*80GB*"),
    ]
    lab, *_ = busy(make_lab, tiers)
    assert join(lab, "ada", "a", upward=True).tiers == ("a", "quarter", "half")
    assert join(lab, "bob", "any", upward=True).tiers == (
        *("any", "quarter", "half", "half-any", "half-h"),
    )
    assert join(lab, "cyd", "large", upward=True).tiers == (
        *("large", "quarter", "half", "half-any", "half-h"),
    )


def test_a_larger_tier_of_a_ticket_that_means_other_cards_by_now_is_left_out(
    make_lab: MakeLab,
) -> None:
    half = tier("half", "3g.40gb", "A100*")
    before = lab_of(
        make_lab, [*LINES, half], a100_80(0, ONE), h100(1, [("1g.10gb", 0), ("3g.40gb", 4)])
    )
    before.start("mary", "a")
    ticket = join(before, "ada", "a", upward=True)
    assert ticket.tiers == ("a", "half")
    after = make_lab(tiers=[*LINES, {**half, "card": "H100*"}])
    after.broker.hubs.claim(HOME)
    assert offer(after, ticket).lease is None
    assert after.broker.queue.tickets()[0].tiers == ("a",)


# -- after a change of the configuration -------------------------------------------------------


@pytest.mark.parametrize(
    "now",
    [tier("a", "1g.10gb", "H100*"), tier("a", "3g.40gb", "A100*"), tier("a", "whole", "A100*")],
    ids=["other cards", "another size", "a whole card"],
)
def test_what_is_held_and_is_not_what_the_tier_gives_any_more_is_given_back(
    make_lab: MakeLab, now: dict[str, Any]
) -> None:
    before, of_a, _ = busy(make_lab)
    ticket = join(before, "ada", "a")
    before.stop(of_a)
    lease = held(before, ticket)
    after = make_lab(tiers=[now])
    after.broker.hubs.claim(HOME)
    assert offers(after, "ada")["a"].held is None
    (again,) = after.broker.offers.settle()
    assert (again.id, again.state) == (ticket.id, "waiting")
    given_back = after.broker.leases.get(lease.id)
    assert given_back.state == "releasing"
    assert "not what its tier gives any more" in given_back.end_reason


def test_what_is_held_and_still_fits_stays(make_lab: MakeLab) -> None:
    before, of_a, _ = busy(make_lab)
    ticket = join(before, "ada", "a")
    before.stop(of_a)
    lease = held(before, ticket)
    after = make_lab(tiers=[tier("a", "1g.10gb", ">=80GB")])
    after.broker.hubs.claim(HOME)
    assert after.broker.offers.settle() == ()
    assert after.start("ada", "a").id == lease.id


def test_a_whole_card_that_is_held_stays_or_goes_by_its_mode(make_lab: MakeLab) -> None:
    before = lab_of(make_lab, [tier("w", "whole", "A100*")], card(0, CUT_WHOLE))
    taken = before.start("mary", "w")
    ticket = join(before, "ada", "w")
    before.stop(taken)
    lease = held(before, ticket)
    assert before.broker.offers.settle() == ()
    after = make_lab(tiers=[tier("w", "whole", "A100*", mig="off")])
    after.broker.hubs.claim(HOME)
    assert [each.state for each in after.broker.offers.settle()] == ["waiting"]
    assert after.broker.leases.get(lease.id).state == "releasing"


def test_a_start_does_not_take_over_what_does_not_fit(make_lab: MakeLab) -> None:
    before, of_a, of_h = busy(make_lab)
    ticket = join(before, "ada", "a")
    before.stop(of_a)
    before.stop(of_h)
    old = held(before, ticket)
    after = make_lab(tiers=[tier("a", "1g.10gb", "H100*")])
    after.broker.hubs.claim(HOME)
    lease = after.start("ada", "a")
    assert (lease.card_uuid, old.card_uuid) == ("GPU-1", "GPU-0")
    assert after.broker.leases.get(old.id).state == "releasing"
    assert after.broker.queue.tickets() == ()


def test_a_session_on_a_card_that_its_tier_does_not_mean_any_more_goes_on(
    make_lab: MakeLab,
) -> None:
    before = lab_of(make_lab, [tier("w", "whole", "A30")], a30(0), card(1))
    lease = before.start("ada", "w")
    before.broker.leases.activate(lease.attempt)
    after = make_lab(tiers=[tier("w", "whole", "A100*")])
    after.broker.hubs.claim(HOME)
    after.report(card(0, [("4g.24gb", 0)], profiles=A30), card(1))
    after.broker.offers.settle()
    assert after.broker.leases.get(lease.id).state == "active"
    assert figures(after) == {"w": (1, 1)}


# -- grants ------------------------------------------------------------------------------------


def test_a_card_is_emptied_for_a_grant_only_if_its_tier_means_it(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, GRANTS, card(0), a30(1))
    # The A30 would disturb fewer people.
    for user in ("sam", "mary"):
        lab.start(user, "small")
    lab.start("joe", "sixth")
    grant = lab.grant("ada", "big")
    said = refused("capacity", lab.start, "ada", "big")
    assert "Card 0 of node n1 is being emptied" in said
    assert reserved(lab) == {"GPU-0": grant.id, "GPU-1": None}
    other = lab.grant("bob", "any")
    assert "Card 1 of node n1 is being emptied" in refused("capacity", lab.start, "bob", "any")
    assert reserved(lab) == {"GPU-0": grant.id, "GPU-1": other.id}


def test_nothing_is_emptied_where_no_busy_card_is_meant(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, GRANTS, a30(1))
    lab.start("joe", "sixth")
    lab.grant("ada", "big")
    said = refused("capacity", lab.start, "ada", "big")
    assert "being emptied" not in said
    assert "no card of model A100* is in service with MIG on" in said
    assert reserved(lab) == {"GPU-1": None}
    # Nor is a ticket's turn made of it.
    join(lab, "ada", "big")
    assert turns(lab) == []


def test_the_ticket_of_a_grant_has_its_turn_when_its_card_is_to_be_emptied(
    make_lab: MakeLab,
) -> None:
    lab = lab_of(make_lab, GRANTS, card(0), a30(1))
    lab.start("sam", "small")
    lab.grant("ada", "big")
    ticket = join(lab, "ada", "big")
    assert turns(lab) == [ticket.id]
    assert offer(lab, ticket).lease is None
    assert [uuid for uuid, grant in reserved(lab).items() if grant] == ["GPU-0"]


def test_an_emptied_card_is_given_back_when_the_tier_means_others(make_lab: MakeLab) -> None:
    before = lab_of(make_lab, GRANTS, card(0), a30(1))
    before.start("sam", "small")
    grant = before.grant("ada", "big")
    refused("capacity", before.start, "ada", "big")
    assert reserved(before)["GPU-0"] == grant.id
    after = make_lab(tiers=[{**GRANTS[0], "card": "A30"}, *GRANTS[1:]])
    after.broker.reservations.look_after()
    assert reserved(after) == {"GPU-0": None, "GPU-1": None}
    (event,) = [each for each in after.broker.events.find() if each.kind == "card.unreserved"]
    assert event.detail["why"] == "its tier now gives out other cards"
    assert after.start("ada", "big").card_uuid == "GPU-1"


def test_an_idle_card_that_is_kept_for_a_grant_has_to_fit(make_lab: MakeLab) -> None:
    before = lab_of(make_lab, GRANTS, card(0), a30(1))
    grant = promise(before, "ada", "big", 1)
    assert before.broker.reservations.keep() == ("GPU-0",)
    after = make_lab(tiers=[{**GRANTS[0], "card": "A30"}, *GRANTS[1:]])
    assert after.broker.reservations.keep() == ("GPU-1",)
    assert reserved(after) == {"GPU-0": None, "GPU-1": grant.id}


def test_grants_for_certain_cards_keep_theirs_before_those_for_any(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, GRANTS, card(0), a30(1))
    any_card = promise(lab, "bob", "any", 0.5)
    big = promise(lab, "ada", "big", 0.75)
    assert set(lab.broker.reservations.keep()) == {"GPU-0", "GPU-1"}
    assert reserved(lab) == {"GPU-0": big.id, "GPU-1": any_card.id}


def test_a_card_that_comes_back_in_time_is_kept_if_it_is_meant(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, GRANTS, card(0), a30(1))
    lab.grant("joe", "any", hours=1)
    lab.grant("eve", "big", hours=20)
    first, second = lab.start("eve", "big"), lab.start("joe", "any")
    assert (first.card_uuid, second.card_uuid) == ("GPU-0", "GPU-1")
    promise(lab, "ada", "big", 1.5)
    lab.clock.pass_time(hours=0.6)
    lab.report(card(0), a30(1))
    assert "GPU-1" not in lab.broker.reservations.keep()
    assert reserved(lab)["GPU-1"] is None


def test_a_coming_grant_shortens_sessions_on_its_cards_only(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, GRANTS, card(0), a30(1))
    promise(lab, "ada", "big", 20)
    lab.grant("bob", "big", hours=40)
    lab.grant("cyd", "any", hours=40)
    assert lab.start("bob", "big").ends_at == START + timedelta(hours=20)
    lease = lab.start("cyd", "any")
    assert lease.card_uuid == "GPU-1"
    assert lease.ends_at == START + timedelta(hours=40)


def test_right_before_a_grant_begins_only_other_cards_are_lent(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, GRANTS, card(0), a30(1))
    promise(lab, "ada", "big", 0.1)
    lab.grant("bob", "big", hours=4)
    lab.grant("cyd", "any", hours=4)
    lab.grant("dan", "any", hours=4)
    assert "is reserved for a grant that begins" in refused("capacity", lab.start, "bob", "big")
    assert lab.start("cyd", "any").card_uuid == "GPU-1"
    refused("capacity", lab.start, "dan", "any")
