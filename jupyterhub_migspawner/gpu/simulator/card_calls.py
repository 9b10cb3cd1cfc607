"""NVML calls about the machine and whole cards: versions, handles, names, MIG mode.

Each function is what the C function of its name does: arguments as the binding passes them, the
answer written where they point, a :class:`Fault` for a return code other than success.
"""

from __future__ import annotations

# Each function is documented in NVML's API reference under its own name.
# ruff: noqa: D103
import os

from jupyterhub_migspawner.gpu.simulator.cutting import Fault, model_of
from jupyterhub_migspawner.gpu.simulator.exports import symbol
from jupyterhub_migspawner.gpu.simulator.handles import (
    card_handle,
    mig_handle,
    resolve_card,
    slices_of,
)
from jupyterhub_migspawner.gpu.simulator.memory import (
    address,
    fill,
    number,
    pointed,
    text,
    write_handle,
    write_number,
    write_text,
)
from jupyterhub_migspawner.gpu.simulator.processes import living
from jupyterhub_migspawner.gpu.simulator.schema import CardState, State
from jupyterhub_migspawner.gpu.simulator.session import Session, enter, leave, require_privilege
from jupyterhub_migspawner.model.codes import Code

# NVML_FI_DEV_GET_GPU_RECOVERY_ACTION and NVML_VALUE_TYPE_UNSIGNED_INT of nvml.h.
_FIELD_RECOVERY_ACTION = 230
_UNSIGNED_INT = 1

_MESSAGES = {
    Code.SUCCESS: "The operation was successful",
    Code.UNINITIALIZED: "Uninitialized",
    Code.INVALID_ARGUMENT: "Invalid Argument",
    Code.NOT_SUPPORTED: "Not Supported",
    Code.NO_PERMISSION: "Insufficient Permissions",
    Code.NOT_FOUND: "Not Found",
    Code.IN_USE: "In use by another client",
    Code.INSUFFICIENT_RESOURCES: "Insufficient Resources",
    Code.ARGUMENT_VERSION_MISMATCH: "Argument version mismatch",
    Code.GPU_IS_LOST: "GPU is lost",
}


@symbol
def nvmlInitWithFlags(session: Session, _flags: object) -> None:
    enter(session)


@symbol
def nvmlInit_v2(session: Session) -> None:
    enter(session)


@symbol
def nvmlShutdown(session: Session) -> None:
    leave(session)


@symbol
def nvmlErrorString(_session: Session, code: object) -> bytes:
    known = {int(each): words for each, words in _MESSAGES.items()}
    return known.get(number(code), "Unknown Error").encode()


@symbol
def nvmlSystemGetDriverVersion(session: Session, buffer: object, length: object) -> None:
    write_text(buffer, length, session.state()["driver_version"])


@symbol
def nvmlSystemGetNVMLVersion(session: Session, buffer: object, length: object) -> None:
    write_text(buffer, length, session.state()["nvml_version"])


@symbol
def nvmlSystemGetCudaDriverVersion_v2(session: Session, version: object) -> None:
    write_number(version, session.state()["cuda_version"])


@symbol
def nvmlDeviceGetCount_v2(session: Session, count: object) -> None:
    write_number(count, len(session.state()["cards"]))


@symbol
def nvmlDeviceGetHandleByIndex_v2(session: Session, index: object, device: object) -> None:
    cards = session.state()["cards"]
    wanted = next((each for each in cards if each["index"] == number(index)), None)
    if wanted is None:
        raise Fault(Code.INVALID_ARGUMENT)
    _give(wanted, device)


@symbol
def nvmlDeviceGetHandleByUUID(session: Session, uuid: object, device: object) -> None:
    state, wanted = session.state(), text(uuid)
    for card in state["cards"]:
        if card["uuid"] == wanted:
            _give(card, device)
            return
        for found, gi_id, ci_id in slices_of(card):
            old_form = f"MIG-{card['uuid']}/{gi_id}/{ci_id}"
            if wanted in (found, old_form):
                if card["lost"]:
                    raise Fault(Code.GPU_IS_LOST)
                write_handle(device, mig_handle(session, card, gi_id, ci_id))
                return
    raise Fault(Code.NOT_FOUND)


