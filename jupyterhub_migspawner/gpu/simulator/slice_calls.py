"""NVML calls on a device handle that may be a card or a slice: name, memory, processes, walking.

What a driver does not answer for slices, or for a card with MIG on, is not answered here either.
"""

from __future__ import annotations

# Each function is documented in NVML's API reference under its own name.
# ruff: noqa: D103
from dataclasses import astuple

from jupyterhub_migspawner.gpu.simulator.cutting import Fault, model_of, profile_of, slice_uuid
from jupyterhub_migspawner.gpu.simulator.exports import symbol
from jupyterhub_migspawner.gpu.simulator.handles import (
    card_handle,
    mig_handle,
    mig_slots,
    resolve_card,
    resolve_device,
)
from jupyterhub_migspawner.gpu.simulator.memory import (
    address,
    check_version,
    fill,
    number,
    pointed,
    read_number,
    write_handle,
    write_number,
    write_text,
)
from jupyterhub_migspawner.gpu.simulator.processes import living, use_of
from jupyterhub_migspawner.gpu.simulator.schema import (
    CardState,
    ComputeState,
    InstanceState,
    ProcessState,
)
from jupyterhub_migspawner.gpu.simulator.session import Session, require_privilege
from jupyterhub_migspawner.model.codes import Code

_MIB = 1024 * 1024
_NO_INSTANCE = 0xFFFFFFFF
_NO_VALUE = 0xFFFFFFFFFFFFFFFF
# What an idle card and each memory slot of an idle slice hold for the driver itself, in MiB.
_IDLE_CARD_MIB = 450
_IDLE_SLOT_MIB = 5


@symbol
def nvmlDeviceGetName(session: Session, device: object, buffer: object, length: object) -> None:
    card, instance, compute = _device(session, device)
    name = model_of(card).name
    if instance is not None and compute is not None:
        profile = profile_of(card, instance["profile_id"])
        parts = model_of(card).compute_profiles(profile)
        name += " MIG " + next(each.name for each in parts if each.id == compute["profile_id"])
    write_text(buffer, length, name)


@symbol
def nvmlDeviceGetUUID(session: Session, device: object, buffer: object, length: object) -> None:
    card, instance, compute = _device(session, device)
    if instance is None or compute is None:
        write_text(buffer, length, card["uuid"])
    else:
        write_text(buffer, length, slice_uuid(card, instance, compute))


@symbol
def nvmlDeviceGetMemoryInfo(session: Session, device: object, memory: object) -> None:
    total, used = _memory(session, device)
    fill(pointed(memory), total=total, free=total - used, used=used)


@symbol
def nvmlDeviceGetMemoryInfo_v2(session: Session, device: object, memory: object) -> None:
    check_version(pointed(memory))
    total, used = _memory(session, device)
    fill(pointed(memory), total=total, reserved=0, free=total - used, used=used)


