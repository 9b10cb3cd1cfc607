"""NVML calls that wait for what the driver reports: XID errors and lost cards."""

from __future__ import annotations

# Each function is documented in NVML's API reference under its own name.
# ruff: noqa: D103
import time

from jupyterhub_migspawner.gpu.simulator.cutting import Fault
from jupyterhub_migspawner.gpu.simulator.exports import symbol
from jupyterhub_migspawner.gpu.simulator.handles import card_handle, resolve_device
from jupyterhub_migspawner.gpu.simulator.memory import (
    address,
    fill,
    number,
    pointed,
    write_handle,
    write_handle_field,
    write_number,
)
from jupyterhub_migspawner.gpu.simulator.schema import EventState, State
from jupyterhub_migspawner.gpu.simulator.session import EventSet, Session
from jupyterhub_migspawner.model.codes import Code

XID_CRITICAL_ERROR = 0x8
_SUPPORTED = XID_CRITICAL_ERROR
_NO_INSTANCE = 0xFFFFFFFF
_POLL_SECONDS = 0.01


@symbol
def nvmlEventSetCreate(session: Session, answer: object) -> None:
    state = session.state()
    handle = 0x5000_0001 + len(session.event_sets)
    session.event_sets[handle] = EventSet(delivered=state["events_seen"])
    write_handle(answer, handle)


@symbol
def nvmlEventSetFree(session: Session, event_set: object) -> None:
    session.state()
    _set(session, event_set).types.clear()


@symbol
def nvmlDeviceGetSupportedEventTypes(session: Session, device: object, types: object) -> None:
    _, instance, _ = resolve_device(session, session.state(), address(device))
    write_number(types, 0 if instance is not None else _SUPPORTED)


@symbol
def nvmlDeviceRegisterEvents(
    session: Session, device: object, types: object, event_set: object
) -> None:
    state = session.state()
    card, instance, _ = resolve_device(session, state, address(device))
    wanted = number(types)
    if instance is not None or wanted & ~_SUPPORTED:
        raise Fault(Code.NOT_SUPPORTED)
    registered = _set(session, event_set)
    registered.types[card["uuid"]] = registered.types.get(card["uuid"], 0) | wanted


@symbol
def nvmlEventSetWait_v2(
    session: Session, event_set: object, data: object, timeout_ms: object
) -> None:
    registered = _set(session, event_set)
    deadline = time.monotonic() + number(timeout_ms) / 1000
    while True:
        state = session.state()
        event = _next(state, registered)
        if event is not None:
            break
        if time.monotonic() >= deadline:
            raise Fault(Code.TIMEOUT)
        time.sleep(_POLL_SECONDS)
    registered.delivered = event["number"]
    card = next(each for each in state["cards"] if each["uuid"] == event["card_uuid"])
    structure = pointed(data)
    write_handle_field(structure, "device", card_handle(card))
    fill(
        structure,
        eventType=event["type"],
        eventData=event["data"],
        gpuInstanceId=_NO_INSTANCE if event["gi_id"] is None else event["gi_id"],
        computeInstanceId=_NO_INSTANCE if event["ci_id"] is None else event["ci_id"],
    )


def _set(session: Session, event_set: object) -> EventSet:
    found = session.event_sets.get(address(event_set))
    if found is None:
        raise Fault(Code.INVALID_ARGUMENT)
    return found


def _next(state: State, registered: EventSet) -> EventState | None:
    for each in state["events"]:
        wanted = registered.types.get(each["card_uuid"], 0) & each["type"]
        if each["number"] > registered.delivered and wanted:
            return each
    return None
