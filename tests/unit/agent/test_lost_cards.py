"""Cards that fall off the bus, and errors the driver reports: who loses what and is notified."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jupyterhub_migspawner.agent.returns import hold_back
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu import simulator
from tests.unit.agent.conftest import SMALL, Node, NodeMaker


def mark(node: Node, pid: int, attempt: str) -> Path:
    """Let a process bear a lease's mark in the folder that stands for /proc."""
    entry = node.proc / str(pid)
    entry.mkdir()
    (entry / "environ").write_bytes(f"MIGSPAWNER_ATTEMPT={attempt}\0".encode())
    (entry / "stat").write_text(f"{pid} (python) S " + " ".join(["0"] * 40))
    return entry


def held_back(node: Node) -> str:
    """Why the card would be held back now."""
    found = hold_back(node.broker, "n1", node.nvml.inventory(), node.proc)
    return found.cards[0].problem


def test_the_leases_of_a_lost_card_are_lost_with_a_reason(make_node: NodeMaker) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    leases = [node.lab.start(f"user{number}") for number in range(9)]
    for lease in leases:
        node.broker.leases.activate(lease.attempt)
    lost = node.card(0).uuid
    simulator.lose_card(node.path, lost)
    node.tick()
    card = next(c for c in node.broker.cards.find() if c.uuid == lost)
    assert card.state == "lost"
    after = {lease.id: node.broker.leases.get(lease.id) for lease in leases}
    for lease in leases:
        now = after[lease.id]
        assert now.state == ("lost" if lease.card_uuid == lost else "active")
        if now.state == "lost":
            assert "Card 0" in now.end_reason
            assert "save your work and start again" in now.end_reason
            assert now.ended_at is not None
    told = [e for e in node.broker.events.find() if e.kind == "lease.lost"]
    assert {e.user for e in told} == {e.user for e in after.values() if e.state == "lost"}
    assert node.kinds().count("card.lost") == 1
    node.tick(2)
    assert node.kinds().count("card.lost") == 1
    # The person can start again, elsewhere.
    victim = next(lease for lease in leases if lease.card_uuid == lost)
    for lease in leases:
        if lease.card_uuid != lost:
            node.stop(lease)
    node.tick()
    assert node.lab.start(victim.user).card_uuid != lost


