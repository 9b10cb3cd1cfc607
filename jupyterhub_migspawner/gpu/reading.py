"""Cards as plain values, read through NVIDIA's Python binding.

Every function here runs while the library is open and its lock held. Errors of the binding pass
through, except where a card's reader turns them into the card's ``problem``.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import pynvml

from jupyterhub_migspawner.gpu.binding import plain_text
from jupyterhub_migspawner.gpu.codes import gpu_error
from jupyterhub_migspawner.gpu.profiles import ComputeProfile, read_compute_profiles, read_profiles
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import (
    Card,
    GpuProcess,
    Instance,
    Profile,
)

_MIB = 1024 * 1024
FIELD_RECOVERY_ACTION = 230
"""``NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`` of nvml.h; bindings before 12.570 lack the name."""

MOST_PROCESSES = 4096
"""Processes on one slice or card that are told apart; there are hardly more than a few dozen."""

_UNREPORTED = (Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND, Code.INVALID_ARGUMENT)
_VANISHED = (Code.NOT_FOUND, Code.INVALID_ARGUMENT)


class CardReader:
    """A reader of cards.

    It remembers what a card once told that cannot change while the driver runs.
    """

    def __init__(self) -> None:
        self._profiles: dict[str, tuple[Profile, ...]] = {}
        self._compute: dict[tuple[str, int], tuple[ComputeProfile, ...]] = {}
        self._seen: dict[int, Card] = {}

    def read(self, index: int) -> Card:
        """Read the card of that NVML index; a card that fails is returned with its ``problem``."""
        try:
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            card = self._identify(device, index)
        except pynvml.NVMLError as error:
            _unless_restarted(error)
            last = self._seen.get(index)
            card = last or Card(index, "", "unknown", -1, 0, False, False, False)
            return replace(card, instances=(), **_problem(card, error))
        self._seen[index] = card
        try:
            card = self._describe(device, card)
            self._seen[index] = card
            return self._with_instances(device, card)
        except pynvml.NVMLError as error:
            _unless_restarted(error)
            return replace(card, **_problem(card, error))

    def subject(self, card_uuid: str) -> str:
        """Return the card in words, with its index if it was ever read; needs no library."""
        found = next((each for each in list(self._seen.values()) if each.uuid == card_uuid), None)
        return f"card {card_uuid[:60]}" if found is None else _subject(found)

    def profiles(self, device: Any, card_uuid: str) -> tuple[Profile, ...]:
        """Return the MIG profiles of a card; none where the driver tells none while MIG is off."""
        known = self._profiles.get(card_uuid)
        if known is None:
            known = read_profiles(device)
            if known:
                self._profiles[card_uuid] = known
        return known

    def compute_profiles(
        self, gpu_instance: Any, card_uuid: str, profile_id: int
    ) -> tuple[ComputeProfile, ...]:
        """Return the compute instance profiles inside instances of one GPU instance profile."""
        key = (card_uuid, profile_id)
        if key not in self._compute:
            self._compute[key] = read_compute_profiles(gpu_instance)
        return self._compute[key]

    def instance(self, gpu_instance: Any, card_uuid: str, profile: Profile) -> Instance:
        """Return one GPU instance with its full compute instance and everybody who runs on it."""
        info = pynvml.nvmlGpuInstanceGetInfo(gpu_instance)
        ci_id: int | None = None
        uuid: str | None = None
        processes: dict[int, GpuProcess] = {}
        for part in self.compute_profiles(gpu_instance, card_uuid, profile.id):
            for compute in read_compute_instances(gpu_instance, part):
                found = pynvml.nvmlComputeInstanceGetInfo(compute)
                if part.slices == profile.compute_slices:
                    ci_id = int(found.id)
                    uuid = plain_text(pynvml.nvmlDeviceGetUUID(found.device))
                processes.update({each.pid: each for each in read_processes(found.device)})
        return Instance(
            gi_id=int(info.id),
            ci_id=ci_id,
            profile=profile.name,
            profile_id=profile.id,
            start=int(info.placement.start),
            size=int(info.placement.size),
            compute_slices=profile.compute_slices,
            memory_mib=profile.memory_mib,
            uuid=uuid,
            processes=tuple(processes[pid] for pid in sorted(processes)),
            whole=profile.whole,
        )

    def _identify(self, device: Any, index: int) -> Card:
        last = self._seen.get(index)
        pci = pynvml.nvmlDeviceGetPciInfo(device)
        uuid = plain_text(pynvml.nvmlDeviceGetUUID(device))
        known = last if last is not None and last.uuid == uuid else None
        return Card(
            index=index,
            uuid=uuid,
            model=plain_text(pynvml.nvmlDeviceGetName(device)),
            minor=int(pynvml.nvmlDeviceGetMinorNumber(device)),
            memory_mib=known.memory_mib if known else 0,
            mig_capable=known.mig_capable if known else False,
            mig_enabled=known.mig_enabled if known else False,
            mig_pending=known.mig_pending if known else False,
            profiles=known.profiles if known else (),
            pci_device_id=int(pci.pciDeviceId),
            pci_subsystem_id=int(pci.pciSubSystemId),
        )

    def _describe(self, device: Any, card: Card) -> Card:
        card = replace(card, recovery_action=read_recovery_action(device))
        try:
            current, pending = pynvml.nvmlDeviceGetMigMode(device)
        except pynvml.NVMLError as error:
            if error.value != Code.NOT_SUPPORTED:
                raise
            return replace(card, memory_mib=_memory(device) or 0)
        profiles = self.profiles(device, card.uuid)
        memory = _memory(device)
        if memory is None:
            memory = card.memory_mib or max((each.memory_mib for each in profiles), default=0)
        return replace(
            card,
            memory_mib=memory,
            mig_capable=True,
            mig_enabled=bool(current),
            mig_pending=bool(pending),
            profiles=profiles,
        )

    def _with_instances(self, device: Any, card: Card) -> Card:
        if not card.mig_enabled:
            return card
        try:
            return replace(card, instances=self._instances(device, card))
        except pynvml.NVMLError as error:
            # Another process cut the card while it was read; a second look sees the outcome.
            if error.value not in _VANISHED:
                raise
            return replace(card, instances=self._instances(device, card))

    def _instances(self, device: Any, card: Card) -> tuple[Instance, ...]:
        found = [
            self.instance(handle, card.uuid, profile)
            for profile in card.profiles
            for handle in read_gpu_instances(device, profile)
        ]
        return tuple(sorted(found, key=lambda each: (each.start, each.gi_id)))


def read_gpu_instances(device: Any, profile: Profile) -> list[Any]:
    """Return handles of the card's GPU instances of one profile."""
    array = (pynvml.c_nvmlGpuInstance_t * max(1, profile.max_instances))()
    count = ctypes.c_uint(0)
    pynvml.nvmlDeviceGetGpuInstances(device, profile.id, array, ctypes.byref(count))
    return [array[index] for index in range(count.value)]


