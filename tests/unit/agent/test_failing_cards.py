"""Cards that answer with errors: for a moment, for long, or in a process that never saw them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.simulator.exports import EXPORTS
from jupyterhub_migspawner.gpu.simulator.state import StateFile
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.unit.agent.conftest import BALANCED, SMALL, Node, NodeMaker

IDENTITY = (
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetPciInfo_v3",
)
"""What is asked of a card before anything else."""

FOR_EVER = 10**6


def running(node: Node, user: str = "ada") -> LeaseRow:
    lease = node.lab.start(user)
    active = node.broker.leases.activate(lease.attempt)
    assert active is not None
    return active


def fail(node: Node, card_uuid: str, code: Code = Code.UNKNOWN, times: int = FOR_EVER) -> None:
    simulator.fail_call(node.path, "nvmlDeviceGetMigMode", code, times=times, card_uuid=card_uuid)


def mend(node: Node) -> None:
    with StateFile(node.path).change() as changed:
        changed["switches"]["faults"].clear()


@pytest.mark.parametrize("symbol", IDENTITY)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_passing_error_in_a_new_process_costs_no_lease(
    make_node: NodeMaker, symbol: str, times: int
) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    lease = running(node)
    before = node.states()
    simulator.fail_call(node.path, symbol, Code.UNKNOWN, times=times, card_uuid=lease.card_uuid)
    node.cutter().read()
    assert node.broker.leases.get(lease.id) == lease
    simulator.fail_call(node.path, symbol, Code.UNKNOWN, times=times, card_uuid=lease.card_uuid)
    node.restart()
    node.tick(8)
    assert node.broker.leases.get(lease.id) == lease
    assert node.states() == before
    assert "card.lost" not in node.kinds()


def test_a_card_that_no_process_saw_before_it_was_lost_is_known_by_its_index(
    make_node: NodeMaker,
) -> None:
    node = make_node(SMALL, SMALL, SMALL)
    node.tick()
    lease = running(node)
    others = [each.uuid for each in node.broker.cards.find() if each.uuid != lease.card_uuid]
    (index,) = [each.index for each in node.nvml.inventory().cards if each.uuid == lease.card_uuid]
    simulator.lose_card(node.path, lease.card_uuid)
    simulator.lose_card(node.path, others[0])
    node.restart()
    node.tick()
    states = {each.uuid: each.state for each in node.broker.cards.find()}
    assert states == {lease.card_uuid: "lost", others[0]: "lost", others[1]: "ok"}
    over = node.broker.leases.get(lease.id)
    assert over.state == "lost"
    # Its user reads this, to whom a UUID says nothing.
    assert f"Card {index} of node n1" in over.end_reason
    assert lease.card_uuid not in over.end_reason
    assert "fallen off the bus" in over.end_reason
    (lost,) = [
        each
        for each in node.broker.events.find(limit=1000)
        if each.kind == "card.lost" and each.card_uuid == lease.card_uuid
    ]
    assert lease.card_uuid in lost.detail["why"]


def test_an_onlookers_reading_loses_no_card(make_node: NodeMaker) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    lease = running(node)
    found = node.nvml.inventory()
    fewer = type(found)(found.driver_version, found.nvml_version, found.cards[1:])
    node.broker.nodes.record_inventory("n1", fewer, alive=False)
    assert {each.state for each in node.broker.cards.find()} == {"ok"}
    assert node.broker.leases.get(lease.id).state == "active"


def test_what_a_user_may_not_read_is_no_problem_of_the_card(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    uuid = node.card().uuid
    fail(node, uuid, Code.NO_PERMISSION)
    with pytest.raises(GpuError) as caught:
        node.cutter().read()
    assert uuid in str(caught.value)
    assert "root" in str(caught.value)
    assert node.card().problem == ""
    # The agent's own error is the node's: nothing new is lent, and nothing is lost, ever.
    lease = running(node)
    node.lab.clock.pass_time(days=3)
    node.tick(2)
    assert "is not permitted to do it" in node.card().problem
    assert node.broker.leases.get(lease.id).state == "active"


@pytest.mark.parametrize("code", [Code.UNKNOWN, Code.TIMEOUT])
def test_a_card_that_answers_with_nothing_but_errors_is_lost_in_the_end(
    make_node: NodeMaker, code: Code
) -> None:
    node = make_node(SMALL, SMALL)
    node.tick()
    lease = running(node)
    fail(node, lease.card_uuid, code)
    node.tick()
    began = node.lab.clock.now
    assert {c.uuid: bool(c.problem) for c in node.broker.cards.find()}[lease.card_uuid]
    node.lab.clock.pass_time(minutes=9)
    node.tick()
    assert node.broker.leases.get(lease.id).state == "active"
    node.lab.clock.pass_time(minutes=1)
    node.tick()
    over = node.broker.leases.get(lease.id)
    assert over.state == "lost"
    assert node.lab.clock.now - began >= timedelta(minutes=10)
    assert node.lab.start("ada").card_uuid != lease.card_uuid
    mend(node)
    node.tick(2)
    assert {each.state for each in node.broker.cards.find()} == {"ok"}
    assert {each.problem for each in node.broker.cards.find()} == {""}


def test_an_error_that_comes_and_goes_does_not_add_up(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    lease = running(node)
    for _ in range(5):
        fail(node, lease.card_uuid)
        node.tick()
        node.lab.clock.pass_time(minutes=5)
        mend(node)
        node.tick()
    assert node.broker.leases.get(lease.id).state == "active"


def test_a_card_that_waits_for_a_reset_is_lost_at_once(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    lease = running(node)
    fail(node, lease.card_uuid, Code.RESET_REQUIRED)
    node.tick()
    assert node.broker.leases.get(lease.id).state == "lost"
    assert "must be reset" in node.broker.leases.get(lease.id).end_reason
    # Back, but the person's server is still on it: nobody else gets its slices.
    mend(node)
    simulator.add_process(node.path, str(lease.slice_uuid), 1)
    node.tick()
    assert "process 1 from before" in node.card().problem


def test_a_card_that_cannot_be_watched_keeps_no_other_from_being_heard(
    make_node: NodeMaker,
) -> None:
    node = make_node(SMALL, SMALL)
    first, second = (each.uuid for each in node.nvml.inventory().cards)
    simulator.fail_call(
        node.path, "nvmlDeviceRegisterEvents", Code.UNKNOWN, times=3, card_uuid=first
    )
    node.restart()
    node.tick()
    simulator.report_xid(node.path, second, 95)
    node.tick(3)
    assert [e.card_uuid for e in node.broker.events.find() if e.kind == "card.xid"] == [second]
    # The first one is watched as soon as it can be.
    simulator.report_xid(node.path, first, 13)
    node.tick()
    assert [e.card_uuid for e in node.broker.events.find() if e.kind == "card.xid"] == [
        second,
        first,
    ]


def test_an_instance_that_a_crash_left_without_compute_instance_is_cleared_away(
    make_node: NodeMaker,
) -> None:
    node = make_node(())
    node.tick()
    wants = node.set_layout(*BALANCED[:2])
    node.tick()
    start = next(s for s in range(7) if s not in {start for _, start in wants})
    simulator.orphan_instance(node.path, node.card().uuid, "1g.5gb", start)
    node.tick()
    assert len(node.nvml.inventory().cards[0].instances) == len(wants)
    assert tuple(node.actual()) == wants
    assert not node.card().incomplete


def test_half_a_cut_by_hand_is_left_alone(make_node: NodeMaker) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    taken = {start for _, start in node.actual()}
    start = next(s for s in range(7) if s not in taken)
    simulator.orphan_instance(node.path, node.card().uuid, "1g.5gb", start)
    node.tick(3)
    assert len(node.nvml.inventory().cards[0].instances) == 2


CUTS = (
    tuple(("1g.5gb", start) for start in range(7)),
    (("1g.5gb", 0), ("1g.5gb", 1), ("2g.10gb", 2), ("2g.10gb", 4), ("1g.5gb", 6)),
)


@pytest.mark.parametrize("code", [Code.UNKNOWN, Code.NO_PERMISSION, Code.NOT_FOUND, Code.TIMEOUT])
def test_an_error_at_any_call_costs_nobody_anything_and_the_next_round_goes_on(
    make_node: NodeMaker, code: Code
) -> None:
    symbols = sorted(name for name in EXPORTS if name not in ("nvmlInit_v2", "nvmlShutdown"))
    assert len(symbols) > 40
    node = make_node(SMALL)
    node.tick()
    lease = running(node)
    for number, symbol in enumerate(symbols):
        wants = CUTS[(number + 1) % 2]
        node.broker.layouts.set(node.card().uuid, wants, True, "root")
        assert (lease.profile, lease.start) in wants
        simulator.fail_call(node.path, symbol, code)
        node.tick()
        assert str(lease.slice_uuid) in simulator.slice_uuids(node.path), symbol
        assert node.broker.leases.get(lease.id) == lease, symbol
        mend(node)
        # Each further try of a card that could not be cut comes later than the one before.
        for _ in range(6):
            node.tick()
            if set(node.actual()) == set(wants):
                break
        assert set(node.actual()) == set(wants), symbol
        assert node.card().problem == ""
        found = node.nvml.inventory().cards[0].instances
        assert all(each.uuid for each in found), symbol
