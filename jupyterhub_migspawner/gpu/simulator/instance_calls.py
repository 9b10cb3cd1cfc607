"""NVML calls that describe profiles, and make and destroy GPU and compute instances."""

from __future__ import annotations

# Each function is documented in NVML's API reference under its own name.
# ruff: noqa: D103
from dataclasses import astuple
from typing import Any

from jupyterhub_migspawner.gpu.simulator.cutting import (
    Fault,
    capacity,
    create_compute,
    create_instance,
    destroy_compute,
    destroy_instance,
    model_of,
    profile_of,
)
from jupyterhub_migspawner.gpu.simulator.exports import symbol
from jupyterhub_migspawner.gpu.simulator.handles import (
    card_handle,
    compute_handle,
    instance_handle,
    mig_handle,
    resolve_card,
    resolve_compute,
    resolve_instance,
)
from jupyterhub_migspawner.gpu.simulator.memory import (
    address,
    check_version,
    fill,
    number,
    pointed,
    write_handle,
    write_handle_field,
    write_handles,
    write_number,
)
from jupyterhub_migspawner.gpu.simulator.models import CiProfile, GiProfile
from jupyterhub_migspawner.gpu.simulator.schema import CardState, InstanceState, State
from jupyterhub_migspawner.gpu.simulator.session import Session, require_privilege
from jupyterhub_migspawner.model.codes import Code

_GPU_PROFILE_COUNT = 0x12
_COMPUTE_PROFILE_COUNT = 0x9


@symbol
def nvmlDeviceGetGpuInstanceProfileInfo(
    session: Session, device: object, slot: object, info: object
) -> None:
    _describe(pointed(info), _profile_by_slot(session, device, slot))


@symbol
def nvmlDeviceGetGpuInstanceProfileInfoV(
    session: Session, device: object, slot: object, info: object
) -> None:
    check_version(pointed(info))
    profile = _profile_by_slot(session, device, slot)
    _describe(pointed(info), profile)
    _describe_name(session, pointed(info), profile)


@symbol
def nvmlDeviceGetGpuInstanceProfileInfoByIdV(
    session: Session, device: object, profile_id: object, info: object
) -> None:
    check_version(pointed(info))
    profile = profile_of(_queryable(session, device), number(profile_id))
    _describe(pointed(info), profile)
    _describe_name(session, pointed(info), profile)


@symbol
def nvmlDeviceGetGpuInstanceRemainingCapacity(
    session: Session, device: object, profile_id: object, count: object
) -> None:
    card = _cut_card(session.state(), device)
    write_number(count, capacity(card, profile_of(card, number(profile_id))))


@symbol
def nvmlDeviceGetGpuInstancePossiblePlacements_v2(
    session: Session, device: object, profile_id: object, placements: object, count: object
) -> None:
    profile = profile_of(_queryable(session, device), number(profile_id))
    _write_placements(placements, count, [(each, profile.size) for each in profile.starts])


@symbol
def nvmlDeviceCreateGpuInstance(
    session: Session, device: object, profile_id: object, answer: object
) -> None:
    _create(session, device, profile_id, None, answer)


@symbol
def nvmlDeviceCreateGpuInstanceWithPlacement(
    session: Session, device: object, profile_id: object, placement: object, answer: object
) -> None:
    place = pointed(placement)
    _create(session, device, profile_id, (int(place.start), int(place.size)), answer)


@symbol
def nvmlDeviceGetGpuInstances(
    session: Session, device: object, profile_id: object, answer: object, count: object
) -> None:
    state = session.state()
    card = _cut_card(state, device)
    require_privilege(state)
    wanted = profile_of(card, number(profile_id)).id
    write_handles(
        answer,
        count,
        [
            instance_handle(card, each)
            for each in sorted(card["instances"], key=lambda instance: instance["id"])
            if each["profile_id"] == wanted
        ],
    )


@symbol
def nvmlDeviceGetGpuInstanceById(
    session: Session, device: object, gi_id: object, answer: object
) -> None:
    state = session.state()
    card = _cut_card(state, device)
    require_privilege(state)
    wanted = number(gi_id)
    instance = next((each for each in card["instances"] if each["id"] == wanted), None)
    if instance is None:
        raise Fault(Code.NOT_FOUND)
    write_handle(answer, instance_handle(card, instance))


