"""``migspawner layout apply`` beside others: who cuts at the same time, who starts, who leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.agent.lock import CuttingLock
from jupyterhub_migspawner.broker.layouts import Layouts
from jupyterhub_migspawner.cli.layouts import command as layout_commands
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.cards import Want
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from tests.unit.cli.test_layout_commands import (
    CONFIG,
    EXAMPLE,
    Shell,
    command,
    start,
    with_commands,
)

SEVENTHS = ["1g.5gb"] * 7


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.delenv("MIGSPAWNER_NVML", raising=False)
    return Shell(tmp_path, capsys)


@pytest.fixture
def two(shell: Shell) -> Shell:
    simulator.create_state(shell.machine, cards=2, layouts=[SEVENTHS] * 2, seed="cli")
    return shell


def end(shell: Shell, lease: LeaseRow) -> None:
    shell.broker().leases.cancel(lease.attempt, "over")
    shell.broker().leases.confirm_empty(lease.id)


def test_who_waited_for_the_agent_in_vain_looks_whether_it_did_the_work(
    two: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_commands, "PATIENCE", 0.0)
    two.run("layout", "apply", str(EXAMPLE), "all-balanced")
    stored = two.json("cards")
    with CuttingLock(two.folder, "n1").taken() as mine:
        assert mine
        said = two.run("layout", "apply", str(EXAMPLE), "all-balanced")
        assert "2 of 2 cards match the layout all-balanced" in said
        two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
        assert "Nothing was changed." in two.errors
    assert two.json("cards") == stored


def test_cards_that_are_so_by_chance_are_not_kept_so_while_somebody_else_cuts(
    two: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut alike by hand, or on their way to something else: the layout must still be set."""
    monkeypatch.setattr(layout_commands, "PATIENCE", 0.0)
    start(two)
    with CuttingLock(two.folder, "n1").taken():
        two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb", status=1)
    assert all(card.layout_by == "" for card in two.broker().cards.find())


def test_both_commands_may_fail_and_both_are_told(two: Shell) -> None:
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    with_commands(two, command(two.folder, "stop", 3), command(two.folder, "start", 4))
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
    before, after = sorted(two.errors.splitlines(), key=lambda line: "status 4" in line)
    assert "failed with exit status 3. It said: 'for stop'." in before
    assert "MigBroker.before_cut" in before
    assert "failed with exit status 4. It said: 'for start'." in after


def test_a_command_that_fails_afterwards_is_told_with_a_way_out(two: Shell) -> None:
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    with_commands(two, command(two.folder, "stop"), command(two.folder, "start", 4))
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
    (line,) = two.errors.splitlines()
    assert "to be run after cards are cut, failed with exit status 4." in line
    assert line.endswith("or remove it from MigBroker.after_cut.")


def test_each_sentence_about_a_card_names_it_by_index_and_uuid(two: Shell) -> None:
    lease = start(two)
    uuids = simulator.card_uuids(two.machine)
    other = next(uuid for uuid in uuids if uuid != lease.card_uuid)
    simulator.fail_call(two.machine, "nvmlGpuInstanceDestroy", Code.UNKNOWN, card_uuid=other)
    two.run("layout", "apply", str(EXAMPLE), "all-3g.20gb", status=1)
    lines = two.errors.splitlines()
    assert len(lines) >= 2
    for line in lines:
        (uuid,) = [uuid for uuid in uuids if uuid in line]
        assert line.startswith(f"migspawner: Card {uuids.index(uuid)} ({uuid})")
        assert line.count(uuid) == 1


