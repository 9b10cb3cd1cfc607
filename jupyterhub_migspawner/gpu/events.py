"""What the driver reports by itself: XID errors, and cards that fall off the bus.

The driver keeps events for those who registered before they happened, and loses them with the
session. Registration is per card; the event names the instance it hit. XID numbers are explained
in NVIDIA's "XID Errors" document.
"""

from __future__ import annotations

import ctypes
from typing import Any

import pynvml

from jupyterhub_migspawner.gpu.cards import GpuEvent
from jupyterhub_migspawner.gpu.codes import Code

_NO_INSTANCE = 0xFFFFFFFF
_AT_MOST = 1000  # events in one reading, so that a card in a storm of errors does not hold us
_NO_WAIT_MS = 1
_UNWATCHED = (Code.NOT_SUPPORTED, Code.GPU_IS_LOST, Code.NO_PERMISSION)
_NONE_LEFT = (Code.TIMEOUT, Code.GPU_IS_LOST)


class EventReader:
    """One event set over all cards; used while the library is open and its lock held."""

    def __init__(self) -> None:
        self._set: Any = None
        self._cards: dict[int, str] = {}

    def forget(self) -> None:
        """The session is gone, and the registrations with it."""
        self._set = None
        self._cards.clear()

    def register(self) -> None:
        """Watch all cards that can be watched, unless that is done already."""
        if self._set is not None:
            return
        event_set = pynvml.nvmlEventSetCreate()
        for index in range(int(pynvml.nvmlDeviceGetCount())):
            try:
                device = pynvml.nvmlDeviceGetHandleByIndex(index)
                # A lost card has no UUID any more, so the one it has now is kept with its handle.
                self._cards[_address(device)] = str(pynvml.nvmlDeviceGetUUID(device))
                types = int(pynvml.nvmlDeviceGetSupportedEventTypes(device))
                pynvml.nvmlDeviceRegisterEvents(
                    device, types & pynvml.nvmlEventTypeXidCriticalError, event_set
                )
            except pynvml.NVMLError as error:
                if error.value not in _UNWATCHED:
                    pynvml.nvmlEventSetFree(event_set)
                    raise
        self._set = event_set

    def read(self) -> tuple[GpuEvent, ...]:
        """What was reported since the last reading, without waiting for more."""
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
                )
            )
        return tuple(found)


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _instance(number: int) -> int | None:
    return None if number == _NO_INSTANCE else int(number)
