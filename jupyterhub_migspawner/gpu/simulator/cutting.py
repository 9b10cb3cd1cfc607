"""What a simulated card allows: where instances fit, what number and UUID they get, when they go.

The rules are the driver's: an instance may lie at the starts its profile lists, memory slots are
never shared, and no media engine belongs to two instances. A refusal is a :class:`Fault` with
NVML's return code, as the library below the Python binding would give it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

from jupyterhub_migspawner.gpu.simulator.catalogue import MODELS
from jupyterhub_migspawner.gpu.simulator.models import GiProfile, Model
from jupyterhub_migspawner.gpu.simulator.processes import living
from jupyterhub_migspawner.gpu.simulator.schema import CardState, ComputeState, InstanceState
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import Engines

# Namespace of the simulated cards' UUIDs; the driver has a constant of its own in its place.
_NAMESPACE = bytes.fromhex("5d0c7a3be1f24c8f9a6604d2b7c1e359")


class Fault(Exception):
    """The end of a call with this NVML return code."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


def model_of(card: CardState) -> Model:
    """Return the card's model."""
    return MODELS[card["model"]]


def profile_of(card: CardState, profile_id: int) -> GiProfile:
    """Return the profile that creation calls ``profile_id``.

    An unknown id is an invalid argument.
    """
    profile = model_of(card).by_id(profile_id)
    if profile is None:
        raise Fault(Code.INVALID_ARGUMENT)
    return profile


def find_instance(card: CardState, gi_id: int) -> InstanceState | None:
    """Return the card's instance of that id; None when there is none."""
    return next((each for each in card["instances"] if each["id"] == gi_id), None)


def taken_slots(card: CardState) -> int:
    """Return the memory slots that instances occupy, as a bit set."""
    mask = 0
    for each in card["instances"]:
        mask |= _mask(each["start"], each["size"])
    return mask


def capacity(card: CardState, profile: GiProfile) -> int:
    """Return how many more instances of the profile fit, one by one, with all others staying."""
    taken, count = taken_slots(card), 0
    engines = _engines_taken(card) + profile.engines
    available = model_of(card).engines
    for start in sorted(profile.starts):
        mask = _mask(start, profile.size)
        if not taken & mask and not engines.beyond(available):
            taken |= mask
            engines += profile.engines
            count += 1
    existing = sum(each["profile_id"] == profile.id for each in card["instances"])
    return max(0, min(count, profile.max_instances - existing))


def create_instance(
    card: CardState,
    profile: GiProfile,
    placement: tuple[int, int] | None,
    *,
    reshuffle: bool = False,
) -> InstanceState:
    """Cut an instance at (start, size), or where the driver itself would put it."""
    if placement is None:
        starts: Sequence[int] = profile.auto
    elif placement[0] not in profile.starts or placement[1] != profile.size:
        raise Fault(Code.INVALID_ARGUMENT)
    else:
        starts = (placement[0],)
    if living(card["processes"]):
        raise Fault(Code.IN_USE)
    if capacity(card, profile) == 0:
        raise Fault(Code.INSUFFICIENT_RESOURCES)
    taken = taken_slots(card)
    start = next((each for each in starts if not taken & _mask(each, profile.size)), None)
    if start is None:
        raise Fault(Code.INSUFFICIENT_RESOURCES)
    card["created"] += 1
    instance = InstanceState(
        id=instance_id(model_of(card).slots, start, profile.size, card["swapped"]),
        profile_id=profile.id,
        start=start,
        size=profile.size,
        # Without the switch the engine pipe follows from the place, so UUIDs come back; with it no
        # two creations on a card share one.
        syspipe=start + 8 * (card["created"] if reshuffle else 0),
        computes=[],
        processes=[],
    )
    card["instances"].append(instance)
    return instance


