"""How many of a tier there are: steady while others have whole cards, fewer with drained cards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jupyterhub_migspawner.broker import TierStatus
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, WHOLE, Lab, card

TIERS = [
    {"name": "small", "title": "Small", "profile": "1g.5gb", "default": True},
    {"name": "course", "title": "Course", "profile": "1g.5gb", "seats": 3, "groups": ["vision"]},
    {"name": "medium", "title": "Medium", "profile": "2g.10gb"},
    {"name": "large", "title": "Large", "profile": "3g.20gb"},
    {"name": "card", "title": "Whole card", "profile": "whole", "approval": True},
    {"name": "off", "title": "Bare", "profile": "whole", "mig": "off", "approval": True},
    {"name": "cpu", "title": "No GPU", "profile": "none"},
]
BOSS = Person("boss", frozenset({"vision"}))


@pytest.fixture
def two(make_lab: Callable[..., Lab]) -> Lab:
    """A card in sevenths and a mixed one."""
    lab = make_lab(tiers=TIERS)
    lab.report(card(0), card(1, MIXED))
    return lab


def offers(lab: Lab, person: Person = BOSS) -> dict[str, TierStatus]:
    return {offer.tier.name: offer for offer in lab.broker.tiers.of(person)}


def totals(lab: Lab) -> dict[str, int]:
    found = offers(lab)
    assert all(offer.free <= offer.total for offer in found.values())
    return {name: offer.total for name, offer in found.items()}


ALL = {"small": 8, "course": 24, "medium": 1, "large": 1, "card": 2, "off": 2, "cpu": 0}


@pytest.mark.parametrize("tier", ["card", "off"])
def test_totals_stay_while_somebody_has_a_whole_card(two: Lab, tier: str) -> None:
    assert totals(two) == ALL
    two.grant("ada", tier)
    lease = two.start("ada", tier)
    index = int(lease.card_uuid.removeprefix("GPU-"))
    whole = (
        card(index, (), mig_enabled=False, mig_pending=False)
        if tier == "off"
        else card(index, WHOLE)
    )
    others = [card(0), card(1, MIXED)]
    assert totals(two) == ALL, "about to be cut"
    two.report(*(whole if each.index == index else each for each in others))
    assert totals(two) == ALL, "cut"
    two.broker.layouts.finish_target(lease.card_uuid)
    assert totals(two) == ALL, "lent"
    two.stop(lease)
    assert totals(two) == ALL, "about to be cut back"
    two.report(*others)
    assert totals(two) == ALL, "cut back"
    two.broker.layouts.finish_target(lease.card_uuid)
    assert totals(two) == ALL
    assert offers(two)["small"].free == 8


def test_totals_stay_while_a_card_is_emptied_for_a_grant(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(card(0))
    lab.start("grace", "small")
    before = totals(lab)
    lab.grant("ada")
    with pytest.raises(Refusal, match="is being emptied for your grant"):
        lab.start("ada", "card")
    assert totals(lab) == before
    assert offers(lab)["small"].free == 0


def test_slices_that_the_driver_does_not_list_stay_in_the_total(two: Lab) -> None:
    two.report(card(0, ()), card(1, MIXED))
    assert totals(two) == ALL
    assert offers(two)["small"].free == 1


def test_a_new_layout_is_what_counts_while_the_old_one_is_still_in_use(two: Lab) -> None:
    lease = two.start("ada", "large")
    two.broker.layouts.set(lease.card_uuid, [("7g.40gb", 0)], True, "root")
    assert totals(two) == {**ALL, "small": 7, "course": 21, "medium": 0, "large": 0}


def test_a_lost_card_is_not_counted_and_not_out_of_service(two: Lab) -> None:
    two.report(card(0))
    found = offers(two)
    assert (found["small"].total, found["large"].total, found["card"].total) == (7, 0, 1)
    assert not any(offer.outage for offer in found.values())


def test_researchers_are_told_of_drained_cards_without_the_reason(two: Lab) -> None:
    two.broker.cards.drain("GPU-1", "fan 2 of crate 7 is broken.", "root")
    found = offers(two)
    assert (found["small"].free, found["small"].total) == (7, 7)
    assert found["small"].usable
    assert found["small"].outage == "1 of its cards is out of service."
    assert found["card"].total == 1
    assert found["card"].outage == "1 of its cards is out of service."
    assert found["cpu"].outage == ""
    large = found["large"]
    assert (large.total, large.usable) == (0, False)
    assert large.why == "No 3g.20gb slice is free for tier Large. Its only card is out of service."
    with pytest.raises(Refusal) as refused:
        two.start("grace", "large")
    assert str(refused.value).startswith(large.why)
    assert "fan" not in str(refused.value)


@pytest.mark.parametrize(
    "person", [Person("root", admin=True), Person("eve", frozenset({"pi"}))], ids=["admin", "pi"]
)
def test_admins_and_approvers_read_the_reasons(two: Lab, person: Person) -> None:
    two.broker.cards.drain("GPU-0", "fan is broken.", "root")
    assert offers(two, person)["small"].outage == (
        "1 of its cards is out of service: fan is broken."
    )
    two.report(card(0), card(1, MIXED, problem="Card 1 cannot be read."))
    found = offers(two, person)
    assert found["small"].outage == (
        "All 2 of its cards are out of service: fan is broken; Card 1 cannot be read."
    )
    assert found["medium"].outage == "Its only card is out of service: Card 1 cannot be read."
    assert found["card"].why.startswith("Tier 'Whole card' needs approval")
    two.broker.cards.resume("GPU-0", "root")
    assert offers(two, person)["small"].outage == (
        "1 of its cards is out of service: Card 1 cannot be read."
    )


def test_a_token_that_may_not_decide_reads_no_reasons(two: Lab) -> None:
    two.broker.cards.drain("GPU-0", "fan is broken.", "root")
    person = Person("eve", frozenset({"pi"}), decides=False)
    assert offers(two, person)["small"].outage == "1 of its cards is out of service."


def test_many_reasons_are_named_in_part_and_each_once(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=TIERS)
    lab.report(*(card(i) for i in range(7)))
    for i, why in enumerate(["fan", "fan", "dust", "heat\n", "noise", "smoke"]):
        lab.broker.cards.drain(f"GPU-{i}", why, "root")
    assert offers(lab, Person("root", admin=True))["small"].outage == (
        r"6 of its cards are out of service: fan; dust; heat\n; and 2 more."
    )


def test_a_grant_is_worth_nothing_while_all_cards_are_drained(two: Lab) -> None:
    two.grant("boss")
    for uuid in ("GPU-0", "GPU-1"):
        two.broker.cards.drain(uuid, "moved", "root")
    offer = offers(two)["card"]
    assert not offer.usable
    assert offer.why == (
        "No card is free for tier Whole card. All 2 of its cards are out of service."
    )


def test_tiers_say_with_whom_they_share_their_slices(two: Lab) -> None:
    found = offers(two)
    shared = {name: [t.name for t in offer.shares_with] for name, offer in found.items()}
    assert shared == {
        "small": ["course"],
        "course": ["small"],
        "medium": [],
        "large": [],
        "card": ["off"],
        "off": ["card"],
        "cpu": [],
    }
    # Of tiers that they do not see, people hear nothing.
    assert offers(two, Person("ada"))["small"].shares_with == ()


@pytest.mark.parametrize(
    ("tier", "why"),
    [
        ("large", "no larger tier is open to you"),
        ("card", "nothing is larger than a whole card"),
        ("off", "nothing is larger than a whole card"),
    ],
)
def test_nobody_waits_for_a_larger_tier_where_there_is_none(two: Lab, tier: str, why: str) -> None:
    if tier != "large":
        two.grant("boss", tier)
    assert offers(two)[tier].larger == ()
    before = two.stored()
    with pytest.raises(Refusal) as refused:
        two.broker.queue.join(BOSS, tier, upward=True)
    assert refused.value.reason == "options"
    title = offers(two)[tier].tier.title
    assert str(refused.value) == (
        f"There is no tier larger than '{title}' to wait for: {why}. Wait only for this tier."
    )
    assert two.stored() == before


def test_a_tier_without_a_gpu_has_no_larger_one(two: Lab) -> None:
    assert offers(two)["cpu"].larger == ()
    with pytest.raises(Refusal, match="has no GPU and is always available"):
        two.broker.queue.join(BOSS, "cpu", upward=True)


def test_only_larger_tiers_of_the_person_count(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(tiers=[TIERS[2], {**TIERS[3], "groups": ["vision"]}])
    lab.report(card(0, MIXED))
    assert [t.name for t in offers(lab)["medium"].larger] == ["large"]
    assert offers(lab, Person("ada"))["medium"].larger == ()
    with pytest.raises(Refusal, match="no larger tier is open to you"):
        lab.broker.queue.join(Person("ada"), "medium", upward=True)
