"""NVML calls of GPM, which tell how much a GPU instance of a Hopper card was used.

A sample holds how much the instance is used at its moment; between two samples it is the mean.
"""

from __future__ import annotations

from jupyterhub_migspawner.gpu.simulator.cutting import Fault, find_instance, model_of
from jupyterhub_migspawner.gpu.simulator.exports import symbol
from jupyterhub_migspawner.gpu.simulator.handles import resolve_card
from jupyterhub_migspawner.gpu.simulator.memory import address, fill, number, pointed, write_handle
from jupyterhub_migspawner.gpu.simulator.processes import use_of
from jupyterhub_migspawner.gpu.simulator.schema import CardState
from jupyterhub_migspawner.gpu.simulator.session import Sample, Session

# Each function is documented in NVML's API reference under its own name.
# ruff: noqa: D103
from jupyterhub_migspawner.model.codes import Code

_FIRST_HANDLE = 0x6000_0001
_SINCE_HOPPER = (9, 0)
_GRAPHICS_UTIL = 1


@symbol
def nvmlGpmQueryDeviceSupport(session: Session, device: object, support: object) -> None:
    structure = pointed(support)
    if number(structure.version) != 1:
        raise Fault(Code.ARGUMENT_VERSION_MISMATCH)
    fill(structure, isSupportedDevice=int(_has_gpm(resolve_card(session.state(), address(device)))))


@symbol
def nvmlGpmSampleAlloc(session: Session, answer: object) -> None:
    session.state()
    handle = max(session.samples, default=_FIRST_HANDLE - 1) + 1
    session.samples[handle] = None
    write_handle(answer, handle)


@symbol
def nvmlGpmSampleFree(session: Session, sample: object) -> None:
    if session.samples.pop(address(sample), KeyError) is KeyError:
        raise Fault(Code.INVALID_ARGUMENT)


@symbol
def nvmlGpmMigSampleGet(session: Session, device: object, gi_id: object, sample: object) -> None:
    card = resolve_card(session.state(), address(device))
    if not _has_gpm(card):
        raise Fault(Code.NOT_SUPPORTED)
    instance = find_instance(card, number(gi_id))
    if instance is None or address(sample) not in session.samples:
        raise Fault(Code.INVALID_ARGUMENT)
    used = use_of(instance["processes"])
    session.samples[address(sample)] = Sample(card["uuid"], instance["id"], used)


@symbol
def nvmlGpmMetricsGet(session: Session, metrics: object) -> None:
    session.state()
    structure = pointed(metrics)
    if number(structure.version) != 1:
        raise Fault(Code.ARGUMENT_VERSION_MISMATCH)
    first, second = (
        session.samples.get(address(each)) for each in (structure.sample1, structure.sample2)
    )
    if first is None or second is None or (first.card, first.gi_id) != (second.card, second.gi_id):
        raise Fault(Code.INVALID_ARGUMENT)
    for index in range(number(structure.numMetrics)):
        metric = structure.metrics[index]
        if metric.metricId == _GRAPHICS_UTIL:
            metric.nvmlReturn, metric.value = Code.SUCCESS, (first.used + second.used) / 2
        else:
            metric.nvmlReturn = Code.NOT_SUPPORTED


def _has_gpm(card: CardState) -> bool:
    return model_of(card).compute_capability >= _SINCE_HOPPER
