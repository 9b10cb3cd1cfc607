"""Processes on slices that nobody has: nobody gets such a slice, and it comes back by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.policy.people import Person
from tests.unit.agent.conftest import Node, NodeMaker

Sleeper = Callable[[], int]


def only(node: Node) -> str:
    (uuid,) = simulator.slice_uuids(node.path)
    return uuid


def why(node: Node) -> str:
    (status,) = node.broker.slices.find()
    return status.why


def test_a_slice_that_is_used_without_a_lease_is_lent_to_nobody(
    make_node: NodeMaker, sleeper: Sleeper
) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    pid = sleeper()
    simulator.add_process(node.path, only(node), pid)
    node.tick()
    assert set(node.states().values()) == {"quarantined"}
    assert why(node) == f"In use without a lease, by process {pid}."
    with pytest.raises(Refusal):
        node.lab.start()
    another = sleeper()
    simulator.add_process(node.path, only(node), another)
    node.tick()
    assert str(another) in why(node)
    simulator.remove_process(node.path, only(node), pid)
    simulator.remove_process(node.path, only(node), another)
    node.tick()
    assert set(node.states().values()) == {"free"}
    assert node.lab.start()
    assert node.kinds().count("slice.unquarantined") == 1


def test_who_has_a_lease_is_no_stray(make_node: NodeMaker, sleeper: Sleeper) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    lease = node.lab.start()
    pid = sleeper()
    simulator.add_process(node.path, only(node), pid)
    node.tick(2)
    node.broker.leases.activate(lease.attempt)
    node.tick(2)
    assert set(node.states().values()) == {"leased"}
    node.stop(lease)
    node.tick(2)
    # On its way back it waits for the process, as ever.
    assert node.broker.leases.get(lease.id).state == "releasing"
    assert "slice.quarantined" not in node.kinds()
    simulator.remove_process(node.path, only(node), pid)
    node.tick(2)
    assert set(node.states().values()) == {"free"}


def test_a_lease_that_is_taken_meanwhile_is_not_shut_out(make_node: NodeMaker) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    (status,) = node.broker.slices.find()
    lease = node.lab.start()
    assert not node.broker.slices.shut_out(status.row.id, [7])
    node.stop(lease)
    assert not node.broker.slices.shut_out(status.row.id, [7])
    node.tick()
    assert node.broker.slices.shut_out(status.row.id, [7])
    assert not node.broker.slices.shut_out(10**9, [7])


def test_a_quarantine_by_hand_stays_until_it_is_lifted_by_hand(
    make_node: NodeMaker, sleeper: Sleeper
) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    (status,) = node.broker.slices.find()
    node.broker.slices.quarantine(status.row.id, "the fan is loud", "root")
    pid = sleeper()
    simulator.add_process(node.path, only(node), pid)
    node.tick()
    simulator.remove_process(node.path, only(node), pid)
    node.tick()
    assert why(node) == "the fan is loud"
    node.broker.slices.let_in_again(status.row.id)
    assert why(node) == "the fan is loud"
    node.broker.slices.unquarantine(status.row.id, "root")
    assert set(node.states().values()) == {"free"}


def test_what_nvml_does_not_tell_changes_nothing(make_node: NodeMaker, sleeper: Sleeper) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    pid = sleeper()
    simulator.add_process(node.path, only(node), pid)
    node.tick()
    simulator.remove_process(node.path, only(node), pid)
    for symbol in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetHandleByUUID"):
        simulator.fail_call(node.path, symbol, Code.UNKNOWN, times=100)
    node.tick()
    assert set(node.states().values()) == {"quarantined"}


def test_a_card_with_a_stray_on_it_is_not_given_out_whole(
    make_node: NodeMaker, sleeper: Sleeper
) -> None:
    tiers = [{"name": "card", "profile": "whole", "approval": True}]
    node = make_node(("1g.5gb",), tiers=tiers)
    node.tick()
    request = node.broker.requests.create(Person("ada"), "card", 5, "training")
    node.broker.requests.decide(request.id, Person("root", admin=True), True)
    pid = sleeper()
    simulator.add_process(node.path, only(node), pid)
    node.tick()
    with pytest.raises(Refusal):
        node.lab.start("ada", "card")
    simulator.remove_process(node.path, only(node), pid)
    node.tick()
    assert node.lab.start("ada", "card").whole


def test_a_slice_that_is_gone_is_used_by_nobody(make_node: NodeMaker, sleeper: Sleeper) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    simulator.add_process(node.path, only(node), sleeper())
    node.tick()
    assert set(node.states().values()) == {"quarantined"}
    simulator.reboot(node.path)
    node.tick(3)
    assert set(node.states().values()) == {"free"}