@symbol
def nvmlDeviceGetHandleByPciBusId_v2(session: Session, bus_id: object, device: object) -> None:
    wanted = text(bus_id).lower()
    for card in session.state()["cards"]:
        if _bus_id(card).lower().endswith(wanted[-10:]):
            _give(card, device)
            return
    raise Fault(Code.NOT_FOUND)


@symbol
def nvmlDeviceGetIndex(session: Session, device: object, index: object) -> None:
    write_number(index, _card(session, device)["index"])


@symbol
def nvmlDeviceGetMinorNumber(session: Session, device: object, minor: object) -> None:
    write_number(minor, _card(session, device)["minor"])


@symbol
def nvmlDeviceGetPciInfo_v3(session: Session, device: object, info: object) -> None:
    card = _card(session, device)
    fill(
        pointed(info),
        busIdLegacy=_bus_id(card)[4:].encode(),
        domain=0,
        bus=card["bus"],
        device=0,
        pciDeviceId=model_of(card).pci_device_id,
        pciSubSystemId=0x134F10DE,
        busId=_bus_id(card).encode(),
    )


@symbol
def nvmlDeviceGetCudaComputeCapability(
    session: Session, device: object, major: object, minor: object
) -> None:
    capability = model_of(_card(session, device)).compute_capability
    write_number(major, capability[0])
    write_number(minor, capability[1])


@symbol
def nvmlDeviceGetFieldValues(
    session: Session, device: object, count: object, values: object
) -> None:
    card = _card(session, device)
    for index in range(number(count)):
        value = pointed(values)[index]
        action = card.get("recovery_action")
        if value.fieldId == _FIELD_RECOVERY_ACTION and action is not None:
            fill(value, nvmlReturn=int(Code.SUCCESS), valueType=_UNSIGNED_INT)
            value.value.uiVal = action
        else:
            fill(value, nvmlReturn=int(Code.NOT_SUPPORTED))


@symbol
def nvmlDeviceGetMigMode(
    session: Session, device: object, current: object, pending: object
) -> None:
    card = _card(session, device)
    if not model_of(card).mig_capable:
        raise Fault(Code.NOT_SUPPORTED)
    write_number(current, int(card["mig"]))
    write_number(pending, int(card["pending"]))


@symbol
def nvmlDeviceSetMigMode(
    session: Session, device: object, mode: object, activation: object
) -> None:
    wanted = number(mode)
    if wanted not in (0, 1):
        raise Fault(Code.INVALID_ARGUMENT)
    session.state()
    with session.file.change() as state:
        card = resolve_card(state, address(device))
        if not model_of(card).mig_capable:
            raise Fault(Code.NOT_SUPPORTED)
        require_privilege(state)
        card["pending"] = bool(wanted)
        status = _activate(state, card)
    write_number(activation, int(status))


def _activate(state: State, card: CardState) -> Code:
    """Make the pending mode the current one if the card is free for it; return NVML's answer.

    An A100 or A30 is reset for it and must have no client left but the caller; an H100 changes
    while clients look on, but not while work runs on it.
    """
    if card["pending"] == card["mig"]:
        return Code.SUCCESS
    if state["switches"]["passthrough"]:
        return Code.RESET_REQUIRED
    busy = living(card["processes"]) or any(living(each["processes"]) for each in card["instances"])
    if model_of(card).resets_for_mig:
        others = [each for each in living(state["clients"]) if each["pid"] != os.getpid()]
        busy = busy or bool(others) or bool(living(card["holders"])) or bool(card["leaked"])
    if busy:
        return Code.IN_USE
    card["mig"] = card["pending"]
    card["instances"].clear()
    card["leaked"].clear()
    return Code.SUCCESS


def _card(session: Session, device: object) -> CardState:
    return resolve_card(session.state(), address(device))


def _give(card: CardState, device: object) -> None:
    if card["lost"]:
        raise Fault(Code.GPU_IS_LOST)
    write_handle(device, card_handle(card))


def _bus_id(card: CardState) -> str:
    return f"00000000:{card['bus']:02X}:00.0"
