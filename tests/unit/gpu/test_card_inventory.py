"""What the inventory tells, read through NVIDIA's own binding over simulated cards."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pynvml
import pytest

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import GpuProcess

BALANCED = ["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"]


def test_every_slice_is_told_with_its_place_size_and_uuid(make_machine) -> None:
    machine = make_machine(cards=2, layouts=[["1g.5gb"] * 7, BALANCED])
    inventory = machine.nvml.inventory()
    assert inventory.driver_version.startswith("580.")
    first, second = inventory.cards
    assert [each.uuid for each in inventory.cards] == list(machine.cards)
    assert (first.model, first.memory_mib, first.mig_enabled) == (
        "NVIDIA A100-SXM4-40GB",
        40960,
        True,
    )
    assert [each.start for each in first.instances] == list(range(7))
    assert {(each.memory_mib, each.compute_slices) for each in first.instances} == {(4864, 1)}
    assert [(each.profile, each.start, each.size, each.gi_id) for each in second.instances] == [
        ("2g.10gb", 0, 2, 3),
        ("1g.5gb", 2, 1, 9),
        ("1g.5gb", 3, 1, 10),
        ("3g.20gb", 4, 4, 2),
    ]
    assert tuple(each.uuid for card in inventory.cards for each in card.instances) == machine.slices
    assert len(set(machine.slices)) == 11
    assert all(each.ci_id == 0 for card in inventory.cards for each in card.instances)


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("a100-40gb", "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        ("A100-SXM4-80GB", "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("nvidia a30", "1g.6gb 1g.6gb+me 2g.12gb 2g.12gb+me 4g.24gb"),
        ("A100 80GB PCIe", "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("a100-pcie-40gb", "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        ("h100", "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("h200", "1g.18gb 1g.18gb+me 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb"),
        ("gh200", "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.48gb 4g.48gb 7g.96gb"),
        ("b200", "1g.23gb 1g.23gb+me 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb"),
        (
            "RTX PRO 6000",
            "1g.24gb 1g.24gb+gfx 1g.24gb+me 1g.24gb+me.all 1g.24gb-me "
            "2g.48gb 2g.48gb+gfx 2g.48gb+me.all 2g.48gb-me 4g.96gb 4g.96gb+gfx",
        ),
    ],
)
@pytest.mark.parametrize("prefixed", [False, True])
def test_profiles_have_the_drivers_names_without_prefix(
    make_machine, model: str, names: str, prefixed: bool
) -> None:
    machine = make_machine(model=model, layouts=[[]])
    simulator.set_switches(machine.path, prefixed_names=prefixed)
    (card,) = machine.nvml.inventory().cards
    assert [each.name for each in card.profiles] == names.split()
    assert [each.name for each in card.profiles if each.whole] == [
        name for name in names.split() if name.startswith(names.split()[-1].partition("+")[0])
    ]
    assert [each.name for each in card.profiles if each.attributes] == [
        name for name in names.split() if not name.endswith("gb")
    ]


def test_the_full_compute_instance_takes_all_multiprocessors(make_machine) -> None:
    machine = make_machine(model="h100", layouts=[["1g.20gb", "3g.40gb"]])
    one = machine.nvml.create_instance(machine.cards[0], "1g.20gb", 2)
    assert one.uuid is not None
    device = pynvml.nvmlDeviceGetHandleByUUID(one.uuid)
    assert pynvml.nvmlDeviceGetAttributes(device).multiprocessorCount == 26
    assert pynvml.nvmlDeviceGetName(device) == "NVIDIA H100 80GB HBM3 MIG 1g.20gb"


@pytest.mark.parametrize(("model", "memory_mib"), [("T4", 15360), ("GB10", 0)])
def test_a_card_that_cannot_be_cut_is_no_problem(make_machine, model, memory_mib) -> None:
    """Nor is one that shares the CPU's memory and answers no question about its own."""
    (card,) = make_machine(model=model).nvml.inventory().cards
    assert (card.mig_capable, card.mig_enabled, card.problem) == (False, False, "")
    assert (card.memory_mib, card.profiles, card.instances) == (memory_mib, (), ())


