"""Reading the MIG profiles of a card, and the compute profiles inside its instances.

Every function here runs while the library is open and its lock held. Errors of the binding pass
through.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

import pynvml

from jupyterhub_migspawner.gpu.binding import plain_text
from jupyterhub_migspawner.gpu.cards import whole_profiles
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import Engines, Placement, Profile

_SHARED_ENGINES = 0  # NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED, the only one there is
_SKIPPED = (Code.NOT_SUPPORTED, Code.INVALID_ARGUMENT)
_MOST_SLOTS = 64  # profile numbers asked for; drivers of 2026 have 18


@dataclass(frozen=True)
class ComputeProfile:
    """A compute instance profile inside one GPU instance, as the driver describes it."""

    id: int
    slices: int
    multiprocessors: int
    max_instances: int


def read_profiles(device: Any) -> tuple[Profile, ...]:
    """Return the MIG profiles of a card with all their placements, largest last.

    The driver says where its numbers end, not the binding, which may be older than the driver.
    """
    found: list[Profile] = []
    for slot in range(_MOST_SLOTS):
        try:
            info = _profile_info(device, slot)
        except pynvml.NVMLError as error:
            if error.value == Code.INVALID_ARGUMENT:
                break
            if error.value == Code.NOT_SUPPORTED:
                continue
            raise
        try:
            placements = _placements(device, int(info.id))
        except pynvml.NVMLError as error:
            if error.value in _SKIPPED:
                continue
            raise
        name = _profile_name(info)
        found.append(
            Profile(
                name=name,
                id=int(info.id),
                compute_slices=int(info.sliceCount),
                memory_mib=int(info.memorySizeMB),
                multiprocessors=int(info.multiprocessorCount),
                max_instances=int(info.instanceCount),
                placements=placements,
                engines=Engines(
                    decoders=int(info.decoderCount),
                    encoders=int(info.encoderCount),
                    jpeg=int(info.jpegCount),
                    optical_flow=int(info.ofaCount),
                ),
            )
        )
    found.sort(
        key=lambda each: (each.compute_slices, each.memory_mib, bool(each.attributes), each.name)
    )
    whole = whole_profiles(tuple(found))
    return tuple(replace(each, whole=each.id in whole) for each in found)


def profiles_beyond_binding(device: Any) -> int:
    """Return how many profile numbers the driver has that this nvidia-ml-py does not know.

    By nvml.h a number at or above the driver's own count is an invalid argument.
    """
    known = int(pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT)
    for slot in range(known, _MOST_SLOTS):
        try:
            _profile_info(device, slot)
        except pynvml.NVMLError as error:
            if error.value != Code.NOT_SUPPORTED:
                return slot - known
    return _MOST_SLOTS - known


def read_compute_profiles(gpu_instance: Any) -> tuple[ComputeProfile, ...]:
    """Return the compute instance profiles of a GPU instance."""
    found = []
    beyond = False
    for slot in range(_MOST_SLOTS):
        try:
            info = _compute_info(gpu_instance, slot)
        except pynvml.NVMLError as error:
            if error.value not in _SKIPPED:
                raise
            beyond = error.value == Code.INVALID_ARGUMENT
            if beyond:
                break
            continue
        found.append(
            ComputeProfile(
                id=int(info.id),
                slices=int(info.sliceCount),
                multiprocessors=int(info.multiprocessorCount),
                max_instances=int(info.instanceCount),
            )
        )
    if beyond:
        # Either the driver's numbers end here, or the instance was destroyed meanwhile: then this
        # raises, and no half list is remembered.
        pynvml.nvmlGpuInstanceGetInfo(gpu_instance)
    return tuple(found)


def _profile_info(device: Any, slot: int) -> Any:
    try:
        return pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device, slot)
    except pynvml.NVMLError as error:
        if error.value != Code.FUNCTION_NOT_FOUND:
            raise
        # Drivers before R470 have only the first form of the call, which tells no name.
        return pynvml.nvmlDeviceGetGpuInstanceProfileInfo(device, slot, version=1)


def _compute_info(gpu_instance: Any, slot: int) -> Any:
    try:
        return pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
            gpu_instance, slot, _SHARED_ENGINES
        )
    except pynvml.NVMLError as error:
        if error.value != Code.FUNCTION_NOT_FOUND:
            raise
        return pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(
            gpu_instance, slot, _SHARED_ENGINES, version=1
        )


def _profile_name(info: Any) -> str:
    """Return the driver's name without the prefix some drivers give it, or one made by its rule.

    Where the driver tells none: compute slices and whole gigabytes, as nvidia-smi prints them.
    """
    name = plain_text(getattr(info, "name", ""))
    if name:
        return name.removeprefix("MIG ").strip()
    gigabytes = -(-int(info.memorySizeMB) // 1024)
    return f"{int(info.sliceCount)}g.{gigabytes}gb" + ("+me" if int(info.jpegCount) else "")


def _placements(device: Any, profile_id: int) -> tuple[Placement, ...]:
    count = ctypes.c_uint(0)
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile_id, None, ctypes.byref(count))
    array = (pynvml.c_nvmlGpuInstancePlacement_t * max(1, count.value))()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(
        device, profile_id, array, ctypes.byref(count)
    )
    return tuple(
        sorted(Placement(int(each.start), int(each.size)) for each in array[: count.value])
    )