def read_compute_instances(gpu_instance: Any, profile: ComputeProfile) -> list[Any]:
    """Return handles of the GPU instance's compute instances of one profile."""
    array = (pynvml.c_nvmlComputeInstance_t * max(1, profile.max_instances))()
    count = ctypes.c_uint(0)
    pynvml.nvmlGpuInstanceGetComputeInstances(gpu_instance, profile.id, array, ctypes.byref(count))
    return [array[index] for index in range(count.value)]


def read_processes(device: Any) -> tuple[GpuProcess, ...]:
    """Return everybody on a slice or card: compute, graphics and MPS processes, by rising pid.

    The list of compute processes must answer, or the error passes on; the other two lists do not
    exist on every card and driver.
    """
    listed = list(pynvml.nvmlDeviceGetComputeRunningProcesses_v3(device))
    for also in (
        pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3,
        pynvml.nvmlDeviceGetMPSComputeRunningProcesses_v3,
    ):
        try:
            listed += also(device)
        except pynvml.NVMLError as error:
            if error.value not in (Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND):
                raise
    found: dict[int, GpuProcess] = {}
    # One too many tells that there are more.
    for each in listed[: MOST_PROCESSES + 1]:
        used = None if each.usedGpuMemory is None else int(each.usedGpuMemory) // _MIB
        found[int(each.pid)] = GpuProcess(int(each.pid), used)
    return tuple(found[pid] for pid in sorted(found))


def _memory(device: Any) -> int | None:
    """Return the card's memory in MiB; None where the driver does not say.

    With MIG on it answers only privileged callers, and never where the GPU has no memory of its own
    (GB10, Thor).
    """
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(device).total) // _MIB
    except pynvml.NVMLError as error:
        if error.value not in (Code.NO_PERMISSION, Code.NOT_SUPPORTED):
            raise
        return None


def read_recovery_action(device: Any) -> int | None:
    """Return what the driver wants done with the card (``nvmlDeviceGpuRecoveryAction_t``).

    None where the driver does not report it, which those before R560 do not.
    """
    try:
        (value,) = pynvml.nvmlDeviceGetFieldValues(device, [FIELD_RECOVERY_ACTION])
    except pynvml.NVMLError as error:
        if error.value not in _UNREPORTED:
            raise
        return None
    return int(value.value.uiVal) if value.nvmlReturn == Code.SUCCESS else None


def _subject(card: Card) -> str:
    return f"card {card.index} ({card.uuid})" if card.uuid else f"card {card.index}"


def _problem(card: Card, error: Any) -> dict[str, Any]:
    return {
        "problem": str(gpu_error(error.value, _subject(card), "be read")),
        "code": int(error.value),
    }


def _unless_restarted(error: Any) -> None:
    """Raise the error again if the driver has forgotten the session: that is no card's problem.

    All must be read again then.
    """
    if error.value == Code.UNINITIALIZED:
        raise error