def test_a_card_that_is_gone_when_its_turn_comes_is_named(
    two: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = simulator.card_uuids(two.machine)[1]
    choose = Layouts.choose

    def then_gone(self: Layouts, card_uuid: str, *args: Any) -> Any:
        found = choose(self, card_uuid, *args)
        if card_uuid == uuid:
            monkeypatch.setattr(Nvml, "inventory", lambda nvml: without(listed(nvml), uuid))
        return found

    listed = Nvml.inventory
    monkeypatch.setattr(Layouts, "choose", then_gone)
    answer = two.json("layout", "apply", str(EXAMPLE), "all-balanced", status=1)
    assert [card["done"] for card in answer["cards"]] == [True, False]
    assert answer["cards"][1]["error"].startswith(f"Card 1 ({uuid}): the driver no longer lists it")


def without(found: Any, uuid: str) -> Any:
    return type(found)(
        found.driver_version,
        found.nvml_version,
        tuple(card for card in found.cards if card.uuid != uuid),
    )


def test_a_card_that_cannot_be_cut_is_as_a_layout_without_mig_wants(shell: Shell) -> None:
    simulator.create_state(shell.machine, cards=1, model="Tesla T4")
    assert "1 of 1 card matches" in shell.run("layout", "assert", str(EXAMPLE), "all-disabled")
    said = shell.run("layout", "apply", str(EXAMPLE), "all-disabled")
    assert "card 0" in said
    assert "nothing to do" in said
    assert "1 of 1 card matches the layout all-disabled" in said
    assert shell.broker().cards.find()[0].layout_by == ""


def test_places_are_chosen_beside_who_started_while_the_commands_ran(
    two: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was planned is old by then; what is answered is what was set."""
    two.run("layout", "apply", str(EXAMPLE), "all-1g.5gb")
    two.broker().nodes.record_inventory("n1", two.inventory())
    planned = two.json("layout", "apply", str(EXAMPLE), "all-balanced", "--dry-run")
    leases: list[LeaseRow] = []
    choose = Layouts.choose

    def late(self: Layouts, card_uuid: str, *args: Any) -> Any:
        if not leases:
            cards = {card["card_uuid"]: card for card in planned["cards"]}
            keeps = [(s["profile"], s["start"]) for s in cards[card_uuid]["slices"]]
            leases.append(lease_beside(two, card_uuid, keeps))
        return choose(self, card_uuid, *args)

    monkeypatch.setattr(Layouts, "choose", late)
    answer = two.json("layout", "apply", str(EXAMPLE), "all-balanced")
    (lease,) = leases
    card = next(c for c in answer["cards"] if c["card_uuid"] == lease.card_uuid)
    assert {"profile": lease.profile, "start": lease.start} in card["slices"]
    (stored,) = [c for c in two.broker().cards.find() if c.uuid == lease.card_uuid]
    assert [(s["profile"], s["start"]) for s in card["slices"]] == list(stored.layout)
    assert str(lease.slice_uuid) in simulator.slice_uuids(two.machine)


def lease_beside(shell: Shell, card_uuid: str, keeps: Sequence[Want]) -> LeaseRow:
    """A lease on that card of a slice the plan would not have kept."""
    number = 0
    others = []
    while True:
        number += 1
        lease: LeaseRow = shell.broker().leases.acquire(
            Person(f"u{number}"), "", "small", f"a{number}"
        )
        if lease.card_uuid == card_uuid and (lease.profile, lease.start) not in keeps:
            break
        others.append(lease)
    for each in others:
        end(shell, each)
    return lease


def test_a_card_that_falls_free_meanwhile_is_not_cut_without_the_commands(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stopped the monitoring of the planned cards only; the agent does the others."""
    simulator.create_state(shell.machine, cards=1, layouts=[["7g.40gb"]])
    shell.config.write_text(CONFIG.replace("3g.20gb", "whole"))
    log = with_commands(shell, command(shell.folder, "stop"), command(shell.folder, "start"))
    lease = start(shell, tier="large")
    uuids = simulator.slice_uuids(shell.machine)
    choose = Layouts.choose

    def leaves(self: Layouts, *args: Any) -> Any:
        end(shell, lease)
        return choose(self, *args)

    monkeypatch.setattr(Layouts, "choose", leaves)
    shell.run("layout", "apply", str(EXAMPLE), "all-balanced", status=1)
    assert simulator.slice_uuids(shell.machine) == uuids
    assert not log.exists()
    monkeypatch.setattr(Layouts, "choose", choose)
    shell.run("layout", "apply", str(EXAMPLE), "all-balanced")
    assert log.read_text() == "stop 0\nstart 0\n"


def test_who_has_a_card_with_mig_off_is_not_in_the_way_of_mig_off(shell: Shell) -> None:
    simulator.create_state(shell.machine, cards=1)
    shell.config.write_text(
        CONFIG.replace('"3g.20gb"', '"whole", "mig": "off"')
        + "c.MigBroker.allow_gpu_reset = True\n"
    )
    shell.run("layout", "apply", str(EXAMPLE), "all-disabled")
    lease = start(shell, tier="large")
    shell.broker().nodes.record_inventory("n1", shell.inventory())
    assert shell.broker().leases.get(lease.id).slice_uuid == lease.card_uuid
    said = shell.run("layout", "apply", str(EXAMPLE), "all-disabled")
    assert "1 of 1 card matches the layout all-disabled" in said


def test_a_layout_is_chosen_from_the_live_leases_of_its_card(two: Shell) -> None:
    first = start(two)
    broker, seen = two.broker(), []
    other = next(c.uuid for c in broker.cards.find() if c.uuid != first.card_uuid)

    def choose(live: Sequence[LeaseRow]) -> Sequence[Want]:
        seen.append([lease.id for lease in live])
        return [(lease.profile, lease.start) for lease in live]

    assert broker.layouts.choose(first.card_uuid, choose, True, "root").layout == (
        (first.profile, first.start),
    )
    assert broker.layouts.choose(other, choose, True, "root").layout == ()
    assert seen == [[first.id], []]


def test_no_slices_can_be_wanted_of_a_card_with_mig_off(two: Shell) -> None:
    start(two)
    uuid = simulator.card_uuids(two.machine)[0]
    for ask in (
        lambda: two.broker().layouts.choose(uuid, lambda live: [("1g.5gb", 0)], False, "root"),
        lambda: two.broker().layouts.set(uuid, [("1g.5gb", 0)], False, "root"),
    ):
        with pytest.raises(Refusal, match="MIG off has no slices"):
            ask()
    assert all(card.layout_by == "" for card in two.broker().cards.find())
