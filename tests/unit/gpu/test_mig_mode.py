"""Turning MIG on and off: what an A100 needs for it and an H100 does not, and what reboots do."""

from __future__ import annotations

import os

import pynvml
import pytest

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.codes import Code


@pytest.mark.parametrize("model", ["a100", "a30", "h100"])
def test_an_idle_card_changes_its_mode_and_loses_its_slices(make_machine, model: str) -> None:
    machine = make_machine(model=model)
    uuid = machine.cards[0]
    on = machine.nvml.set_mig_mode(uuid, True)
    assert (on.mig_enabled, on.mig_pending) == (True, True)
    machine.nvml.create_instance(uuid, on.profiles[0].name, 0)
    off = machine.nvml.set_mig_mode(uuid, False)
    assert (off.mig_enabled, off.mig_pending, off.instances) == (False, False, ())
    assert machine.nvml.set_mig_mode(uuid, True).instances == ()


def test_the_mode_a_card_has_is_not_set_again(make_machine) -> None:
    machine = make_machine(layouts=[["7g.40gb"]])
    simulator.fail_call(machine.path, "nvmlDeviceSetMigMode", Code.UNKNOWN)
    assert len(machine.nvml.set_mig_mode(machine.cards[0], True).instances) == 1


@pytest.mark.parametrize(("model", "may"), [("a100", False), ("h100", True)])
def test_a_monitor_keeps_an_a100_from_its_reset_but_not_an_h100(
    make_machine, model: str, may: bool
) -> None:
    machine = make_machine(model=model)
    simulator.add_monitor(machine.path, machine.cards[0], os.getpid())
    if may:
        assert machine.nvml.set_mig_mode(machine.cards[0], True).mig_enabled
        return
    with pytest.raises(GpuError, match="monitors such as dcgm") as caught:
        machine.nvml.set_mig_mode(machine.cards[0], True)
    assert caught.value.code == Code.IN_USE
    card = machine.nvml.card(machine.cards[0])
    assert (card.mig_enabled, card.mig_pending) == (False, False)


@pytest.mark.parametrize("model", ["a100", "h100"])
def test_work_on_a_slice_keeps_every_card_from_changing_its_mode(make_machine, model: str) -> None:
    machine = make_machine(model=model, layouts=[["3g.20gb" if model == "a100" else "3g.40gb"]])
    simulator.add_process(machine.path, machine.slices[0], os.getpid())
    with pytest.raises(GpuError) as caught:
        machine.nvml.set_mig_mode(machine.cards[0], False)
    assert caught.value.code == Code.IN_USE
    assert len(machine.layout()) == 1


def test_another_process_that_has_nvml_open_keeps_an_a100_from_its_reset(
    make_machine, sleeper
) -> None:
    machine = make_machine()
    machine.nvml.inventory()
    other = sleeper()
    me = f'"pid": {os.getpid()}'
    started = simulator.processes.start_time(other.pid)
    text = machine.path.read_text()
    mine = simulator.processes.start_time(os.getpid())
    assert me in text
    text = text.replace(me, f'"pid": {other.pid}').replace(str(mine), str(started))
    machine.path.write_text(text)
    machine.nvml.close()
    with pytest.raises(GpuError) as caught:
        machine.nvml.set_mig_mode(machine.cards[0], True)
    assert caught.value.code == Code.IN_USE
    other.kill()
    other.wait()
    assert machine.nvml.set_mig_mode(machine.cards[0], True).mig_enabled


def test_in_a_virtual_machine_the_change_waits_for_the_reboot(make_machine) -> None:
    machine = make_machine()
    simulator.set_switches(machine.path, passthrough=True)
    with pytest.raises(GpuError, match="Reboot the node") as caught:
        machine.nvml.set_mig_mode(machine.cards[0], True)
    assert caught.value.code == Code.RESET_REQUIRED
    waiting = machine.nvml.card(machine.cards[0])
    assert (waiting.mig_enabled, waiting.mig_pending) == (False, True)
    simulator.reboot(machine.path)
    assert machine.nvml.card(machine.cards[0]).mig_enabled


@pytest.mark.parametrize(("model", "stays"), [("a100", True), ("a30", True), ("h100", False)])
def test_a_reboot_takes_the_slices_and_an_h100s_mode(make_machine, model: str, stays: bool) -> None:
    machine = make_machine(model=model, layouts=[[]])
    name = machine.nvml.inventory().cards[0].profiles[0].name
    machine.nvml.create_instance(machine.cards[0], name, 0)
    simulator.reboot(machine.path)
    card = machine.nvml.card(machine.cards[0])
    assert (card.mig_enabled, card.instances) == (stays, ())


def test_a_card_without_mig_says_so(make_machine) -> None:
    machine = make_machine(model="T4")
    with pytest.raises(GpuError) as caught:
        machine.nvml.set_mig_mode(machine.cards[0], True)
    assert caught.value.code == Code.NOT_SUPPORTED


def test_setting_the_mode_succeeds_while_its_status_says_in_use(make_machine) -> None:
    machine = make_machine()
    machine.nvml.inventory()
    simulator.add_process(machine.path, machine.cards[0], os.getpid(), 12, used=100)
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    assert pynvml.nvmlDeviceGetUtilizationRates(card).gpu == 100
    assert pynvml.nvmlDeviceSetMigMode(card, 1) == Code.IN_USE
    assert pynvml.nvmlDeviceGetMigMode(card) == [0, 1]
