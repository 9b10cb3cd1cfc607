"""Creating and destroying slices, and what the driver refuses."""

from __future__ import annotations

import ctypes
import os

import pynvml
import pytest

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.gpu.profiles import read_compute_profiles
from jupyterhub_migspawner.model.codes import Code


def device(machine, index: int = 0):
    """A card's handle in the binding, with this machine's library selected."""
    machine.nvml.inventory()
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def test_a_slice_is_cut_where_asked_and_read_back(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    made = machine.nvml.create_instance(machine.cards[0], "2g.10gb", 4)
    assert (made.profile, made.start, made.size, made.gi_id, made.ci_id) == ("2g.10gb", 4, 2, 5, 0)
    assert machine.nvml.inventory().cards[0].instances == (made,)


def test_cutting_what_is_there_already_returns_it(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    first = machine.nvml.create_instance(machine.cards[0], "2g.10gb", 4)
    assert machine.nvml.create_instance(machine.cards[0], "2g.10gb", 4) == first


def test_a_half_made_slice_is_completed(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    gi_id = simulator.orphan_instance(machine.path, machine.cards[0], "3g.20gb", 4)
    made = machine.nvml.create_instance(machine.cards[0], "3g.20gb", 4)
    assert made.gi_id == gi_id
    assert made.uuid is not None


def test_if_the_compute_instance_fails_no_gpu_instance_is_left(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    simulator.fail_call(
        machine.path, "nvmlGpuInstanceCreateComputeInstance", Code.INSUFFICIENT_RESOURCES
    )
    with pytest.raises(GpuError):
        machine.nvml.create_instance(machine.cards[0], "3g.20gb", 4)
    assert machine.layout() == []


@pytest.mark.parametrize(
    ("profile", "start", "code", "words"),
    [
        ("1g.5gb", 4, Code.INSUFFICIENT_RESOURCES, "slots it needs are taken"),
        ("3g.20gb", 0, Code.INSUFFICIENT_RESOURCES, "slots it needs are taken"),
        ("3g.20gb", 2, Code.INVALID_ARGUMENT, "may start at 0, 4"),
        ("1g.6gb", 0, Code.INVALID_ARGUMENT, r"it has 1g\.5gb"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(
    make_machine, profile: str, start: int, code: Code, words: str
) -> None:
    machine = make_machine(layouts=[["3g.20gb", "1g.5gb"]])
    before = machine.layout()
    with pytest.raises(GpuError, match=words) as caught:
        machine.nvml.create_instance(machine.cards[0], profile, start)
    assert caught.value.code == code
    assert "card 0" in str(caught.value).lower()
    assert machine.layout() == before


def test_two_slices_with_the_media_engines_cannot_be(make_machine) -> None:
    machine = make_machine(layouts=[["1g.5gb+me"]])
    with pytest.raises(GpuError) as caught:
        machine.nvml.create_instance(machine.cards[0], "1g.5gb+me", 0)
    assert caught.value.code == Code.INSUFFICIENT_RESOURCES


def test_a_slice_in_use_is_not_destroyed_and_stays_whole(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    simulator.add_process(machine.path, machine.slices[0], os.getpid(), 1)
    before = machine.nvml.inventory()
    with pytest.raises(GpuError, match="End the processes") as caught:
        machine.nvml.destroy_instance(machine.cards[0], 2)
    assert caught.value.code == Code.IN_USE
    assert machine.nvml.inventory() == before


@pytest.mark.parametrize("whole_card", [True, False])
def test_a_slice_that_a_monitor_holds_is_not_destroyed_and_stays_whole(
    make_machine, whole_card: bool
) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    gi_id = None if whole_card else 2
    simulator.add_monitor(machine.path, machine.cards[0], os.getpid(), gi_id)
    before = machine.nvml.inventory()
    with pytest.raises(GpuError) as caught:
        machine.nvml.destroy_instance(machine.cards[0], 2)
    assert caught.value.code == Code.IN_USE
    assert machine.nvml.inventory() == before
    simulator.remove_monitor(machine.path, machine.cards[0], os.getpid())
    machine.nvml.destroy_instance(machine.cards[0], 2)
    assert machine.layout() == []


def test_a_leaked_handle_holds_its_slice_until_a_reboot(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    simulator.leak_instance(machine.path, machine.cards[0], 2)
    with pytest.raises(GpuError) as caught:
        machine.nvml.destroy_instance(machine.cards[0], 2)
    assert caught.value.code == Code.IN_USE
    simulator.reboot(machine.path)
    machine.nvml.create_instance(machine.cards[0], "3g.20gb", 4)
    machine.nvml.destroy_instance(machine.cards[0], 2)
    assert machine.layout() == []


def test_destroying_what_is_gone_is_done_already(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    machine.nvml.destroy_instance(machine.cards[0], 2)
    machine.nvml.destroy_instance(machine.cards[0], 2)
    assert machine.layout() == []


def test_cutting_with_mig_off_says_how_to_turn_it_on(make_machine) -> None:
    machine = make_machine()
    with pytest.raises(GpuError, match="Check that MIG is on") as caught:
        machine.nvml.create_instance(machine.cards[0], "1g.5gb", 0)
    assert caught.value.code == Code.NOT_SUPPORTED


def test_an_unknown_card_is_named(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    with pytest.raises(GpuError, match="Card GPU-0000") as caught:
        machine.nvml.destroy_instance("GPU-00000000-0000-0000-0000-000000000000", 1)
    assert caught.value.code == Code.NOT_FOUND


def test_who_has_no_privilege_cuts_nothing_and_is_told_what_he_lacks(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    before = machine.path.read_text()
    simulator.set_switches(machine.path, privileged="nobody")
    for attempt in (
        lambda nvml: nvml.create_instance(machine.cards[0], "1g.5gb", 0),
        lambda nvml: nvml.destroy_instance(machine.cards[0], 2),
        lambda nvml: nvml.set_mig_mode(machine.cards[0], False),
    ):
        with pytest.raises(GpuError, match="Run it as root") as caught:
            attempt(machine.nvml)
        assert caught.value.code == Code.NO_PERMISSION
    simulator.set_switches(machine.path, privileged="everyone")
    machine.nvml.close()
    assert machine.path.read_text() == before


def test_the_drivers_own_placement_corners_itself_where_explicit_ones_fit(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    card = device(machine)
    for profile_id in (19, 19, 14):
        pynvml.nvmlDeviceCreateGpuInstance(card, profile_id)
    with pytest.raises(pynvml.NVMLError_InsufficientResources):
        pynvml.nvmlDeviceCreateGpuInstance(card, 9)
    assert machine.layout() == [("2g.10gb", 0), ("1g.5gb", 4), ("1g.5gb", 6)]

    other = make_machine(layouts=[[]])
    card = device(other)
    for profile_id in (9, 19, 14, 19):
        pynvml.nvmlDeviceCreateGpuInstance(card, profile_id)
    assert len(other.layout()) == 4


@pytest.mark.parametrize(
    ("swapped", "ids"),
    [
        (False, {("7g.40gb", 0): 0, ("3g.20gb", 0): 1, ("3g.20gb", 4): 2, ("2g.10gb", 0): 3,
                 ("2g.10gb", 2): 4, ("2g.10gb", 4): 5, ("1g.10gb", 6): 6, ("1g.5gb", 0): 7,
                 ("1g.5gb", 3): 10, ("1g.5gb", 6): 13}),
        (True, {("7g.40gb", 0): 0, ("3g.20gb", 0): 2, ("3g.20gb", 4): 1, ("2g.10gb", 0): 5,
                ("2g.10gb", 2): 6, ("2g.10gb", 4): 3, ("1g.10gb", 6): 4, ("1g.5gb", 0): 11,
                ("1g.5gb", 3): 14, ("1g.5gb", 6): 9}),
    ],
)  # fmt: skip
def test_the_id_of_an_instance_follows_from_its_place_on_either_kind_of_board(
    make_machine, swapped: bool, ids: dict[tuple[str, int], int]
) -> None:
    machine = make_machine(layouts=[[]], swapped=[0] if swapped else [])
    for (profile, start), gi_id in ids.items():
        assert machine.nvml.create_instance(machine.cards[0], profile, start).gi_id == gi_id
        machine.nvml.destroy_instance(machine.cards[0], gi_id)


def test_ids_on_an_a30(make_machine) -> None:
    machine = make_machine(model="a30", layouts=[[]])
    for profile, start, gi_id in (("4g.24gb", 0, 0), ("2g.12gb", 2, 2), ("1g.6gb", 3, 6)):
        assert machine.nvml.create_instance(machine.cards[0], profile, start).gi_id == gi_id
        machine.nvml.destroy_instance(machine.cards[0], gi_id)


def recut(machine, profile: str = "3g.20gb") -> str | None:
    """UUID of a slice at start 0 that is destroyed again."""
    made = machine.nvml.create_instance(machine.cards[0], profile, 0)
    machine.nvml.destroy_instance(machine.cards[0], made.gi_id)
    return made.uuid


def test_a_slice_made_again_at_its_place_has_its_uuid_again_even_under_another_profile(
    make_machine,
) -> None:
    machine = make_machine(layouts=[[]])
    assert recut(machine) == recut(machine) == recut(machine, "4g.20gb")


def test_where_uuids_are_reshuffled_no_two_creations_share_one(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    simulator.set_switches(machine.path, reshuffle=True)
    assert len({recut(machine) for _ in range(12)}) == 12


def test_cards_of_one_seed_have_the_same_uuids_and_others_have_others(make_machine) -> None:
    same = {make_machine(seed="one").cards, make_machine(seed="one").cards}
    assert len(same) == 1
    assert same != {make_machine(seed="two").cards}
    assert make_machine(seed=None).cards != make_machine(seed=None).cards


def test_handles_have_holes_and_stale_ones_come_to_mean_another_slice(make_machine) -> None:
    machine = make_machine(layouts=[["1g.5gb"] * 7])
    card = device(machine)
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(card) == 7
    stale = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, 2)
    first = pynvml.nvmlDeviceGetUUID(stale)
    machine.nvml.destroy_instance(machine.cards[0], pynvml.nvmlDeviceGetGpuInstanceId(stale))
    with pytest.raises(pynvml.NVMLError_NotFound):
        pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, 2)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceGetUUID(stale)
    machine.nvml.destroy_instance(machine.cards[0], 10)
    taking_its_handle = machine.nvml.create_instance(machine.cards[0], "2g.10gb", 2)
    assert pynvml.nvmlDeviceGetUUID(stale) == taking_its_handle.uuid != first
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, 7)


def test_a_structure_of_another_version_is_refused(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    card = device(machine)
    info = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t()
    info.version = 0x03000098
    function = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetGpuInstanceProfileInfoV")
    assert function(card, 0, ctypes.byref(info)) == Code.ARGUMENT_VERSION_MISMATCH
    assert pynvml.nvmlDeviceGetMemoryInfo(card, version=pynvml.nvmlMemory_v2).total == 40960 << 20


def test_use_of_slices_is_not_told_by_the_driver(make_machine) -> None:
    machine = make_machine(cards=2, layouts=[["3g.20gb"]])
    card = device(machine)
    part = pynvml.nvmlDeviceGetHandleByUUID(machine.slices[0])
    for handle in (card, part):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetUtilizationRates(handle)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetPowerUsage(part)
    assert pynvml.nvmlDeviceGetUtilizationRates(pynvml.nvmlDeviceGetHandleByIndex(1)).gpu == 0


def test_the_old_form_of_a_slices_name_leads_to_it(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    machine.nvml.inventory()
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{machine.cards[0]}/2/0")
    assert pynvml.nvmlDeviceGetUUID(handle) == machine.slices[0]


def test_remaining_capacity_takes_what_is_there_into_account(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb", "1g.5gb"]])
    assert machine.layout() == [("1g.5gb", 3), ("3g.20gb", 4)]
    card = device(machine)
    left = {
        profile_id: pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity(card, profile_id)
        for profile_id in (19, 20, 15, 14, 9, 5, 0)
    }
    assert left == {19: 3, 20: 1, 15: 1, 14: 1, 9: 0, 5: 0, 0: 0}


def test_profiles_are_asked_by_slot_and_created_by_id(make_machine) -> None:
    machine = make_machine(layouts=[[]])
    card = device(machine)
    assert pynvml.nvmlDeviceGetGpuInstanceProfileInfo(card, 0).id == 19
    assert pynvml.nvmlDeviceGetGpuInstanceProfileInfo(card, 0, version=1).multiprocessorCount == 14
    by_id = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetGpuInstanceProfileInfoByIdV")
    info = pynvml.c_nvmlGpuInstanceProfileInfo_v2_t()
    assert by_id(card, 9, ctypes.byref(info)) == Code.SUCCESS
    assert info.name == "3g.20gb"
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetGpuInstanceProfileInfo(card, 5)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        pynvml.nvmlDeviceGetGpuInstanceProfileInfo(card, 0x12)
    whole = pynvml.nvmlDeviceCreateGpuInstance(card, 0)
    assert pynvml.nvmlGpuInstanceGetInfo(whole).placement.size == 8


def test_two_nvmls_over_two_machines_do_not_mix_in_one_process(make_machine) -> None:
    first = make_machine(seed="first", layouts=[["1g.5gb"]])
    second = make_machine(seed="second", model="a30", cards=2)
    for _ in range(2):
        assert first.nvml.inventory().cards[0].uuid == first.cards[0]
        assert [each.uuid for each in second.nvml.inventory().cards] == list(second.cards)


def test_closing_lets_the_driver_go_and_the_next_call_takes_it_again(make_machine) -> None:
    machine = make_machine()
    machine.nvml.inventory()
    assert str(os.getpid()) in machine.path.read_text()
    machine.nvml.close()
    assert str(os.getpid()) not in machine.path.read_text()
    assert len(Nvml(machine.nvml.spec).inventory().cards) == 1


def test_what_an_instance_offers_is_not_learned_from_one_that_has_gone(make_machine) -> None:
    machine = make_machine(layouts=[["3g.20gb"]])
    gone = pynvml.nvmlDeviceGetGpuInstanceById(device(machine), 2)
    assert [each.id for each in read_compute_profiles(gone)] == [0, 1, 2]
    machine.nvml.destroy_instance(machine.cards[0], 2)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        read_compute_profiles(gone)
