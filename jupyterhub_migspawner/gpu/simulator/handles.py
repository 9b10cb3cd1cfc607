"""Opaque handles of the simulated library: what each means now, and when it means nothing.

A card keeps its handle. A slice's handle is an index in its session: it goes stale when the slice
is destroyed and may come back for another slice, which is why callers must never keep one.
"""

from __future__ import annotations

from jupyterhub_migspawner.gpu.simulator.cutting import Fault, find_instance, slice_uuid
from jupyterhub_migspawner.gpu.simulator.schema import CardState, ComputeState, InstanceState, State
from jupyterhub_migspawner.gpu.simulator.session import Session
from jupyterhub_migspawner.model.codes import Code

# Handles are opaque to the caller; these ranges tell them apart and make a wrong one noticeable.
_CARD = 0x1000_0000
_MIG = 0x2000_0000
_GPU_INSTANCE = 0x3000_0000
_COMPUTE_INSTANCE = 0x4000_0000
_KIND = 0xF000_0000


def card_handle(card: CardState) -> int:
    """Return the handle of a card."""
    return _CARD + (card["index"] << 16)


def instance_handle(card: CardState, instance: InstanceState) -> int:
    """Return the handle of a GPU instance."""
    return _GPU_INSTANCE + (card["index"] << 16) + (instance["id"] << 4)


def compute_handle(card: CardState, instance: InstanceState, compute: ComputeState) -> int:
    """Return the handle of a compute instance."""
    return _COMPUTE_INSTANCE + (card["index"] << 16) + (instance["id"] << 4) + compute["id"]


def mig_handle(session: Session, card: CardState, gi_id: int, ci_id: int) -> int:
    """Return the handle of a slice, by its index in this session."""
    index = mig_slots(session, card).index((gi_id, ci_id))
    return _MIG + (card["index"] << 16) + index


def mig_slots(session: Session, card: CardState) -> list[tuple[int, int] | None]:
    """Return slices by handle index: what is gone leaves a hole, what is new fills one.

    It fills the first hole.
    """
    present = sorted(
        (each["id"], compute["id"]) for each in card["instances"] for compute in each["computes"]
    )
    slots = session.mig.setdefault(card["uuid"], [])
    for index, held in enumerate(slots):
        if held not in present:
            slots[index] = None
    for pair in present:
        if pair not in slots:
            if None in slots:
                slots[slots.index(None)] = pair
            else:
                slots.append(pair)
    return slots


def find_card_of(state: State, handle: int) -> CardState:
    """Return the card that a handle of any kind belongs to."""
    if handle & _KIND not in (_CARD, _MIG, _GPU_INSTANCE, _COMPUTE_INSTANCE):
        raise Fault(Code.INVALID_ARGUMENT)
    index = (handle >> 16) & 0xFFF
    card = next((each for each in state["cards"] if each["index"] == index), None)
    if card is None:
        raise Fault(Code.INVALID_ARGUMENT)
    return card


def resolve_card(state: State, handle: int) -> CardState:
    """Return the card of a card's handle; a slice's handle is an invalid argument here."""
    if handle & _KIND != _CARD:
        raise Fault(Code.INVALID_ARGUMENT)
    return _unless_lost(find_card_of(state, handle))


def resolve_device(
    session: Session, state: State, handle: int
) -> tuple[CardState, InstanceState | None, ComputeState | None]:
    """Return what a device handle means: a card, or a slice of one with its two instances."""
    if handle & _KIND == _CARD:
        return resolve_card(state, handle), None, None
    if handle & _KIND != _MIG:
        raise Fault(Code.INVALID_ARGUMENT)
    card = _unless_lost(find_card_of(state, handle))
    slots = mig_slots(session, card)
    index = handle & 0xFFFF
    held = slots[index] if index < len(slots) else None
    if held is None:
        raise Fault(Code.INVALID_ARGUMENT)
    instance = find_instance(card, held[0])
    if instance is None:
        raise Fault(Code.INVALID_ARGUMENT)
    return card, instance, _compute(instance, held[1])


def resolve_instance(state: State, handle: int) -> tuple[CardState, InstanceState]:
    """Return the GPU instance of a handle; one that is gone is an invalid argument."""
    if handle & _KIND != _GPU_INSTANCE:
        raise Fault(Code.INVALID_ARGUMENT)
    card = _unless_lost(find_card_of(state, handle))
    instance = find_instance(card, (handle >> 4) & 0xFFF)
    if instance is None:
        raise Fault(Code.INVALID_ARGUMENT)
    return card, instance


def resolve_compute(state: State, handle: int) -> tuple[CardState, InstanceState, ComputeState]:
    """Return the compute instance of a handle; one that is gone is an invalid argument."""
    if handle & _KIND != _COMPUTE_INSTANCE:
        raise Fault(Code.INVALID_ARGUMENT)
    card, instance = resolve_instance(state, (handle & ~_KIND & ~0xF) | _GPU_INSTANCE)
    return card, instance, _compute(instance, handle & 0xF)


def _compute(instance: InstanceState, ci_id: int) -> ComputeState:
    found = next((each for each in instance["computes"] if each["id"] == ci_id), None)
    if found is None:
        raise Fault(Code.INVALID_ARGUMENT)
    return found


def _unless_lost(card: CardState) -> CardState:
    if card["lost"]:
        raise Fault(Code.GPU_IS_LOST)
    return card


def slices_of(card: CardState) -> list[tuple[str, int, int]]:
    """Return UUID, GPU instance id and compute instance id of every slice of the card."""
    return [
        (slice_uuid(card, each, compute), each["id"], compute["id"])
        for each in card["instances"]
        for compute in each["computes"]
    ]