def destroy_instance(card: CardState, instance: InstanceState) -> None:
    """Take an instance away, unless it has compute instances or a process holds it."""
    held = (
        any(each["gi_id"] in (None, instance["id"]) for each in living(card["holders"]))
        or instance["id"] in card["leaked"]
    )
    if instance["computes"] or held or living(instance["processes"]):
        raise Fault(Code.IN_USE)
    card["instances"].remove(instance)


def create_compute(
    card: CardState, instance: InstanceState, profile_id: int, start: int | None
) -> ComputeState:
    """Make a compute instance in the GPU instance, at a compute slice or the first free ones."""
    profile = profile_of(card, instance["profile_id"])
    offered = model_of(card).compute_profiles(profile)
    chosen = next((each for each in offered if each.id == profile_id), None)
    if chosen is None:
        raise Fault(Code.INVALID_ARGUMENT)
    taken = 0
    for each in instance["computes"]:
        taken |= _mask(each["start"], each["size"])
    starts = range(profile.slices - chosen.slices + 1) if start is None else (start,)
    for at in starts:
        if at < 0 or at + chosen.slices > profile.slices:
            raise Fault(Code.INVALID_ARGUMENT)
        if not taken & _mask(at, chosen.slices):
            break
    else:
        raise Fault(Code.INSUFFICIENT_RESOURCES)
    used = {each["id"] for each in instance["computes"]}
    compute = ComputeState(
        id=next(number for number in range(8) if number not in used),
        profile_id=profile_id,
        start=at,
        size=chosen.slices,
    )
    instance["computes"].append(compute)
    return compute


def destroy_compute(instance: InstanceState, compute: ComputeState) -> None:
    """Take a compute instance away, unless a process runs on it."""
    if any(each["ci_id"] == compute["id"] for each in living(instance["processes"])):
        raise Fault(Code.IN_USE)
    instance["computes"].remove(compute)


def instance_id(slots: int, start: int, size: int, swapped: bool) -> int:
    """Return the id the driver gives to a GPU instance at that place.

    The whole card is 0, halves 1 and 2, then quarters and eighths; on some boards the driver counts
    from the other half. Seen on real cards; code above NVML reads the id and never computes it.
    """
    if size == slots:
        return 0
    if slots in (4, 12):
        # Quarters: an A30, and an RTX PRO 6000 with three memory slots for each.
        quarter = slots // 4
        return 1 + start // (2 * quarter) if size == 2 * quarter else 3 + start // quarter
    if swapped:
        start = (start + 4) % 8
    if size == 4:
        return 1 + start // 4
    if size == 2:
        return 3 + start // 2
    return 7 + start


def card_uuid(chip: int, serial: int) -> str:
    """Return the UUID of a card: a hash of chip and serial number, as a version 5 UUID."""
    return "GPU-" + _digest(_card_words(chip, serial))


def slice_uuid(card: CardState, instance: InstanceState, compute: ComputeState) -> str:
    """Return the UUID of a slice: a hash of card, instance id and engine pipe, not of its profile.

    Hence a 3g and a 4g at start 0 of one card share it, and an instance made again at the same
    place usually has the same one: what a driver does, too.
    """
    words = _card_words(model_of(card).chip, card["serial"])
    words += _word(
        b"SMC"
        + instance["id"].to_bytes(4, "little")
        + (instance["syspipe"] + compute["start"]).to_bytes(4, "little")
    )
    return "MIG-" + _digest(words)


def _card_words(chip: int, serial: int) -> bytes:
    return b"NVIDIA GPU" + _word(chip.to_bytes(2, "little")) + _word(serial.to_bytes(8, "little"))


def _word(content: bytes) -> bytes:
    return bytes([len(content)]) + content


def _digest(words: bytes) -> str:
    digest = hashlib.sha1(_NAMESPACE + words, usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def _engines_taken(card: CardState) -> Engines:
    taken = Engines()
    for each in card["instances"]:
        taken += profile_of(card, each["profile_id"]).engines
    return taken


def _mask(start: int, size: int) -> int:
    return ((1 << size) - 1) << start
