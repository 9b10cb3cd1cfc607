"""Who gets which card, where tiers mean some of the same ones."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jupyterhub_migspawner.model.leases import LeaseRow
from tests.broker.lab import START, Lab, card
from tests.broker.lab import WHOLE as CUT_WHOLE
from tests.broker.mixed_cards import (
    GRANTS,
    HOME,
    ONE,
    MakeLab,
    a30,
    a100_80,
    cold,
    figures,
    h100,
    held,
    join,
    lab_of,
    offers,
    promise,
    reserved,
    t4,
    tier,
    turns,
)
from tests.broker.test_idle_sessions import hear
from tests.broker.test_lease_life import refused

H100_CUT_WHOLE = (("7g.80gb", 0),)
ANY_OR_H100 = [
    tier("any", "whole", approval=True),
    tier("h", "whole", "H100*"),
    tier("small", "1g.5gb"),
]


pytestmark = pytest.mark.usefixtures("watched")


# -- the card that is kept for a grant ---------------------------------------------------------


def with_a_kept_card(make_lab: MakeLab) -> tuple[Lab, LeaseRow, LeaseRow]:
    """Two cards that are taken, an A100 and an H100; the first is kept for a grant of ada's."""
    lab = lab_of(make_lab, ANY_OR_H100, card(0), h100(1, H100_CUT_WHOLE))
    of_h = lab.start("mary", "h")
    of_small = lab.start("sam", "small")
    grant = lab.grant("ada", "any")
    refused("capacity", lab.start, "ada", "any")
    assert reserved(lab)["GPU-0"] == grant.id
    return lab, of_h, of_small


def test_a_start_takes_the_card_kept_for_its_grant_before_any_other(make_lab: MakeLab) -> None:
    lab, of_h, of_small = with_a_kept_card(make_lab)
    lab.stop(of_small)
    waits = join(lab, "eve", "h")
    lab.stop(of_h)
    # The H100 is free as well, and cut already.
    assert lab.start("ada", "any").card_uuid == "GPU-0"
    assert held(lab, waits).card_uuid == "GPU-1"


def test_a_ticket_gets_the_card_kept_for_its_grant_before_any_other(make_lab: MakeLab) -> None:
    lab, of_h, of_small = with_a_kept_card(make_lab)
    of_ada, of_eve = join(lab, "ada", "any"), join(lab, "eve", "h")
    lab.stop(of_small)
    lab.stop(of_h)
    assert held(lab, of_ada).card_uuid == "GPU-0"
    assert held(lab, of_eve).card_uuid == "GPU-1"


def test_no_card_that_cannot_be_cut_is_kept_for_a_grant_with_mig_on(make_lab: MakeLab) -> None:
    tiers = [
        tier("card", "whole", approval=True, max_hours=48),
        tier("old", "whole", "T4", mig="off", max_hours=1),
        tier("small", "1g.5gb", max_hours=4),
    ]
    lab = lab_of(make_lab, tiers, card(1), t4(0))
    lab.start("sam", "small")
    lab.start("bob", "old")
    grant = promise(lab, "ada", "card", 2)
    lab.broker.reservations.keep()
    assert reserved(lab) == {"GPU-0": None, "GPU-1": grant.id}


def test_no_card_that_is_promised_to_one_grant_is_emptied_for_another(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, GRANTS, card(0), a30(1))
    promise(lab, "ada", "big", 0.1)
    lab.start("sam", "small")
    lab.start("joe", "sixth")
    lab.start("mary", "sixth")
    grant = lab.grant("bob", "any", hours=4)
    # The A100 would disturb fewer people.
    said = refused("capacity", lab.start, "bob", "any")
    assert "Card 1 of node n1 is being emptied" in said
    assert reserved(lab) == {"GPU-0": None, "GPU-1": grant.id}


# -- who waits ---------------------------------------------------------------------------------


def test_a_ticket_with_a_grant_leaves_the_whole_card_others_need(make_lab: MakeLab) -> None:
    tiers = [
        tier("any", "whole", approval=True, mig="off"),
        tier("h", "whole", "H100*", mig="off"),
    ]
    lab = lab_of(make_lab, tiers, card(5), h100(1))
    of_h = lab.start("mary", "h")
    lab.grant("sam", "any")
    of_any = lab.start("sam", "any")
    lab.grant("ada", "any")
    of_ada, of_bob = join(lab, "ada", "any"), join(lab, "bob", "h")
    lab.stop(of_h)
    lab.stop(of_any)
    lab.report(card(5), h100(1))
    for uuid in ("GPU-5", "GPU-1"):
        lab.broker.layouts.finish_target(uuid)
    assert held(lab, of_ada).card_uuid == "GPU-5"
    assert held(lab, of_bob).card_uuid == "GPU-1"


