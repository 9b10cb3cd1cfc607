"""The cards of this node: read them and cut them.

Everything above this module works with the values of :mod:`jupyterhub_migspawner.gpu.cards`. The
same code runs on real and on simulated cards; only the library below the Python binding differs.
Every call blocks (up to ten seconds have been seen on busy nodes) and all calls of a process are
serialised, so callers on an event loop use a thread. Handles are never kept between calls: NVML
gives the handle of a destroyed slice to another one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.binding import plain_text
from jupyterhub_migspawner.gpu.boot import boot_id
from jupyterhub_migspawner.gpu.codes import gpu_error
from jupyterhub_migspawner.gpu.events import EventReader
from jupyterhub_migspawner.gpu.library import LOCK, Library
from jupyterhub_migspawner.gpu.profiles import profiles_beyond_binding
from jupyterhub_migspawner.gpu.reading import (
    MOST_PROCESSES,
    CardReader,
    read_compute_instances,
    read_gpu_instances,
    read_processes,
)
from jupyterhub_migspawner.gpu.utilisation import Meter
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import (
    Card,
    GpuEvent,
    GpuProcess,
    Instance,
    Inventory,
    Profile,
)

_T = TypeVar("_T")


class Nvml:
    """NVML of this node, opened when it is first needed; safe to use from any thread.

    ``spec`` is ``sim:FILE`` for simulated cards, ``""`` for the driver's library; None takes the
    environment variable ``MIGSPAWNER_NVML``.
    """

    def __init__(self, spec: str | None = None) -> None:
        self._library = Library(spec)
        self._reader = CardReader()
        self._events = EventReader()
        self._meter = Meter()

    @property
    def spec(self) -> str:
        """What was chosen: ``sim:FILE``, or ``""`` for the driver's library."""
        return self._library.spec

    def inventory(self) -> Inventory:
        """Return all cards as they are now; a card that fails carries its ``problem``.

        Raises :exc:`.GpuError` when there is no usable driver at all.
        """
        return self._run("the NVIDIA driver", "list the cards", self._read_inventory)

    def profiles_beyond_binding(self) -> int:
        """Return how many kinds of MIG profile the driver has that nvidia-ml-py does not know.

        Raises :exc:`.GpuError` when there is no usable driver.
        """

        def count() -> int:
            found = [0]
            for index in range(int(pynvml.nvmlDeviceGetCount())):
                try:
                    device = pynvml.nvmlDeviceGetHandleByIndex(index)
                    found.append(profiles_beyond_binding(device))
                except pynvml.NVMLError:
                    continue  # the reading of the cards reports what is wrong with this one
            return max(found)

        return self._run("the NVIDIA driver", "describe its profiles", count)

    def card(self, card_uuid: str) -> Card:
        """Return one card as it is now, perhaps with a ``problem``.

        Raises :exc:`.GpuError` when there is no such card, or it is lost.
        """

        def read() -> Card:
            device = pynvml.nvmlDeviceGetHandleByUUID(card_uuid)
            return self._reader.read(int(pynvml.nvmlDeviceGetIndex(device)))

        return self._run(self._reader.subject(card_uuid), "be read", read)

    def processes(self, slice_uuid: str) -> tuple[GpuProcess, ...]:
        """Return everybody who runs on the slice (or on the card, given its UUID), by rising pid.

        Raises :exc:`.GpuError` when no such slice exists now (``code`` is ``Code.NOT_FOUND``), or
        NVML will not list its processes, or lists more than :data:`.MOST_PROCESSES`. An error is no
        proof that nobody is there.
        """
        found = self._run(
            f"slice {slice_uuid[:60]}",
            "list its processes",
            lambda: read_processes(pynvml.nvmlDeviceGetHandleByUUID(slice_uuid)),
        )
        if len(found) > MOST_PROCESSES:
            raise GpuError(
                f"NVML lists more than {MOST_PROCESSES} processes on slice {slice_uuid[:60]}; "
                "whose they are is not looked up. End some of them."
            )
        return found

    def utilisation(self, uuid: str) -> float | None:
        """Return the per cent of the time in which the slice's engine worked since the last call.

        None when there is nothing to compare with yet. Of a card with MIG off, given its UUID: of
        the last moments. Raises :exc:`.GpuError`: ``code`` is one of
        :data:`.utilisation.UNMEASURED` where this card or driver does not tell it to this process;
        else no such slice, or NVML fails.
        """
        action = "report its use"
        return self._run(f"slice {uuid[:60]}", action, lambda: self._meter.percent(uuid))

    def create_instance(self, card_uuid: str, profile_name: str, start: int) -> Instance:
        """Cut a slice: a GPU instance at memory slot ``start`` and its one full compute instance.

        What is already there stays: an existing slice of that profile and start is returned as it
        is, and a GPU instance without compute instance gets one. If the compute instance cannot be
        made, a GPU instance made for it is destroyed again.

        Raises :exc:`.GpuError`: no such card or profile, a start the profile does not have, slots
        taken, no privilege, MIG off.
        """
        subject = self._reader.subject(card_uuid)

        def create() -> Instance:
            device = pynvml.nvmlDeviceGetHandleByUUID(card_uuid)
            profile = self._profile(device, card_uuid, profile_name, start)
            gpu_instance = self._find(device, profile, start)
            fresh = gpu_instance is None
            if gpu_instance is None:
                place = pynvml.c_nvmlGpuInstancePlacement_t(start, profile.size)
                gpu_instance = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(
                    device, profile.id, ctypes.byref(place)
                )
            try:
                made = self._reader.instance(gpu_instance, card_uuid, profile)
                if made.uuid is None:
                    made = self._complete(gpu_instance, card_uuid, profile)
            except pynvml.NVMLError:
                if fresh:
                    self._undo(gpu_instance, card_uuid, profile)
                raise
            return made

        return self._run(subject, f"cut {profile_name[:60]} at {start}", create)

    def destroy_instance(self, card_uuid: str, gi_id: int) -> None:
        """Destroy a GPU instance with its compute instances; one that is gone already is fine.

        If it cannot be destroyed it keeps, or gets back, its full compute instance. Raises
        :exc:`.GpuError`: a process or monitor uses it (``code`` is ``Code.IN_USE``), no such card,
        no privilege, MIG off.
        """

        def destroy() -> None:
            device = pynvml.nvmlDeviceGetHandleByUUID(card_uuid)
            try:
                gpu_instance = pynvml.nvmlDeviceGetGpuInstanceById(device, gi_id)
            except pynvml.NVMLError as error:
                if error.value == Code.NOT_FOUND:
                    return
                raise
            profile_id = int(pynvml.nvmlGpuInstanceGetInfo(gpu_instance).profileId)
            try:
                self._destroy(gpu_instance, card_uuid, profile_id)
            except pynvml.NVMLError:
                self._restore(device, gpu_instance, card_uuid, profile_id)
                raise

        self._run(self._reader.subject(card_uuid), f"destroy GPU instance {gi_id}", destroy)

    def set_mig_mode(self, card_uuid: str, enabled: bool) -> Card:
        """Turn MIG on or off and return the card as it is then; its instances are gone.

        An A100 or A30 is reset for it, which needs every other client of the card gone. Raises
        :exc:`.GpuError`: the card is in use (``code`` is ``Code.IN_USE``; the pending mode is set
        back), or the change waits for a reboot (``Code.RESET_REQUIRED``; it stays pending), or no
        privilege, or no MIG on this card.
        """
        subject = self._reader.subject(card_uuid)
        action = f"turn MIG {'on' if enabled else 'off'}"

        def change() -> None:
            device = pynvml.nvmlDeviceGetHandleByUUID(card_uuid)
            current, pending = pynvml.nvmlDeviceGetMigMode(device)
            if bool(current) == enabled and bool(pending) == enabled:
                return
            status = int(pynvml.nvmlDeviceSetMigMode(device, int(enabled)))
            if status == Code.IN_USE:
                pynvml.nvmlDeviceSetMigMode(device, current)
            if status != Code.SUCCESS:
                raise gpu_error(status, subject, action)

        self._run(subject, action, change)
        return self.card(card_uuid)

    def events(self) -> tuple[GpuEvent, ...]:
        """Return what the driver reported since the last call; the first call begins to listen.

        Events of the time while NVML was closed, or the driver restarted, are lost. Raises
        :exc:`.GpuError` when there is no usable driver at all.
        """

        def read() -> tuple[GpuEvent, ...]:
            self._events.register()
            return self._events.read()

        return self._run("the NVIDIA driver", "report events", read)

    def close(self) -> None:
        """Let go of the driver, as a card's reset by others needs; the next call takes it again."""
        with LOCK:
            self._close()

    def _close(self) -> None:
        self._events.forget()
        self._meter.forget()
        self._library.close()

    def _run(self, subject: str, action: str, function: Callable[[], _T]) -> _T:
        with LOCK:
            for last in (False, True):
                self._library.open()
                try:
                    return function()
                except pynvml.NVMLError as error:
                    # After a reset or driver restart the session is dead, and a new one works.
                    # All functions run here begin with finding their card, so they can run again.
                    if error.value == Code.UNINITIALIZED and not last:
                        self._close()
                        continue
                    raise gpu_error(error.value, subject, action) from error
            raise AssertionError("unreachable")

    def _read_inventory(self) -> Inventory:
        count = int(pynvml.nvmlDeviceGetCount())
        return Inventory(
            driver_version=plain_text(pynvml.nvmlSystemGetDriverVersion()),
            nvml_version=plain_text(pynvml.nvmlSystemGetNVMLVersion()),
            cards=tuple(self._reader.read(index) for index in range(count)),
            boot_id=boot_id(),
        )

    def _profile(self, device: Any, card_uuid: str, name: str, start: int) -> Profile:
        profiles = self._reader.profiles(device, card_uuid)
        profile = next((each for each in profiles if each.name == name), None)
        subject = self._reader.subject(card_uuid)
        if profile is None:
            known = ", ".join(each.name for each in profiles) or "none while MIG is off"
            raise GpuError(
                f"There is no profile {name[:60]!r} on {subject}; it has {known}.",
                code=Code.INVALID_ARGUMENT,
            )
        starts = [each.start for each in profile.placements]
        if start not in starts:
            raise GpuError(
                f"{name} cannot start at {start} on {subject}; it may start at"
                f" {', '.join(map(str, starts))}.",
                code=Code.INVALID_ARGUMENT,
            )
        return profile

    def _find(self, device: Any, profile: Profile, start: int) -> Any:
        for gpu_instance in read_gpu_instances(device, profile):
            if int(pynvml.nvmlGpuInstanceGetInfo(gpu_instance).placement.start) == start:
                return gpu_instance
        return None

    def _complete(self, gpu_instance: Any, card_uuid: str, profile: Profile) -> Instance:
        try:
            self._create_compute(gpu_instance, card_uuid, profile)
        except pynvml.NVMLError:
            # Another process may have been faster to complete it; then it is as desired.
            made = self._reader.instance(gpu_instance, card_uuid, profile)
            if made.uuid is None:
                raise
            return made
        return self._reader.instance(gpu_instance, card_uuid, profile)

    def _create_compute(self, gpu_instance: Any, card_uuid: str, profile: Profile) -> None:
        offered = self._reader.compute_profiles(gpu_instance, card_uuid, profile.id)
        full = [each for each in offered if each.slices == profile.compute_slices]
        # Two profiles may have all slices; the one with more multiprocessors leaves none unused.
        best = max(full, key=lambda each: each.multiprocessors, default=None)
        if best is None:
            raise GpuError(f"The driver offers no compute instance that fills a {profile.name}.")
        pynvml.nvmlGpuInstanceCreateComputeInstance(gpu_instance, best.id)

    def _destroy(self, gpu_instance: Any, card_uuid: str, profile_id: int) -> None:
        for part in self._reader.compute_profiles(gpu_instance, card_uuid, profile_id):
            for compute in read_compute_instances(gpu_instance, part):
                pynvml.nvmlComputeInstanceDestroy(compute)
        pynvml.nvmlGpuInstanceDestroy(gpu_instance)

    def _restore(self, device: Any, gpu_instance: Any, card_uuid: str, profile_id: int) -> None:
        """Give an instance that would not go the compute instance back that was destroyed."""
        profiles = self._reader.profiles(device, card_uuid)
        try:
            for profile in profiles:
                if profile.id == profile_id:
                    self._create_compute(gpu_instance, card_uuid, profile)
        except (pynvml.NVMLError, GpuError):
            # It still has it, or nothing can be done; the caller sees why destroying failed.
            return

    def _undo(self, gpu_instance: Any, card_uuid: str, profile: Profile) -> None:
        try:
            self._destroy(gpu_instance, card_uuid, profile.id)
        except pynvml.NVMLError:
            # The creation's own error is what the caller must see. What is left is a GPU instance
            # without compute instance: the inventory shows it and the next creation takes it up.
            return
