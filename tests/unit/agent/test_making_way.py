"""Agent and command line cut the same cards: neither keeps the other, or the people, waiting."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta

import pytest

from jupyterhub_migspawner.agent.hooks import Hooks
from jupyterhub_migspawner.agent.lock import CuttingLock
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.codes import Code
from tests.unit.agent.conftest import SMALL, Node, NodeMaker

SEVENTH = (("1g.5gb", 6),)


def silent_for(node: Node) -> timedelta:
    return node.lab.clock.now - node.broker.nodes.find()[0].heartbeat_at


def clients(node: Node) -> list[int]:
    """Pids of the processes that have the driver open, as the machine's state says."""
    return [each["pid"] for each in json.loads(node.path.read_text())["clients"]]


def test_the_agent_lets_go_of_the_driver_while_somebody_else_cuts(make_node: NodeMaker) -> None:
    """Turning MIG off on an A100 needs a card that nobody has open."""
    node = make_node(SMALL)
    node.tick()
    assert clients(node) == [os.getpid()]
    turn = CuttingLock(node.folder, "n1")
    with turn.taken():
        node.tick()
        assert clients(node) == [os.getpid()], "most cuts need no such thing"
        with turn.alone():
            node.tick(2)
            assert clients(node) == []
        node.tick()
        assert clients(node) == [os.getpid()]
    node.tick()
    assert clients(node) == [os.getpid()]


def test_errors_that_cards_report_are_heard_while_somebody_cuts(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    with CuttingLock(node.folder, "n1").taken():
        node.tick()
        simulator.report_xid(node.path, node.card().uuid, 95)
        node.tick()
    assert "card.xid" in node.kinds()
    assert node.card().state == "draining"


def test_a_slice_comes_back_while_somebody_cuts(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    lease = node.lab.start()
    with CuttingLock(node.folder, "n1").taken():
        node.stop(lease)
        node.tick()
        assert node.broker.leases.get(lease.id).state == "released"


def test_who_cuts_waits_until_the_agent_has_let_go(
    make_node: NodeMaker, sleeper: Callable[[], int]
) -> None:
    node = make_node()
    node.tick()
    uuid, pid = node.card().uuid, sleeper()
    simulator.add_monitor(node.path, uuid, pid)
    node.broker.layouts.set(uuid, SEVENTH, True, "root")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            simulator.remove_monitor(node.path, uuid, pid)

    assert node.cutter(sleep=sleep).converge(uuid).done
    assert len(waited) == 3
    assert node.actual() == list(SEVENTH)
    assert "card.step-failed" not in node.kinds()


def test_who_cuts_does_not_wait_for_ever(make_node: NodeMaker, sleeper: Callable[[], int]) -> None:
    node = make_node()
    node.tick()
    uuid, pid = node.card().uuid, sleeper()
    simulator.add_monitor(node.path, uuid, pid)
    node.broker.layouts.set(uuid, SEVENTH, True, "root")
    waited: list[float] = []
    with pytest.raises(GpuError) as caught:
        node.cutter(sleep=waited.append).converge(uuid)
    assert caught.value.code == Code.IN_USE
    assert 0 < sum(waited) < 60
    assert node.kinds().count("card.step-failed") == 1
    assert not node.nvml.inventory().cards[0].mig_enabled
    simulator.remove_monitor(node.path, uuid, pid)
    node.tick()
    assert node.actual() == list(SEVENTH)


def test_an_agent_that_makes_way_is_alive(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    with CuttingLock(node.folder, "n1").taken() as mine:
        assert mine
        node.lab.clock.pass_time(seconds=100)
        node.tick()
    assert silent_for(node) == timedelta(0)
    assert node.lab.start().slice_uuid in simulator.slice_uuids(node.path)


def test_an_agent_that_has_not_looked_yet_vouches_for_nothing(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    simulator.reboot(node.path)
    node.restart()
    node.lab.clock.pass_time(seconds=100)
    with CuttingLock(node.folder, "n1").taken():
        node.tick()
    assert silent_for(node) > timedelta(seconds=100)


def test_slices_come_back_and_the_heart_beats_between_the_steps_of_a_cut(
    make_node: NodeMaker,
) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    lease = node.lab.start()
    node.broker.leases.activate(lease.attempt)
    (other,) = {card.uuid for card in node.broker.cards.find()} - {lease.card_uuid}
    node.broker.layouts.set(other, (("7g.40gb", 0),), True, "root")
    # Everything about the card that is cut takes so long that the server is stopped meanwhile.
    seen: list[tuple[str, timedelta]] = []
    record = node.broker.layouts.record_step

    def slow_step(*args: str, **kwargs: str) -> None:
        node.lab.clock.pass_time(seconds=50)
        if not seen:
            node.stop(lease)
        record(*args, **kwargs)
        seen.append((node.broker.leases.get(lease.id).state, silent_for(node)))

    node.broker.layouts.record_step = slow_step  # type: ignore[method-assign]
    node.tick()
    assert len(seen) == 8
    assert seen[0][0] == "releasing"
    assert seen[-1][0] == "released"
    assert max(silence for _, silence in seen) <= timedelta(seconds=51)


def test_a_cut_that_keeps_failing_keeps_no_slice_from_coming_back(make_node: NodeMaker) -> None:
    node = make_node(SMALL, SMALL)
    node.hooks = Hooks(before=(("false",),))
    node.restart()
    node.tick()
    lease = node.lab.start()
    (other,) = {card.uuid for card in node.broker.cards.find()} - {lease.card_uuid}
    node.broker.layouts.set(other, (("7g.40gb", 0),), True, "root")
    node.stop(lease)
    node.tick(3)
    assert node.broker.leases.get(lease.id).state == "released"
