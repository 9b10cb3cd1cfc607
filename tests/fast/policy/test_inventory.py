"""Which card an inventory means where the driver gave no UUID, and when a card is dead."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import Card, Inventory
from jupyterhub_migspawner.policy.inventory import DEAD_AFTER, is_dead, recognise

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
A_MOMENT = timedelta(seconds=1)


def row(index: int, uuid: str = "", state: str = "ok") -> CardRow:
    return CardRow(
        uuid=uuid or f"GPU-{index}",
        node="n1",
        index=index,
        model="NVIDIA A100-SXM4-40GB",
        memory_mib=40960,
        mig_enabled=True,
        state=state,
        layout=(("1g.5gb", 0),),
        target=None,
        problem="",
        whole=("7g.40gb", 0),
    )


def card(index: int, uuid: str = "", problem: str = "", code: int = 0) -> Card:
    return Card(
        index=index,
        uuid=uuid,
        model="NVIDIA A100-SXM4-40GB" if uuid else "",
        minor=index,
        memory_mib=40960 if uuid else 0,
        mig_capable=bool(uuid),
        mig_enabled=bool(uuid),
        mig_pending=bool(uuid),
        problem=problem,
        code=code,
    )


def found(*cards: Card) -> Inventory:
    return Inventory(driver_version="535.129.03", nvml_version="12.535.129.03", cards=cards)


def nameless(index: int) -> Card:
    return card(index, problem=f"Card {index}: cannot read its UUID.", code=Code.UNKNOWN)


def test_a_card_without_uuid_is_the_one_known_at_its_index() -> None:
    working = card(0, "GPU-0")
    first, second = recognise(found(working, nameless(1)), [row(0), row(1)]).cards
    assert first == working
    assert second.uuid == "GPU-1"
    assert (second.model, second.memory_mib) == ("NVIDIA A100-SXM4-40GB", 40960)
    assert second.mig_capable
    assert second.mig_enabled
    assert second.problem == "Card 1 (GPU-1): cannot read its UUID."


def test_a_card_that_another_index_reported_is_not_taken_twice() -> None:
    moved = card(0, "GPU-1")
    assert recognise(found(moved, nameless(1)), [row(1)]).cards == (moved, nameless(1))


def test_a_card_that_works_goes_before_a_lost_one_at_its_index() -> None:
    lost = row(0, "GPU-old", state="lost")
    for known in ([lost, row(0)], [row(0), lost]):
        assert recognise(found(nameless(0)), known).cards[0].uuid == "GPU-0"
    assert recognise(found(nameless(0)), [lost]).cards[0].uuid == "GPU-old"


def test_an_unknown_card_stays_unknown() -> None:
    assert recognise(found(nameless(2)), [row(0)]).cards == (nameless(2),)


@pytest.mark.parametrize("code", [Code.GPU_IS_LOST, Code.RESET_REQUIRED])
def test_a_card_off_the_bus_is_dead_at_once(code: Code) -> None:
    assert is_dead(card(0, "GPU-0", "Card 0: lost.", code), None, NOON)


def test_a_card_with_errors_alone_is_dead_after_ten_minutes() -> None:
    failing = card(0, "GPU-0", "Card 0: NVML answered 999.", Code.UNKNOWN)
    assert timedelta(minutes=10) == DEAD_AFTER
    assert not is_dead(failing, NOON, NOON + DEAD_AFTER - A_MOMENT)
    assert is_dead(failing, NOON, NOON + DEAD_AFTER)
    assert not is_dead(failing, None, NOON)


@pytest.mark.parametrize(
    "working",
    [
        card(0, "GPU-0"),
        card(0, "GPU-0", "Card 0: this process may not ask.", Code.NO_PERMISSION),
        card(0, "GPU-0", "Card 0: MIG is off."),
        replace(card(0, "GPU-0"), code=Code.UNKNOWN),
    ],
    ids=["working", "not permitted", "no error of NVML", "no problem"],
)
def test_a_card_of_which_nothing_is_known_to_fail_is_never_dead(working: Card) -> None:
    assert not is_dead(working, NOON, NOON + timedelta(days=1))