def test_a_ticket_with_a_grant_leaves_the_slice_others_need(make_lab: MakeLab) -> None:
    tiers = [tier("any", "1g.10gb", approval=True), tier("h", "1g.10gb", "H100*")]
    lab = lab_of(make_lab, tiers, a100_80(5, ONE), h100(1, ONE))
    of_h = lab.start("mary", "h")
    lab.grant("sam", "any")
    of_any = lab.start("sam", "any")
    lab.grant("ada", "any")
    of_ada, of_bob = join(lab, "ada", "any"), join(lab, "bob", "h")
    lab.stop(of_h)
    lab.stop(of_any)
    assert turns(lab) == [of_ada.id, of_bob.id]
    assert held(lab, of_ada).card_uuid == "GPU-5"
    assert held(lab, of_bob).card_uuid == "GPU-1"


def test_an_open_seat_on_another_node_lets_nobody_pass_those_who_wait(make_lab: MakeLab) -> None:
    tiers = [tier("course", "1g.10gb", "*80GB*", seats=2), tier("solo", "1g.10gb")]
    lab = make_lab(tiers=tiers)
    lab.broker.hubs.claim(HOME)
    lab.report(a100_80(0, ONE), node="n1")
    lab.report(a100_80(1, ONE), node="n2")
    lab.start("ann", "course", node="n1")
    of_solo = lab.start("mary", "solo", node="n2")
    waits = join(lab, "eve", "solo")
    lab.stop(of_solo)
    refused("capacity", lab.start, "bob", "course", node="n2")
    assert lab.start("bob", "course", node="n1").card_uuid == "GPU-0"
    assert held(lab, waits).card_uuid == "GPU-1"


def test_a_seat_that_is_held_is_given_back_once_its_tier_shares_no_more(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, [tier("course", "1g.10gb", "H100*", seats=2)], h100(0, ONE))
    of_ann, of_ben = lab.start("ann", "course"), lab.start("ben", "course")
    waits = join(lab, "cyd", "course")
    lab.stop(of_ann)
    assert held(lab, waits).slice_id == of_ben.slice_id
    after = make_lab(tiers=[tier("course", "1g.10gb", "H100*")])
    after.broker.hubs.claim(HOME)
    assert offers(after, "cyd")["course"].held is None
    after.broker.offers.settle()
    refused("capacity", after.start, "cyd", "course")


# -- cards that cannot be cut ------------------------------------------------------------------

CARD_OR_T4 = [tier("card", "whole"), tier("old", "whole", "T4", mig="off")]


def test_who_waits_for_a_card_with_mig_on_keeps_nobody_from_a_t4(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, CARD_OR_T4, card(0), t4(1))
    assert offers(lab)["card"].shares_with == offers(lab)["old"].shares_with == ()
    lab.start("mary", "card")
    join(lab, "eve", "card")
    found = offers(lab)["old"]
    assert (found.usable, found.free, found.total, found.waiting) == (True, 1, 1, 0)
    assert lab.start("bob", "old").card_uuid == "GPU-1"


def test_an_idle_session_on_a_t4_is_not_in_the_way_of_a_card_with_mig_on(
    make_lab: MakeLab,
) -> None:
    idle = {"idle_minutes": 60, "idle_minutes_when_wanted": 20}
    tiers = [CARD_OR_T4[0], {**CARD_OR_T4[1], **idle}]
    lab = lab_of(make_lab, tiers, card(0), t4(1))
    lab.start("mary", "card")
    lease = lab.start("bob", "old")
    lab.report(card(0, CUT_WHOLE), t4(1))
    lab.broker.layouts.finish_target("GPU-1")
    lab.broker.leases.activate(lease.attempt)
    hear(lab, lease)
    lab.clock.pass_time(minutes=30)
    lab.report(card(0, CUT_WHOLE), t4(1))
    lab.broker.hubs.claim(HOME)
    hear(lab, lease)
    join(lab, "eve", "card")
    assert not any(each.verdict.warn for each in lab.broker.sessions.standings())
    # One who could have the T4 is a reason.
    join(lab, "cyd", "old")
    assert any(each.verdict.warn for each in lab.broker.sessions.standings())


