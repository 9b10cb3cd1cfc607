"""What the driver reports by itself: XID errors, and cards that fall off the bus.

The driver keeps events for those who registered before they happened, and loses them with the
session. Registration is per card; the event names the instance it hit. XID numbers are explained
in NVIDIA's "XID Errors" document.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pynvml

from jupyterhub_migspawner.gpu.reading import read_recovery_action
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import GpuEvent

_NO_INSTANCE = 0xFFFFFFFF
_AT_MOST = 1000  # events in one reading, so that a card in a storm of errors does not hold us
_NO_WAIT_MS = 1
_UNWATCHED = (Code.NOT_SUPPORTED, Code.NO_PERMISSION)
_NONE_LEFT = (Code.TIMEOUT, Code.GPU_IS_LOST)


class EventReader:
    """One event set over all cards; used while the library is open and its lock held."""

    def __init__(self) -> None:
        self._set: Any = None
        self._cards: dict[int, str] = {}
        # Indices of cards that could not be watched yet, and may be later.
        self._left: list[int] = []

    def forget(self) -> None:
        """Forget the registrations of a session that is gone."""
        self._set = None
        self._cards.clear()
        self._left = []

    def register(self) -> None:
        """Watch all cards that can be watched and are not yet; one that fails is tried again."""
        if self._set is None:
            self._left = list(range(int(pynvml.nvmlDeviceGetCount())))
            self._set = pynvml.nvmlEventSetCreate()
        failed = []
        for index in self._left:
            try:
                self._watch(index)
            except pynvml.NVMLError as error:
                if error.value == Code.UNINITIALIZED:
                    raise
                # The reading of the cards tells what is wrong with it, if anything is.
                if error.value not in _UNWATCHED:
                    failed.append(index)
        self._left = failed

    def _watch(self, index: int) -> None:
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        # A lost card has no UUID any more, so the one it has now is kept with its handle.
        self._cards[_address(device)] = str(pynvml.nvmlDeviceGetUUID(device))
        types = int(pynvml.nvmlDeviceGetSupportedEventTypes(device))
        pynvml.nvmlDeviceRegisterEvents(
            device, types & pynvml.nvmlEventTypeXidCriticalError, self._set
        )

    def read(self) -> tuple[GpuEvent, ...]:
        """Return what was reported since the last reading, without waiting for more."""
        found: list[GpuEvent] = []
        while len(found) < _AT_MOST:
            try:
                data = pynvml.nvmlEventSetWait_v2(self._set, _NO_WAIT_MS)
            except pynvml.NVMLError as error:
                if error.value in _NONE_LEFT:
                    break
                raise
            is_xid = bool(data.eventType & pynvml.nvmlEventTypeXidCriticalError)
            found.append(
                GpuEvent(
                    card_uuid=self._cards.get(_address(data.device), ""),
                    kind="xid" if is_xid else f"type {int(data.eventType):#x}",
                    xid=int(data.eventData) if is_xid else None,
                    gi_id=_instance(data.gpuInstanceId),
                    ci_id=_instance(data.computeInstanceId),
                    recovery_action=_recovery_action(data.device) if is_xid else None,
                )
            )
        return tuple(found)


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _recovery_action(device: Any) -> int | None:
    try:
        return read_recovery_action(device)
    except pynvml.NVMLError:
        return None  # a card that has fallen off the bus; the reading of the cards reports it


def _instance(number: int) -> int | None:
    return None if number == _NO_INSTANCE else int(number)
