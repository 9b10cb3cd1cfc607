"""How much slices are used, by the unmodified binding over simulated cards."""

from __future__ import annotations

import os
from pathlib import Path

import pynvml
import pytest

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.utilisation import UNMEASURED
from jupyterhub_migspawner.model.codes import Code


@pytest.fixture
def hopper(make_machine):
    return make_machine(model="H100", layouts=[["3g.40gb", "1g.10gb"]])


def use(path: Path, uuid: str, per_cent: float) -> None:
    simulator.add_process(path, uuid, os.getpid(), 100, used=per_cent)


def test_a_slice_of_a_hopper_card_is_measured_between_two_calls(hopper) -> None:
    large, small = hopper.slices
    assert hopper.nvml.utilisation(large) is None, "nothing to compare with yet"
    assert hopper.nvml.utilisation(large) == 0.0
    use(hopper.path, large, 60)
    assert hopper.nvml.utilisation(large) == 30.0, "it was idle and is at work"
    assert hopper.nvml.utilisation(large) == 60.0
    assert hopper.nvml.utilisation(small) is None
    assert hopper.nvml.utilisation(small) == 0.0, "a neighbour's use is none of this slice"


def test_nothing_is_kept_but_the_last_sample_of_each_slice(hopper) -> None:
    for _ in range(5):
        for uuid in hopper.slices:
            hopper.nvml.utilisation(uuid)
    assert len(pynvml.nvmlLib.session.samples) == len(hopper.slices)
    library = pynvml.nvmlLib
    hopper.nvml.close()
    assert library.session.samples == {}
    assert hopper.nvml.utilisation(hopper.slices[0]) is None, "a new session begins again"


def test_a_restart_of_the_driver_begins_anew(hopper) -> None:
    (uuid, _), (card,) = hopper.slices, hopper.cards
    hopper.nvml.utilisation(uuid)
    simulator.reboot(hopper.path)
    hopper.nvml.set_mig_mode(card, True)
    hopper.nvml.create_instance(card, "3g.40gb", 4)
    (uuid,) = hopper.slices
    assert hopper.nvml.utilisation(uuid) is None
    assert hopper.nvml.utilisation(uuid) == 0.0


@pytest.mark.parametrize("model", ["A100", "A30"])
def test_slices_of_ampere_cards_are_measured_by_nobody(make_machine, model: str) -> None:
    profile = {"A100": "1g.5gb", "A30": "1g.6gb"}[model]
    machine = make_machine(model=model, layouts=[[profile]])
    with pytest.raises(GpuError) as caught:
        machine.nvml.utilisation(machine.slices[0])
    assert caught.value.code in UNMEASURED


@pytest.mark.parametrize("model", ["A100", "H100", "T4"])
def test_a_card_with_mig_off_has_its_rate(make_machine, model: str) -> None:
    machine = make_machine(model=model)
    (card,) = machine.cards
    assert machine.nvml.utilisation(card) == 0.0
    use(machine.path, card, 35)
    assert machine.nvml.utilisation(card) == 35.0


@pytest.mark.parametrize(
    ("symbol", "code", "unmeasured"),
    [
        ("nvmlGpmQueryDeviceSupport", Code.FUNCTION_NOT_FOUND, True),
        ("nvmlGpmMigSampleGet", Code.NO_PERMISSION, True),
        ("nvmlGpmMigSampleGet", Code.UNKNOWN, False),
        ("nvmlGpmMetricsGet", Code.UNKNOWN, False),
        ("nvmlGpmSampleAlloc", Code.MEMORY, False),
    ],
)
def test_what_fails_is_told_from_what_cannot_be_measured(
    hopper, symbol: str, code: Code, unmeasured: bool
) -> None:
    uuid = hopper.slices[0]
    hopper.nvml.utilisation(uuid)
    simulator.fail_call(hopper.path, symbol, code)
    with pytest.raises(GpuError) as caught:
        hopper.nvml.utilisation(uuid)
    assert (caught.value.code in UNMEASURED) == unmeasured
    assert hopper.nvml.utilisation(uuid) in (None, 0.0), "one failure ends nothing"
    assert hopper.nvml.utilisation(uuid) == 0.0
    assert len(pynvml.nvmlLib.session.samples) == 1, "nothing leaks"


def test_no_figure_is_no_figure(hopper, monkeypatch: pytest.MonkeyPatch) -> None:
    uuid = hopper.slices[0]
    hopper.nvml.utilisation(uuid)

    def no_number(metrics: pynvml.c_nvmlGpmMetricsGet_t) -> None:
        metrics.metrics[0].nvmlReturn, metrics.metrics[0].value = 0, float("nan")

    monkeypatch.setattr(pynvml, "nvmlGpmMetricsGet", no_number)
    with pytest.raises(GpuError, match="no figure"):
        hopper.nvml.utilisation(uuid)


def test_a_slice_that_is_gone_is_not_found(hopper) -> None:
    with pytest.raises(GpuError) as caught:
        hopper.nvml.utilisation("MIG-00000000-0000-0000-0000-000000000000")
    assert caught.value.code == Code.NOT_FOUND