def test_a_t4_frees_no_a100_that_is_promised_with_mig_on(make_lab: MakeLab) -> None:
    tiers = [
        tier("card", "whole", approval=True, max_hours=48),
        tier("old", "whole", "T4", mig="off", max_hours=1),
        tier("off", "whole", mig="off", max_hours=30),
    ]
    lab = lab_of(make_lab, tiers, card(0), t4(1))
    promise(lab, "ada", "card", 20)
    lab.start("joe", "old")
    # The T4 is free again by then, and of no use to the grant.
    assert lab.start("bob", "off").ends_at == START + timedelta(hours=20)


def test_a_card_whose_layout_has_mig_off_is_of_another_kind(make_lab: MakeLab) -> None:
    tiers = [tier("card", "whole"), tier("off", "whole", mig="off"), tier("cut", "1g.5gb")]
    lab = lab_of(make_lab, tiers, card(0), card(1))
    assert {name: len(each.shares_with) for name, each in offers(lab).items()} == {
        "card": 1,
        "off": 1,
        "cut": 0,
    }
    lease = lab.start("ada", "off")
    other = 1 - int(lease.card_uuid[-1])
    bare = card(1 - other, (), mig_enabled=False, mig_pending=False)
    lab.report(bare, card(other))
    lab.broker.layouts.finish_target(lease.card_uuid)
    # Lent without MIG, it comes back with it.
    assert (
        figures(lab) == {"card": (1, 2), "off": (1, 2), "cut": (7, 14)} == figures(lab, cold(lab))
    )
    assert lab.start("bob", "card").card_uuid == f"GPU-{other}"
    refused("capacity", lab.start, "eve", "card")


def test_a_tier_with_mig_on_has_no_card_where_none_can_be_cut(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, [*CARD_OR_T4, tier("t", "whole", "T4")], t4(1))
    assert figures(lab) == {"card": (0, 0), "old": (1, 1), "t": (0, 0)}
    for name in ("card", "t"):
        said = offers(lab)[name].why
        assert "with MIG on" in said
        assert said in refused("capacity", lab.start, "ada", name)


# -- the form says what a start will -----------------------------------------------------------


def test_a_grant_is_no_reason_to_start_where_no_card_can_be_emptied(make_lab: MakeLab) -> None:
    tiers = [tier("card", "whole", approval=True), tier("off", "whole", mig="off")]
    lab = lab_of(make_lab, tiers, card(0))
    lab.start("bob", "off")
    lab.report(card(0, (), mig_enabled=False, mig_pending=False))
    lab.broker.layouts.finish_target("GPU-0")
    lab.grant("ada", "card")
    found = offers(lab, "ada")["card"]
    assert not found.usable
    assert found.why in refused("capacity", lab.start, "ada", "card")
    assert join(lab, "ada", "card").tier == "card"


def test_a_grant_is_a_reason_to_start_where_a_card_can_be_emptied(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, ANY_OR_H100, card(0))
    lab.start("sam", "small")
    lab.grant("ada", "any")
    assert offers(lab, "ada")["any"].usable
    assert "is being emptied" in refused("capacity", lab.start, "ada", "any")


def test_form_start_and_waiting_list_agree_on_a_card_that_is_promised(make_lab: MakeLab) -> None:
    tiers = [
        tier("big", "whole", "A100*", approval=True, max_hours=48),
        tier("w", "whole", "A100*"),
        tier("any", "whole"),
        tier("small", "1g.5gb", max_hours=1),
    ]
    lab = lab_of(make_lab, tiers, card(0), a30(1))
    promise(lab, "ada", "big", 0.1)
    found = offers(lab, "bob")
    assert (found["w"].usable, found["w"].free, found["w"].total) == (False, 0, 1)
    assert "is reserved for a grant" in found["w"].why
    assert found["w"].why == refused("capacity", lab.start, "bob", "w")
    assert join(lab, "bob", "w").tier == "w"
    # The A30 is not promised.
    assert (found["any"].usable, found["any"].free, found["any"].total) == (True, 1, 2)
    assert lab.start("cyd", "any").card_uuid == "GPU-1"


def test_a_grant_for_a_slice_is_no_reason_to_start_where_none_is_free(make_lab: MakeLab) -> None:
    lab = lab_of(
        make_lab, [tier("own", "1g.10gb", approval=True), tier("any", "1g.10gb")], h100(0, ONE)
    )
    lab.start("sam", "any")
    lab.grant("ada", "own")
    found = offers(lab, "ada")["own"]
    assert (found.usable, found.may_wait) == (False, True)
    assert found.why in refused("capacity", lab.start, "ada", "own")