@symbol
def nvmlDeviceGetUtilizationRates(session: Session, device: object, utilization: object) -> None:
    card, _, _ = _device(session, device)
    if card["mig"]:
        raise Fault(Code.NOT_SUPPORTED)
    used = round(use_of(card["processes"]))
    fill(pointed(utilization), gpu=used, memory=used // 2)


@symbol
def nvmlDeviceGetProcessUtilization(
    session: Session, device: object, _samples: object, count: object, _since: object
) -> None:
    card, _, _ = _device(session, device)
    if card["mig"]:
        raise Fault(Code.NOT_SUPPORTED)
    write_number(count, 0)


@symbol
def nvmlDeviceGetPowerUsage(session: Session, device: object, milliwatts: object) -> None:
    write_number(milliwatts, 55_000 + 1000 * _parent_only(session, device)["index"])


@symbol
def nvmlDeviceGetTemperature(
    session: Session, device: object, _sensor: object, celsius: object
) -> None:
    write_number(celsius, 34 + _parent_only(session, device)["index"])


@symbol
def nvmlDeviceGetAttributes_v2(session: Session, device: object, attributes: object) -> None:
    card, instance, compute = _device(session, device)
    if instance is None or compute is None:
        raise Fault(Code.NOT_SUPPORTED)
    profile = profile_of(card, instance["profile_id"])
    part = next(
        each
        for each in model_of(card).compute_profiles(profile)
        if each.id == compute["profile_id"]
    )
    copy, (decoder, encoder, jpeg, optical) = profile.copy_engines, astuple(profile.engines)
    fill(
        pointed(attributes),
        multiprocessorCount=part.multiprocessors,
        sharedCopyEngineCount=copy,
        sharedDecoderCount=decoder,
        sharedEncoderCount=encoder,
        sharedJpegCount=jpeg,
        sharedOfaCount=optical,
        gpuInstanceSliceCount=profile.slices,
        computeInstanceSliceCount=part.slices,
        memorySizeMB=profile.memory_mib,
    )


@symbol
def nvmlDeviceGetComputeRunningProcesses_v3(
    session: Session, device: object, count: object, processes: object
) -> None:
    found = _processes(session, device)
    room = read_number(count)
    write_number(count, len(found))
    if room < len(found) or (found and processes is None):
        raise Fault(Code.INSUFFICIENT_SIZE)
    for index, (process, instance) in enumerate(found):
        memory = process["memory_mib"]
        fill(
            pointed(processes)[index],
            pid=process["pid"],
            usedGpuMemory=_NO_VALUE if memory is None else memory * _MIB,
            gpuInstanceId=_NO_INSTANCE if instance is None else instance["id"],
            computeInstanceId=_NO_INSTANCE if instance is None else process["ci_id"],
        )


@symbol
def nvmlDeviceGetGraphicsRunningProcesses_v3(
    session: Session, device: object, count: object, _processes: object
) -> None:
    _device(session, device)
    write_number(count, 0)


@symbol
def nvmlDeviceGetMPSComputeRunningProcesses_v3(
    session: Session, device: object, count: object, _processes: object
) -> None:
    _device(session, device)
    write_number(count, 0)


@symbol
def nvmlDeviceIsMigDeviceHandle(session: Session, device: object, answer: object) -> None:
    _, instance, _ = _device(session, device)
    write_number(answer, int(instance is not None))


@symbol
def nvmlDeviceGetGpuInstanceId(session: Session, device: object, answer: object) -> None:
    _, instance, _ = _device(session, device)
    if instance is None:
        raise Fault(Code.NOT_SUPPORTED)
    write_number(answer, instance["id"])


@symbol
def nvmlDeviceGetComputeInstanceId(session: Session, device: object, answer: object) -> None:
    _, _, compute = _device(session, device)
    if compute is None:
        raise Fault(Code.NOT_SUPPORTED)
    write_number(answer, compute["id"])


@symbol
def nvmlDeviceGetMaxMigDeviceCount(session: Session, device: object, count: object) -> None:
    card = resolve_card(session.state(), address(device))
    write_number(count, model_of(card).max_mig_devices if card["mig"] else 0)


@symbol
def nvmlDeviceGetMigDeviceHandleByIndex(
    session: Session, device: object, index: object, answer: object
) -> None:
    card = resolve_card(session.state(), address(device))
    if not card["mig"]:
        raise Fault(Code.NOT_SUPPORTED)
    wanted = number(index)
    if wanted >= model_of(card).max_mig_devices:
        raise Fault(Code.INVALID_ARGUMENT)
    slots = mig_slots(session, card)
    held = slots[wanted] if wanted < len(slots) else None
    if held is None:
        raise Fault(Code.NOT_FOUND)
    write_handle(answer, mig_handle(session, card, *held))


@symbol
def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(
    session: Session, device: object, answer: object
) -> None:
    card, instance, _ = _device(session, device)
    if instance is None:
        raise Fault(Code.INVALID_ARGUMENT)
    write_handle(answer, card_handle(card))


def _device(
    session: Session, device: object
) -> tuple[CardState, InstanceState | None, ComputeState | None]:
    return resolve_device(session, session.state(), address(device))


def _parent_only(session: Session, device: object) -> CardState:
    card, instance, _ = _device(session, device)
    if instance is not None:
        raise Fault(Code.NOT_SUPPORTED)
    return card


def _memory(session: Session, device: object) -> tuple[int, int]:
    """Return total and used bytes; compute instances of one GPU instance share one figure."""
    card, instance, _ = _device(session, device)
    if model_of(card).unified_memory:
        raise Fault(Code.NOT_SUPPORTED)
    if instance is None:
        if card["mig"]:
            require_privilege(session.state())
        total = model_of(card).memory_mib
        idle = _IDLE_CARD_MIB
        users = card["processes"] + [
            each for instance in card["instances"] for each in instance["processes"]
        ]
    else:
        total = profile_of(card, instance["profile_id"]).memory_mib
        idle = _IDLE_SLOT_MIB * instance["size"]
        users = instance["processes"]
    used = idle + sum(each["memory_mib"] or 0 for each in living(users))
    return total * _MIB, min(used, total) * _MIB


def _processes(session: Session, device: object) -> list[tuple[ProcessState, InstanceState | None]]:
    """Return living processes of the slice, or of the card and all its slices, for who may see."""
    card, instance, compute = _device(session, device)
    if instance is not None and compute is not None:
        return [
            (each, instance)
            for each in living(instance["processes"])
            if each["ci_id"] == compute["id"]
        ]
    if card["mig"]:
        require_privilege(session.state())
    found: list[tuple[ProcessState, InstanceState | None]] = [
        (each, None) for each in living(card["processes"])
    ]
    for part in card["instances"]:
        found += [(each, part) for each in living(part["processes"])]
    return found