@symbol
def nvmlGpuInstanceGetInfo(session: Session, instance: object, info: object) -> None:
    card, found = resolve_instance(session.state(), address(instance))
    structure = pointed(info)
    write_handle_field(structure, "device", card_handle(card))
    fill(structure, id=found["id"], profileId=found["profile_id"])
    fill(structure.placement, start=found["start"], size=found["size"])


@symbol
def nvmlGpuInstanceDestroy(session: Session, instance: object) -> None:
    session.state()
    with session.file.change() as state:
        card, found = resolve_instance(state, address(instance))
        require_privilege(state)
        destroy_instance(card, found)


@symbol
def nvmlGpuInstanceGetComputeInstanceProfileInfo(
    session: Session, instance: object, slot: object, engine: object, info: object
) -> None:
    _describe_compute(pointed(info), *_compute_profile(session, instance, slot, engine))


@symbol
def nvmlGpuInstanceGetComputeInstanceProfileInfoV(
    session: Session, instance: object, slot: object, engine: object, info: object
) -> None:
    check_version(pointed(info))
    profile, part = _compute_profile(session, instance, slot, engine)
    _describe_compute(pointed(info), profile, part)
    fill(pointed(info), name=_prefix(session, part.name))


@symbol
def nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
    session: Session, instance: object, profile_id: object, count: object
) -> None:
    card, found = resolve_instance(session.state(), address(instance))
    part = _compute_by_id(card, found, number(profile_id))
    free = profile_of(card, found["profile_id"]).slices
    free -= sum(each["size"] for each in found["computes"])
    write_number(count, free // part.slices)


@symbol
def nvmlGpuInstanceGetComputeInstancePossiblePlacements(
    session: Session, instance: object, profile_id: object, placements: object, count: object
) -> None:
    card, found = resolve_instance(session.state(), address(instance))
    part = _compute_by_id(card, found, number(profile_id))
    last = profile_of(card, found["profile_id"]).slices - part.slices
    _write_placements(placements, count, [(each, part.slices) for each in range(last + 1)])


@symbol
def nvmlGpuInstanceCreateComputeInstance(
    session: Session, instance: object, profile_id: object, answer: object
) -> None:
    _create_compute(session, instance, profile_id, None, answer)


@symbol
def nvmlGpuInstanceCreateComputeInstanceWithPlacement(
    session: Session, instance: object, profile_id: object, placement: object, answer: object
) -> None:
    _create_compute(session, instance, profile_id, int(pointed(placement).start), answer)


@symbol
def nvmlGpuInstanceGetComputeInstances(
    session: Session, instance: object, profile_id: object, answer: object, count: object
) -> None:
    state = session.state()
    card, found = resolve_instance(state, address(instance))
    require_privilege(state)
    wanted = number(profile_id)
    handles = [
        compute_handle(card, found, each)
        for each in found["computes"]
        if each["profile_id"] == wanted
    ]
    write_handles(answer, count, handles)


@symbol
def nvmlGpuInstanceGetComputeInstanceById(
    session: Session, instance: object, ci_id: object, answer: object
) -> None:
    state = session.state()
    card, found = resolve_instance(state, address(instance))
    require_privilege(state)
    wanted = number(ci_id)
    compute = next((each for each in found["computes"] if each["id"] == wanted), None)
    if compute is None:
        raise Fault(Code.NOT_FOUND)
    write_handle(answer, compute_handle(card, found, compute))


@symbol
def nvmlComputeInstanceGetInfo_v2(session: Session, compute: object, info: object) -> None:
    card, instance, found = resolve_compute(session.state(), address(compute))
    structure = pointed(info)
    write_handle_field(structure, "device", mig_handle(session, card, instance["id"], found["id"]))
    write_handle_field(structure, "gpuInstance", instance_handle(card, instance))
    fill(structure, id=found["id"], profileId=found["profile_id"])
    fill(structure.placement, start=found["start"], size=found["size"])


@symbol
def nvmlComputeInstanceDestroy(session: Session, compute: object) -> None:
    session.state()
    with session.file.change() as state:
        _, instance, found = resolve_compute(state, address(compute))
        require_privilege(state)
        destroy_compute(instance, found)


def _cut_card(state: State, device: object) -> CardState:
    """Return the card of a handle, which must have MIG on."""
    card = resolve_card(state, address(device))
    if not card["mig"]:
        raise Fault(Code.NOT_SUPPORTED)
    return card


def _queryable(session: Session, device: object) -> CardState:
    """Return the card of a handle if its profiles may be asked for now."""
    state = session.state()
    card = resolve_card(state, address(device))
    need_mig = state["switches"]["profiles_need_mig"]
    if not model_of(card).mig_capable or (need_mig and not card["mig"]):
        raise Fault(Code.NOT_SUPPORTED)
    return card


def _profile_by_slot(session: Session, device: object, slot: object) -> GiProfile:
    wanted = number(slot)
    if not 0 <= wanted < _GPU_PROFILE_COUNT:
        raise Fault(Code.INVALID_ARGUMENT)
    profile = model_of(_queryable(session, device)).by_slot(wanted)
    if profile is None:
        raise Fault(Code.NOT_SUPPORTED)
    return profile


def _describe(info: Any, profile: GiProfile) -> None:
    copy, (decoder, encoder, jpeg, optical) = profile.copy_engines, astuple(profile.engines)
    fill(
        info,
        id=profile.id,
        isP2pSupported=0,
        sliceCount=profile.slices,
        instanceCount=profile.max_instances,
        multiprocessorCount=profile.multiprocessors,
        copyEngineCount=copy,
        decoderCount=decoder,
        encoderCount=encoder,
        jpegCount=jpeg,
        ofaCount=optical,
        memorySizeMB=profile.memory_mib,
    )


def _describe_name(session: Session, info: Any, profile: GiProfile) -> None:
    fill(info, name=_prefix(session, profile.name))


def _prefix(session: Session, name: str) -> bytes:
    prefixed = session.state()["switches"]["prefixed_names"]
    return (f"MIG {name}" if prefixed else name).encode()


def _create(
    session: Session,
    device: object,
    profile_id: object,
    placement: tuple[int, int] | None,
    answer: object,
) -> None:
    session.state()
    with session.file.change() as state:
        card = _cut_card(state, device)
        require_privilege(state)
        profile = profile_of(card, number(profile_id))
        reshuffle = state["switches"]["reshuffle"]
        made = create_instance(card, profile, placement, reshuffle=reshuffle)
    write_handle(answer, instance_handle(card, made))


def _create_compute(
    session: Session, instance: object, profile_id: object, start: int | None, answer: object
) -> None:
    session.state()
    with session.file.change() as state:
        card, found = resolve_instance(state, address(instance))
        require_privilege(state)
        made = create_compute(card, found, number(profile_id), start)
    write_handle(answer, compute_handle(card, found, made))


def _compute_by_id(card: CardState, instance: InstanceState, profile_id: int) -> CiProfile:
    offered = model_of(card).compute_profiles(profile_of(card, instance["profile_id"]))
    part = next((each for each in offered if each.id == profile_id), None)
    if part is None:
        raise Fault(Code.INVALID_ARGUMENT)
    return part


def _compute_profile(
    session: Session, instance: object, slot: object, engine: object
) -> tuple[GiProfile, CiProfile]:
    if not 0 <= number(slot) < _COMPUTE_PROFILE_COUNT or number(engine) != 0:
        raise Fault(Code.INVALID_ARGUMENT)
    card, found = resolve_instance(session.state(), address(instance))
    profile = profile_of(card, found["profile_id"])
    wanted = number(slot)
    part = next(
        (each for each in model_of(card).compute_profiles(profile) if each.id == wanted), None
    )
    if part is None:
        raise Fault(Code.NOT_SUPPORTED)
    return profile, part


def _describe_compute(info: Any, profile: GiProfile, part: CiProfile) -> None:
    copy, (decoder, encoder, jpeg, optical) = profile.copy_engines, astuple(profile.engines)
    fill(
        info,
        id=part.id,
        sliceCount=part.slices,
        instanceCount=part.max_instances,
        multiprocessorCount=part.multiprocessors,
        sharedCopyEngineCount=copy,
        sharedDecoderCount=decoder,
        sharedEncoderCount=encoder,
        sharedJpegCount=jpeg,
        sharedOfaCount=optical,
    )


def _write_placements(array: object, count: object, places: list[tuple[int, int]]) -> None:
    if array is not None:
        target = pointed(array)
        if len(target) < len(places):
            raise Fault(Code.INSUFFICIENT_SIZE)
        for index, (start, size) in enumerate(places):
            fill(target[index], start=start, size=size)
    write_number(count, len(places))
