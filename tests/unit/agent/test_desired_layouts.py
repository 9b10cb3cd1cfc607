"""A card is brought to its layout, without anybody who holds a part of it noticing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.codes import Code
from tests.unit.agent.conftest import BALANCED, SMALL, NodeMaker


def test_a_card_is_left_as_it_was_found(make_node: NodeMaker) -> None:
    node = make_node(SMALL, BALANCED)
    before = node.path.read_text()
    node.tick(3)
    assert node.card().layout == tuple(("1g.5gb", start) for start in range(7))
    assert node.card().layout_by == ""
    assert set(node.states().values()) == {"free"}
    assert "card.step" not in node.kinds()
    assert node.actual(0) == [("1g.5gb", start) for start in range(7)]
    assert before


def test_a_free_card_is_cut_into_its_new_layout_step_by_step(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    wants = node.set_layout(*BALANCED)
    states = node.states()
    assert {states[(0, *want)] for want in wants if (0, *want) in states} <= {"free", "missing"}
    gone = [place for place in states if place[1:] not in wants]
    assert {states[place] for place in gone} == {"draining"}
    node.tick()
    assert tuple(node.actual()) == wants
    assert node.states() == {(0, *want): "free" for want in wants}
    steps = [e.detail["step"] for e in node.broker.events.find() if e.kind == "card.step"]
    assert steps.count("create 3g.20gb at 0") + steps.count("create 3g.20gb at 4") == 1
    assert steps == sorted(steps, key=lambda step: step.startswith("create"))
    made = [e.detail["uuid"] for e in node.broker.events.find() if e.detail.get("uuid")]
    assert set(simulator.slice_uuids(node.path)) <= set(made)


def test_what_is_leased_stays_and_the_rest_is_cut_around_it(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    leases = [node.lab.start(f"user{number}") for number in range(7)]
    kept, waited = leases[6], leases[1]
    for lease in (*leases[:1], *leases[2:6]):
        node.stop(lease)
    node.tick()
    wants = (("2g.10gb", 0), ("1g.5gb", kept.start))
    node.broker.layouts.set(kept.card_uuid, wants, True, "root")
    states = node.states()
    assert states[(0, "1g.5gb", kept.start)] == "leased"
    assert states[(0, "1g.5gb", waited.start)] == "draining"
    node.tick(2)
    # The 2g needs the slot that is still leased: it waits, and nobody is disturbed.
    assert node.actual() == sorted(
        [("1g.5gb", waited.start), ("1g.5gb", kept.start)], key=lambda w: w[1]
    )
    now = {lease.id: lease.slice_uuid for lease in node.broker.leases.find()}
    assert now == {kept.id: kept.slice_uuid, waited.id: waited.slice_uuid}
    with pytest.raises(Refusal):
        node.lab.start("late")
    node.stop(waited)
    node.tick(2)
    assert set(node.actual()) == set(wants)
    assert node.lab.start("late", "medium").slice_uuid in simulator.slice_uuids(node.path)


def test_a_slice_with_a_process_but_no_lease_is_not_destroyed(
    make_node: NodeMaker, sleeper: Callable[[], int]
) -> None:
    node = make_node(("3g.20gb", "3g.20gb"))
    node.tick()
    pid = sleeper()
    simulator.add_process(node.path, simulator.slice_uuids(node.path)[0], pid)
    node.set_layout("2g.10gb", "2g.10gb", "3g.20gb")
    node.tick(2)
    assert ("3g.20gb", 0) in node.actual()
    simulator.remove_process(node.path, simulator.slice_uuids(node.path)[0], pid)
    node.tick()
    assert set(node.actual()) == set(node.card().layout)


@pytest.mark.parametrize("model", ["A100-SXM4-40GB", "H100-SXM5-80GB"])
def test_the_layout_is_restored_after_a_restart_of_the_node(
    make_node: NodeMaker, model: str
) -> None:
    names = [p.name for p in simulator.profiles_of(simulator.find_model(model))]
    three = next(name for name in names if name.startswith("3g"))
    node = make_node((three, three), model=model)
    node.tick()
    before = node.states()
    simulator.set_switches(node.path, reshuffle=True)
    simulator.reboot(node.path)
    node.restart()
    # Nothing of before is offered from the first look on, and in the same round it is back.
    node.agent.take_inventory()
    assert set(node.states().values()) == {"missing"}
    node.tick()
    assert node.states() == before
    assert {s.row.uuid for s in node.broker.slices.find()} == set(simulator.slice_uuids(node.path))


def test_mig_is_turned_off_and_on_again_by_the_layout(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    node.set_layout(mig=False)
    node.tick()
    assert not node.card().mig_enabled
    assert node.states() == {}
    profiles = simulator.profiles_of(simulator.find_model("A100-SXM4-40GB"))
    assert profiles
    node.broker.layouts.set(node.card().uuid, (("7g.40gb", 0),), True, "root")
    node.tick()
    assert node.actual() == [("7g.40gb", 0)]


def test_a_mode_change_waits_for_whoever_holds_the_card_open(
    make_node: NodeMaker, sleeper: Callable[[], int]
) -> None:
    node = make_node(())
    node.tick()
    pid = sleeper()
    simulator.add_monitor(node.path, node.card().uuid, pid)
    node.set_layout(mig=False)
    node.tick(2)
    assert node.card().mig_enabled
    failed = [e.detail for e in node.broker.events.find() if e.kind == "card.step-failed"]
    assert {each["step"] for each in failed} == {"turn MIG off"}
    simulator.remove_monitor(node.path, node.card().uuid, pid)
    node.tick()
    assert not node.card().mig_enabled


@pytest.mark.parametrize(
    "symbol",
    [
        "nvmlGpuInstanceDestroy",
        "nvmlComputeInstanceDestroy",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
    ],
)
def test_a_step_that_fails_leaves_the_card_as_the_last_one_did_and_is_tried_again(
    make_node: NodeMaker, symbol: str
) -> None:
    node = make_node(SMALL)
    node.tick()
    wants = node.set_layout(*BALANCED)
    simulator.fail_call(node.path, symbol, Code.UNKNOWN, times=1)
    node.tick()
    failed = [e.detail for e in node.broker.events.find() if e.kind == "card.step-failed"]
    assert len(failed) == 1
    assert node.card().uuid in failed[0]["error"]
    # What is there and desired is offered, whatever failed.
    there = {(0, *want) for want in node.actual()}
    assert {place for place, state in node.states().items() if state == "free"} == {
        place for place in there if place[1:] in wants
    }
    node.tick()
    assert set(node.actual()) == set(wants)


def test_a_layout_that_is_set_back_in_time_destroys_nothing(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    uuids = simulator.slice_uuids(node.path)
    before = node.card().layout
    node.set_layout(*BALANCED)
    node.broker.layouts.set(node.card().uuid, before, True, "root")
    lease = node.lab.start("ada")
    node.tick(2)
    assert simulator.slice_uuids(node.path) == uuids
    assert lease.state == "pending"


def test_what_is_cut_by_hand_joins_a_layout_that_nobody_has_set(make_node: NodeMaker) -> None:
    node = make_node(("3g.20gb",))
    node.tick()
    node.nvml.create_instance(node.card().uuid, "1g.5gb", 2)
    node.tick(2)
    assert ("1g.5gb", 2) in node.card().layout
    assert node.states()[(0, "1g.5gb", 2)] == "free"
    node.set_layout("3g.20gb", "3g.20gb")
    node.tick()
    node.nvml.destroy_instance(node.card().uuid, node.nvml.inventory().cards[0].instances[0].gi_id)
    node.nvml.create_instance(node.card().uuid, "1g.5gb", 2)
    node.tick(2)
    assert node.actual() == [("3g.20gb", 0), ("3g.20gb", 4)]


def test_a_lost_card_takes_no_layout(make_node: NodeMaker) -> None:
    node = make_node(SMALL)
    node.tick()
    simulator.lose_card(node.path, node.card().uuid)
    node.tick()
    with pytest.raises(Refusal, match="is lost"):
        node.broker.layouts.set(node.card().uuid, (), True, "root")
    with pytest.raises(Refusal, match="no card"):
        node.broker.layouts.set("GPU-none", (), True, "root")