def test_a_card_is_back_after_a_restart_with_its_layout(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    before = node.states()
    simulator.lose_card(node.path, node.card().uuid)
    node.tick()
    assert set(node.states().values()) == {"missing"}
    simulator.reboot(node.path)
    node.restart()
    node.tick()
    assert node.card().state == "ok"
    assert node.states() == before


def test_a_card_that_is_back_too_soon_waits_for_who_was_on_it(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    lease = node.lab.start("ada")
    node.broker.leases.activate(lease.attempt)
    entry = mark(node, 4711, lease.attempt)
    simulator.lose_card(node.path, node.card().uuid)
    node.tick()
    assert node.broker.leases.get(lease.id).state == "lost"
    simulator.reboot(node.path)
    node.tick(2)
    assert "process 4711 from before it was lost still runs" in node.card().problem
    with pytest.raises(Refusal):
        node.lab.start("grace")
    (entry / "environ").write_bytes(b"")
    node.tick(2)
    assert node.card().problem == ""
    assert node.lab.start("grace").profile == "1g.5gb"


def test_a_whole_card_that_is_lost_goes_back_to_its_layout(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    before = node.states()
    node.lab.grant("ada")
    lease = node.lab.start("ada", "card")
    node.tick()
    simulator.lose_card(node.path, node.card().uuid)
    node.tick()
    assert node.broker.leases.get(lease.id).state == "lost"
    simulator.reboot(node.path)
    node.restart()
    node.tick(2)
    assert node.states() == before


def test_an_xid_is_noted_on_the_slice_it_hit_and_its_lease(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    lease = node.lab.start("ada")
    row = next(s.row for s in node.broker.slices.find() if s.row.id == lease.slice_id)
    simulator.report_xid(node.path, node.card().uuid, 31, gi_id=row.gi_id, ci_id=0)
    node.tick()
    (event,) = [e for e in node.broker.events.find() if e.kind == "slice.xid"]
    assert (event.detail["xid"], event.detail["slice_id"]) == (31, lease.slice_id)
    (told,) = [e for e in node.broker.events.find() if e.kind == "lease.xid"]
    assert (told.user, told.lease_id) == ("ada", lease.id)
    # The program was wrong, not the card.
    assert "quarantined" not in node.states().values()


def test_hardware_that_cannot_be_trusted_is_not_lent_again(make_node: NodeMaker) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    row = next(
        s.row for s in node.broker.slices.find() if s.row.card_index == 0 and s.row.start == 2
    )
    simulator.report_xid(node.path, row.card_uuid, 95, gi_id=row.gi_id, ci_id=0)
    simulator.report_xid(node.path, node.card(1).uuid, 48)
    node.tick()
    states = node.states()
    assert states[(0, "1g.5gb", 2)] == "quarantined"
    assert states[(0, "1g.5gb", 3)] == "free"
    assert node.card(1).state == "draining"
    why = next(s.why for s in node.broker.slices.find() if s.state == "quarantined")
    assert "XID 95 (uncontained ECC error)" in why
    assert "migspawner cards resume" in why


@pytest.mark.parametrize(
    "xid", [46, 143, *range(144, 151), 154, 155, 156, 157, 158, 160, 161, 167, 171, 172, 173, 175]
)
def test_newer_errors_take_out_the_slice_or_card_they_hit(make_node: NodeMaker, xid: int) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    row = next(
        s.row for s in node.broker.slices.find() if s.row.card_index == 0 and s.row.start == 2
    )
    simulator.report_xid(node.path, row.card_uuid, xid, gi_id=row.gi_id, ci_id=0)
    simulator.report_xid(node.path, node.card(1).uuid, xid)
    node.tick()
    assert node.states()[(0, "1g.5gb", 2)] == "quarantined"
    assert node.card(1).state == "draining"


def test_the_drivers_own_word_decides_where_an_error_may_be_harmless(make_node: NodeMaker) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    for uuid in simulator.card_uuids(node.path):
        simulator.set_recovery_action(node.path, uuid, 0)
    simulator.report_xid(node.path, node.card(0).uuid, 157)
    simulator.report_xid(node.path, node.card(1).uuid, 95)
    node.tick()
    assert [node.card(index).state for index in (0, 1)] == ["ok", "draining"]


def test_a_card_is_drained_while_its_driver_asks_for_recovery(make_node: NodeMaker) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    lease = node.lab.start("ada")
    uuid = lease.card_uuid
    simulator.set_recovery_action(node.path, uuid, 4)
    node.tick()
    (card,) = (each for each in node.broker.cards.find() if each.uuid == uuid)
    assert card.state == "draining"
    (event,) = [e for e in node.broker.events.find() if e.kind == "card.drained"]
    assert "drain and reset the card" in event.detail["why"]
    assert node.broker.leases.get(lease.id).state == "pending"
    node.tick()
    assert node.kinds().count("card.drained") == 1
    simulator.set_recovery_action(node.path, uuid, 0)
    node.tick()
    assert {each.state for each in node.broker.cards.find()} == {"ok"}
    assert "card.resumed" in node.kinds()


def test_a_drain_by_an_admin_outlives_the_drivers_recovery(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    node.broker.cards.drain(node.card().uuid, "to be moved", "root")
    for action in (1, 0):
        simulator.set_recovery_action(node.path, node.card().uuid, action)
        node.tick()
    assert node.card().state == "draining"


def test_an_error_on_a_card_nobody_knows_is_no_problem(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    simulator.report_xid(node.path, simulator.card_uuids(node.path)[0], 13)
    node.tick(2)
    assert "slice.xid" not in node.kinds()


def test_a_living_process_on_a_returned_card_holds_it_back(
    make_node: NodeMaker, sleeper: Callable[[], int]
) -> None:
    node = make_node(SMALL)
    node.tick()
    pid = sleeper()
    uuid = simulator.slice_uuids(node.path)[0]
    simulator.add_process(node.path, uuid, pid)
    away = node.nvml.inventory()
    # The driver leaves the card out of one listing.
    node.broker.nodes.record_inventory("n1", type(away)(away.driver_version, away.nvml_version, ()))
    assert node.card().state == "lost"
    node.tick()
    assert f"process {pid}" in node.card().problem
    # Not for one round only: it is held back for as long as the process is there.
    node.tick(3)
    assert f"process {pid}" in node.card().problem
    simulator.remove_process(node.path, uuid, pid)
    node.tick(2)
    assert node.card().problem == ""


@pytest.mark.parametrize("name", ["stat", "environ"])
def test_a_process_that_cannot_be_read_holds_a_returned_card_back(
    make_node: NodeMaker, name: str
) -> None:
    node = make_node(SMALL)
    node.tick()
    lease = node.lab.start("ada")
    node.broker.leases.activate(lease.attempt)
    simulator.lose_card(node.path, node.card().uuid)
    node.tick()
    entry = mark(node, 4711, lease.attempt)
    (entry / name).unlink()
    (entry / name).symlink_to(entry / name)
    simulator.reboot(node.path)
    assert "it is unknown which processes are on it: process 4711" in held_back(node)
    (entry / name).unlink()
    entry.rename(node.folder / "gone")
    assert held_back(node) == ""


def test_processes_that_cannot_be_listed_hold_a_returned_card_back(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    simulator.lose_card(node.path, node.card().uuid)
    node.tick()
    away = node.proc.rename(node.folder / "away")
    simulator.reboot(node.path)
    assert "it is unknown which processes are on it" in held_back(node)
    away.rename(node.proc)
    assert held_back(node) == ""


def test_a_process_that_dropped_its_mark_holds_a_returned_card_back(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    lease = node.lab.start("ada")
    node.broker.leases.activate(lease.attempt)
    entry = mark(node, 4711, lease.attempt)
    node.tick(2)
    (entry / "environ").write_bytes(b"A=1\0")
    simulator.lose_card(node.path, node.card().uuid)
    node.tick()
    node.restart()
    simulator.reboot(node.path)
    node.tick(2)
    assert "process 4711 from before it was lost still runs" in node.card().problem


def test_a_card_that_was_never_lost_is_held_back_for_nobody(
    make_node: NodeMaker, sleeper: Callable[[], int]
) -> None:
    node = make_node(SMALL)
    node.tick()
    lease = node.lab.start("ada")
    node.broker.leases.activate(lease.attempt)
    simulator.add_process(node.path, str(lease.slice_uuid), sleeper())
    assert held_back(node) == ""