def test_an_older_binding_hides_no_slice_of_a_newer_profile(
    make_machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nvidia-ml-py 12.535 knows ten kinds of profile and eight of compute instances."""
    names = ["1g.24gb+me.all", "1g.24gb-me", "2g.48gb-me"]
    machine = make_machine(model="rtx pro 6000", layouts=[names])
    assert machine.nvml.profiles_beyond_binding() == 0
    monkeypatch.setattr(pynvml, "NVML_GPU_INSTANCE_PROFILE_COUNT", 10)
    monkeypatch.setattr(pynvml, "NVML_COMPUTE_INSTANCE_PROFILE_COUNT", 1)
    (card,) = machine.nvml.inventory().cards
    assert sorted(each.profile for each in card.instances) == sorted(names)
    assert all(each.uuid for each in card.instances)
    assert len(card.profiles) == 11
    assert machine.nvml.profiles_beyond_binding() == 8


def test_a_driver_that_does_not_match_its_kernel_module_is_named_as_that(make_machine) -> None:
    machine = make_machine()
    simulator.fail_call(machine.path, "nvmlInitWithFlags", Code.LIB_RM_VERSION_MISMATCH)
    with pytest.raises(GpuError, match=r"different versions, as after an upgrade.*Reboot the node"):
        machine.nvml.inventory()


def test_an_rtx_pro_6000_numbers_its_instances_by_quarters(make_machine) -> None:
    machine = make_machine(model="rtx pro 6000", layouts=[["1g.24gb"] * 2 + ["2g.48gb-me"]])
    (card,) = machine.nvml.inventory().cards
    assert [(each.profile, each.start, each.size, each.gi_id) for each in card.instances] == [
        ("2g.48gb-me", 0, 6, 1),
        ("1g.24gb", 6, 3, 5),
        ("1g.24gb", 9, 3, 6),
    ]
    assert {each.memory_mib for each in card.instances} == {24192, 48512}


@pytest.mark.parametrize("need_mig", [False, True])
def test_a_card_with_mig_off_is_no_problem_whether_or_not_it_tells_profiles(
    make_machine, need_mig: bool
) -> None:
    machine = make_machine()
    simulator.set_switches(machine.path, profiles_need_mig=need_mig)
    (card,) = machine.nvml.inventory().cards
    assert (card.mig_capable, card.mig_enabled, card.problem) == (True, False, "")
    assert bool(card.profiles) is not need_mig


def test_a_process_is_on_its_slice_until_it_ends(
    make_machine, sleeper: Callable[[], Popen[bytes]]
) -> None:
    machine = make_machine(layouts=[BALANCED])
    process = sleeper()
    uuid = machine.slices[1]
    simulator.add_process(machine.path, uuid, process.pid, 1500)
    simulator.add_process(machine.path, uuid, os.getpid())
    expected = {GpuProcess(process.pid, 1500), GpuProcess(os.getpid(), None)}
    assert set(machine.nvml.processes(uuid)) == expected
    on_card = machine.nvml.inventory().cards[0].instances
    assert [len(each.processes) for each in on_card] == [0, 2, 0, 0]

    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert machine.nvml.processes(uuid) == (GpuProcess(os.getpid(), None),)
    process.wait()
    simulator.remove_process(machine.path, uuid, os.getpid())
    assert machine.nvml.processes(uuid) == ()


def test_a_later_process_with_the_same_number_is_not_taken_for_the_first(make_machine) -> None:
    machine = make_machine(layouts=[BALANCED])
    simulator.add_process(machine.path, machine.slices[0], os.getpid(), 10)
    text = machine.path.read_text()
    started = f'"started": {simulator.processes.start_time(os.getpid())}'
    assert text.count(started) >= 1
    machine.path.write_text(text.replace(started, '"started": 1'))
    assert Nvml(f"sim:{machine.path}").processes(machine.slices[0]) == ()


def test_an_instance_without_compute_instance_is_listed_without_uuid(make_machine) -> None:
    machine = make_machine(layouts=[["1g.5gb"]])
    gi_id = simulator.orphan_instance(machine.path, machine.cards[0], "3g.20gb", 0)
    orphan, whole = machine.nvml.inventory().cards[0].instances
    assert (orphan.gi_id, orphan.uuid, orphan.ci_id) == (gi_id, None, None)
    assert whole.uuid is not None


def test_one_bad_card_does_not_hide_the_others(make_machine) -> None:
    machine = make_machine(cards=3, layouts=[BALANCED] * 3)
    machine.nvml.inventory()
    simulator.lose_card(machine.path, machine.cards[1])
    good, bad, other = machine.nvml.inventory().cards
    assert good.problem == other.problem == ""
    assert len(good.instances) == len(other.instances) == 4
    assert bad.uuid == machine.cards[1]
    assert bad.instances == ()
    assert "fallen off the bus" in bad.problem
    assert bad.uuid in bad.problem


def test_a_card_lost_before_it_was_ever_read_still_has_its_place(make_machine) -> None:
    machine = make_machine(cards=2, layouts=[BALANCED] * 2)
    simulator.lose_card(machine.path, machine.cards[0])
    bad, good = machine.nvml.inventory().cards
    assert (bad.index, bad.uuid, bool(bad.problem)) == (0, "", True)
    assert good.problem == ""


# Calls whose refusal is normal for some cards and callers, hence no problem of the card.
TOLERATED = {
    ("nvmlDeviceGetGraphicsRunningProcesses_v3", Code.NOT_SUPPORTED),
    ("nvmlDeviceGetMPSComputeRunningProcesses_v3", Code.NOT_SUPPORTED),
    ("nvmlDeviceGetMemoryInfo", Code.NO_PERMISSION),
    ("nvmlDeviceGetMigMode", Code.NOT_SUPPORTED),
}
READ_CALLS = (
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetGpuInstances",
    "nvmlGpuInstanceGetInfo",
    "nvmlGpuInstanceGetComputeInstances",
    "nvmlComputeInstanceGetInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)


@pytest.mark.parametrize("code", [Code.UNKNOWN, Code.GPU_IS_LOST, Code.NO_PERMISSION])
@pytest.mark.parametrize("symbol", READ_CALLS)
def test_whatever_call_fails_the_card_tells_it_and_the_next_look_is_well(
    make_machine, symbol: str, code: Code
) -> None:
    machine = make_machine(cards=2, layouts=[BALANCED, BALANCED])
    before = machine.nvml.inventory()
    simulator.fail_call(machine.path, symbol, code)
    cards = machine.nvml.inventory().cards
    assert [each.uuid for each in cards] == list(machine.cards)
    failed = [each for each in cards if each.problem]
    assert len(failed) == (0 if (symbol, code) in TOLERATED else 1)
    assert all("cannot be read" in each.problem for each in failed)
    assert machine.nvml.inventory() == before


def test_a_session_that_a_reset_killed_is_opened_again(make_machine) -> None:
    machine = make_machine(layouts=[BALANCED])
    assert len(machine.nvml.inventory().cards[0].instances) == 4
    simulator.reboot(machine.path)
    (card,) = machine.nvml.inventory().cards
    assert (card.problem, card.instances, card.mig_enabled) == ("", (), True)


def test_an_unprivileged_reader_is_told_to_ask_root(make_machine) -> None:
    machine = make_machine(layouts=[BALANCED])
    simulator.set_switches(machine.path, privileged="nobody")
    (card,) = machine.nvml.inventory().cards
    assert "Run it as root" in card.problem
    assert (card.uuid, card.mig_enabled) == (machine.cards[0], True)


def test_no_driver_is_a_sentence_with_a_way_out() -> None:
    with pytest.raises(GpuError, match=r"libnvidia-ml\.so\.1 was not found") as caught:
        Nvml("").inventory()
    assert caught.value.code == Code.LIBRARY_NOT_FOUND


@pytest.mark.parametrize("spec", ["sim:", "simulated", "/dev/null"])
def test_a_choice_of_library_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(GpuError, match="sim:FILE"):
        Nvml(spec)


def test_the_environment_chooses_the_library(make_machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = make_machine(cards=3)
    monkeypatch.setenv("MIGSPAWNER_NVML", f"sim:{machine.path}")
    assert len(Nvml().inventory().cards) == 3


def test_a_missing_or_foreign_state_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GpuError, match=r"nowhere\.json cannot be read"):
        Nvml(f"sim:{tmp_path}/nowhere.json").inventory()
    simulator.create_state(tmp_path / "removed.json", cards=1)
    nvml = Nvml(f"sim:{tmp_path}/removed.json")
    nvml.inventory()
    (tmp_path / "removed.json").unlink()
    with pytest.raises(GpuError, match=r"removed\.json cannot be read"):
        nvml.inventory()
    nvml.close()
    (tmp_path / "other.json").write_text('{"cards": []}')
    with pytest.raises(GpuError, match="not a state file"):
        Nvml(f"sim:{tmp_path}/other.json").inventory()
