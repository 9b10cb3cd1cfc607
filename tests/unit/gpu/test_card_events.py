"""XID errors and lost cards reach who listens; slow calls are slow and change nothing else."""

from __future__ import annotations

import pytest

from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.inventory import GpuEvent


def test_an_xid_is_told_once_with_the_card_and_the_instance_it_hit(make_machine) -> None:
    machine = make_machine(cards=2, layouts=[["3g.20gb"], ["3g.20gb"]])
    simulator.report_xid(machine.path, machine.cards[0], 13)  # before anybody listened
    assert machine.nvml.events() == ()
    simulator.report_xid(machine.path, machine.cards[1], 43, 2, 0)
    simulator.report_xid(machine.path, machine.cards[0], 63)
    assert machine.nvml.events() == (
        GpuEvent(machine.cards[1], "xid", 43, 2, 0),
        GpuEvent(machine.cards[0], "xid", 63),
    )
    assert machine.nvml.events() == ()


def test_a_card_that_falls_off_the_bus_is_told_under_its_name(make_machine) -> None:
    machine = make_machine(cards=2)
    assert machine.nvml.events() == ()
    simulator.lose_card(machine.path, machine.cards[1])
    assert machine.nvml.events() == (GpuEvent(machine.cards[1], "xid", 79),)
    assert machine.nvml.events() == ()


def test_each_listener_is_told_for_itself(make_machine) -> None:
    machine = make_machine()
    other = Nvml(machine.nvml.spec)
    assert machine.nvml.events() == other.events() == ()
    simulator.report_xid(machine.path, machine.cards[0], 94, 1)
    expected = (GpuEvent(machine.cards[0], "xid", 94, 1),)
    assert machine.nvml.events() == expected
    assert other.events() == expected
    other.close()


def test_listening_goes_on_after_a_reboot_or_a_closing(make_machine) -> None:
    machine = make_machine()
    machine.nvml.events()
    simulator.reboot(machine.path)
    assert machine.nvml.events() == ()
    simulator.report_xid(machine.path, machine.cards[0], 31)
    assert [each.xid for each in machine.nvml.events()] == [31]
    machine.nvml.close()
    assert machine.nvml.events() == ()
    simulator.report_xid(machine.path, machine.cards[0], 13)
    assert [each.xid for each in machine.nvml.events()] == [13]


def test_one_lost_card_does_not_keep_the_others_from_being_watched(make_machine) -> None:
    machine = make_machine(cards=2)
    simulator.lose_card(machine.path, machine.cards[0])
    assert machine.nvml.events() == ()
    simulator.report_xid(machine.path, machine.cards[1], 48)
    assert [each.xid for each in machine.nvml.events()] == [48]


def test_calls_can_be_made_slow_one_by_one(make_machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = make_machine(layouts=[["1g.5gb"]])
    simulator.set_switches(
        machine.path, latency={"nvmlDeviceGetHandleByUUID": 10.0, "nvmlGpuInstanceDestroy": 1.0}
    )
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    machine.nvml.destroy_instance(machine.cards[0], 13)
    assert slept == [10.0, 1.0]
    simulator.set_switches(machine.path, latency={"*": 0.5})
    assert machine.layout() == []
    assert set(slept[2:]) == {0.5}
