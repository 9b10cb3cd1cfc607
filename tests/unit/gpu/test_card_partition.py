"""Plans carried out on a simulated driver, and every way from one layout to another."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.arrange import legal_layouts
from jupyterhub_migspawner.gpu.partition import Create, Destroy, Mode, Plan, apply, arrange, plan
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import Profile
from tests.fast.gpu.test_card_partition import A30_THREE, A100, A100_LAYOUTS, card_with, carried_out

NVIDIAS_FIVE = tuple(each for each in A100 if not each.attributes and each.name != "1g.10gb")


@pytest.mark.parametrize("profiles", [NVIDIAS_FIVE, A30_THREE], ids=["A100", "A30"])
def test_from_every_layout_to_every_other_only_the_difference_is_destroyed(
    profiles: tuple[Profile, ...],
) -> None:
    layouts = list(legal_layouts(profiles))
    for have in layouts:
        card = card_with(have, profiles)
        for want in layouts:
            made = plan(card, want)
            destroyed = [each for each in made.steps if isinstance(each, Destroy)]
            assert made.blocked == ()
            assert len(destroyed) == len(set(have) - set(want))
            assert len(made.steps) == len(set(have) ^ set(want))
            assert carried_out(have, made) == set(want)


def test_mig_is_turned_on_first_and_off_last(make_machine) -> None:
    machine = make_machine()
    uuid = machine.cards[0]
    on = plan(machine.nvml.card(uuid), [("4g.20gb", 0), ("3g.20gb", 4)])
    assert on.steps == (Mode(True), Create("4g.20gb", 0), Create("3g.20gb", 4))
    apply(machine.nvml, uuid, on)
    off = plan(machine.nvml.card(uuid), [], mig=False)
    assert [str(each) for each in off.steps] == [
        "destroy 4g.20gb at 0",
        "destroy 3g.20gb at 4",
        "turn MIG off",
    ]
    apply(machine.nvml, uuid, off)
    assert not machine.nvml.card(uuid).mig_enabled
    assert plan(machine.nvml.card(uuid), [], mig=False).done


def test_a_card_without_mig_or_with_a_problem_is_left_alone(make_machine) -> None:
    machine = make_machine(model="T4")
    card = machine.nvml.card(machine.cards[0])
    assert plan(card, [], mig=False).done
    with pytest.raises(GpuError, match="cannot be cut"):
        plan(card, [("1g.5gb", 0)])
    lost = make_machine(layouts=[["1g.5gb"]])
    lost.nvml.inventory()
    simulator.lose_card(lost.path, lost.cards[0])
    made = plan(lost.nvml.inventory().cards[0], [])
    assert made.steps == ()
    assert "fallen off the bus" in made.blocked[0]


def test_each_step_is_told_with_the_slice_it_made(make_machine) -> None:
    machine = make_machine(layouts=[["1g.5gb"] * 7])
    uuid = machine.cards[0]
    want = arrange(A100, ["3g.20gb", "1g.5gb"], have=machine.layout())
    told: list[tuple[str, bool]] = []
    made = apply(
        machine.nvml,
        uuid,
        plan(machine.nvml.card(uuid), want),
        lambda step, slice_: told.append((str(step), slice_ is not None)),
    )
    assert machine.layout() == sorted(want, key=lambda each: each[1])
    assert [each.uuid for each in made] == [
        each.uuid for each in machine.nvml.card(uuid).instances if each.profile == "3g.20gb"
    ]
    assert told[-1] == (f"create 3g.20gb at {made[0].start}", True)
    assert all(text.startswith("destroy 1g.5gb") and not new for text, new in told[:-1])


def test_a_slice_that_came_into_use_after_planning_is_not_destroyed(make_machine) -> None:
    machine = make_machine(layouts=[["1g.5gb"] * 2])
    uuid = machine.cards[0]
    made = plan(machine.nvml.card(uuid), [])
    simulator.add_process(machine.path, machine.slices[1], os.getpid())
    with pytest.raises(GpuError, match=f"process {os.getpid()} uses it") as caught:
        apply(machine.nvml, uuid, made)
    assert caught.value.code == Code.IN_USE
    assert machine.layout() == [("1g.5gb", 6)]


def test_an_instance_that_took_the_planned_ones_number_is_not_destroyed(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    uuid = machine.cards[0]
    made = plan(machine.nvml.card(uuid), [])
    apply(machine.nvml, uuid, made)
    apply(machine.nvml, uuid, made)  # gone already: nothing to do
    for name, start in (("4g.20gb", 0),):
        machine.nvml.create_instance(uuid, name, start)
    swapped = Plan((Destroy(1, "3g.20gb", 0),))
    with pytest.raises(GpuError, match="re-cut by another process"):
        apply(machine.nvml, uuid, swapped)
    assert machine.layout() == [("4g.20gb", 0)]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_on_the_driver_a_plan_ends_where_it_said_even_if_any_call_fails_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    from jupyterhub_migspawner.gpu.nvml import Nvml

    path = tmp_path_factory.mktemp("plan") / "machine.json"
    names = data.draw(st.sampled_from(A100_LAYOUTS))
    want = data.draw(st.sampled_from(A100_LAYOUTS))
    simulator.create_state(path, cards=1, layouts=[[name for name, _ in names]], seed="plan")
    symbol = data.draw(
        st.sampled_from(
            [
                "nvmlDeviceCreateGpuInstanceWithPlacement",
                "nvmlGpuInstanceCreateComputeInstance",
                "nvmlComputeInstanceDestroy",
                "nvmlGpuInstanceDestroy",
                "nvmlDeviceGetHandleByUUID",
                "nvmlComputeInstanceGetInfo_v2",
            ]
        )
    )
    nvml = Nvml(f"sim:{path}")
    (uuid,) = simulator.card_uuids(path)
    simulator.fail_call(path, symbol, Code.UNKNOWN)
    for _ in range(4):
        try:
            card = nvml.card(uuid)
            if not card.problem:
                apply(nvml, uuid, plan(card, want))
        except GpuError:
            continue
    nvml_card = nvml.card(uuid)
    assert {(each.profile, each.start) for each in nvml_card.instances} == set(want)
    assert all(each.uuid for each in nvml_card.instances)
    nvml.close()
