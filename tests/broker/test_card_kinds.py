"""What tiers on certain cards say and leave alone on machines with cards of several kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jupyterhub_migspawner.errors import Refusal
from tests.broker.lab import MIXED, WHOLE, card
from tests.broker.mixed_cards import (
    HOME,
    LINES,
    ONE,
    MakeLab,
    a30,
    a100_80,
    busy,
    h100,
    held,
    join,
    lab_of,
    offers,
    promise,
    reserved,
    t4,
    tier,
)
from tests.broker.test_lease_life import refused

pytestmark = pytest.mark.usefixtures("watched")

BIG = tier("big", "whole", "A100*", approval=True, max_hours=48)
SMALL = tier("small", "1g.5gb", "A100*", max_hours=1)


@pytest.mark.parametrize("hours", [2, 30])
def test_sessions_on_other_cards_do_not_have_a_card_kept_sooner(
    make_lab: MakeLab, hours: float
) -> None:
    lab = lab_of(make_lab, [BIG, SMALL, tier("sixth", "1g.6gb", "A30")], card(0), a30(1))
    grant = promise(lab, "ada", "big", hours)
    assert lab.broker.reservations.keep() == ()
    lab.clock.pass_time(hours=hours - 1)
    lab.report(card(0), a30(1))
    assert lab.broker.reservations.keep() == ("GPU-0",)
    assert reserved(lab)["GPU-0"] == grant.id


def test_sessions_on_any_card_have_a_card_kept_in_time(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, [BIG, SMALL, tier("sixth", "1g.6gb")], card(0), a30(1))
    promise(lab, "ada", "big", 23)
    assert lab.broker.reservations.keep() == ("GPU-0",)


def test_a_card_that_is_gone_keeps_nobody_from_a_larger_tier(make_lab: MakeLab) -> None:
    tiers = [tier("a", "1g.10gb", "A100*"), tier("half", "3g.40gb")]
    lab = lab_of(make_lab, tiers, a100_80(0, ONE), t4(1))
    assert offers(lab)["a"].larger == ()
    lab.report(a100_80(0, ONE))
    assert [each.name for each in offers(lab)["a"].larger] == ["half"]
    lab.report(a100_80(0, ONE), t4(1))
    assert offers(lab)["a"].larger == ()


def test_every_card_is_promised_though_one_of_another_kind_was_there(make_lab: MakeLab) -> None:
    tiers = [BIG, tier("any", "whole"), SMALL]
    lab = lab_of(make_lab, tiers, card(0), a30(1))
    lab.report(card(0))
    promise(lab, "ada", "big", 0.1)
    assert "is reserved" in refused("capacity", lab.start, "bob", "any")


def test_a_tier_that_gives_part_of_the_same_is_no_larger_one(make_lab: MakeLab) -> None:
    lab, *_ = busy(make_lab, [*LINES, tier("half", "3g.40gb")])
    larger = {name: [each.name for each in found.larger] for name, found in offers(lab).items()}
    assert larger == {"h": [], "a": [], "large": ["half"], "any": ["half"], "half": []}


def test_no_larger_tier_gives_only_cards_of_that_kind(make_lab: MakeLab) -> None:
    tiers = [SMALL, tier("large", "3g.20gb")]
    lab = lab_of(make_lab, tiers, card(0, MIXED), t4(1))
    lab.start("mary", "small")
    with pytest.raises(Refusal, match="no larger tier that you may use is only on cards of model"):
        join(lab, "ada", "small", upward=True)
    lab.report(card(0, MIXED))
    assert join(lab, "ada", "small", upward=True).tiers == ("small", "large")


def test_what_is_free_instead_is_called_by_its_title(make_lab: MakeLab) -> None:
    tiers = [
        tier("k-h", "1g.10gb", "H100*", title="Tenth of an H100"),
        tier("k-a", "1g.10gb", "A100*", title="Tenth of an A100"),
        tier("k-cpu", "none", title="No GPU"),
    ]
    lab = lab_of(make_lab, tiers, a100_80(0, ONE), h100(1, ONE))
    lab.start("mary", "k-h")
    said = refused("capacity", lab.start, "bob", "k-h")
    assert said.endswith("Free now: Tenth of an A100 (1), No GPU.")


@pytest.mark.parametrize("other", ["a100*", "NVIDIA A100*", ">=60GB", None])
def test_tiers_that_mean_the_same_cards_in_other_words_share_all(
    make_lab: MakeLab, other: str | None
) -> None:
    tiers = [tier("one", "1g.10gb", "A100*"), tier("two", "1g.10gb", other)]
    lab = lab_of(make_lab, tiers, a100_80(0))
    assert [offer.shares_all for offer in offers(lab).values()] == [True, True]
    lab.report(a100_80(0), h100(1))
    same = other in ("a100*", "NVIDIA A100*")
    assert [offer.shares_all for offer in offers(lab).values()] == [same, same]


def test_nobody_is_sent_to_an_offer_that_its_tier_gives_no_more(make_lab: MakeLab) -> None:
    before = lab_of(make_lab, [BIG], card(0, WHOLE), a30(1))
    before.grant("eve", "big")
    lease = before.start("eve", "big")
    before.grant("ada", "big")
    ticket = join(before, "ada", "big")
    before.stop(lease)
    assert held(before, ticket).card_uuid == "GPU-0"
    after = make_lab(tiers=[{**BIG, "card": "A30"}])
    after.broker.hubs.claim(HOME)
    offer = offers(after, "ada")["big"]
    assert (offer.usable, offer.held) == (False, None)
    assert offer.why == (
        "Your grant for tier 'big' is still in use: the card that was held for you is being "
        "given back, because the tier now gives out other cards. Try again in a minute."
    )
    after.broker.offers.settle()
    for each in after.broker.leases.find():
        after.broker.leases.confirm_empty(each.id)
    assert offers(after, "ada")["big"].usable


def test_who_loses_a_gpu_reads_no_uuid(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, [tier("h", "1g.10gb", "H100*")], h100(1, ONE), a100_80(0, ONE))
    lease = lab.start("ada", "h")
    lab.broker.leases.activate(lease.attempt)
    lab.report(a100_80(0, ONE))
    assert lab.broker.leases.get(lease.id).end_reason == (
        "Your session has lost its GPU: save your work and start again. For your admins: Card 1 of "
        "node n1 is no longer listed by the driver."
    )


def test_who_loses_a_broken_gpu_reads_no_uuid(make_lab: MakeLab) -> None:
    lab = lab_of(make_lab, [tier("h", "1g.10gb", "H100*")], h100(1, ONE))
    lease = lab.start("ada", "h")
    lab.broker.leases.activate(lease.attempt)
    broken = replace(h100(1, ()), problem="Card 1: it has fallen off the bus", code=15)
    for _ in range(3):
        lab.report(replace(broken, uuid=""))
        lab.clock.pass_time(hours=1)
    lab.report(replace(broken, uuid=""))
    said = lab.broker.leases.get(lease.id).end_reason
    assert "Card 1 of node n1: it has fallen off the bus" in said
    assert "GPU-1" not in said
