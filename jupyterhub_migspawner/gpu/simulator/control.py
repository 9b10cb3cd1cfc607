"""What a person or a test does to the simulated machine from outside: make it, use it, break it.

None of it goes through NVML. Every function changes the state file in one step and raises
:class:`~jupyterhub_migspawner.errors.GpuError` with a sentence when it cannot.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.arrange import arrange
from jupyterhub_migspawner.gpu.simulator.catalogue import find_model
from jupyterhub_migspawner.gpu.simulator.cutting import (
    card_uuid,
    create_compute,
    create_instance,
    model_of,
    slice_uuid,
)
from jupyterhub_migspawner.gpu.simulator.models import Model
from jupyterhub_migspawner.gpu.simulator.processes import living, start_time
from jupyterhub_migspawner.gpu.simulator.schema import (
    FORMAT,
    CardState,
    ComputeState,
    EventState,
    FaultState,
    HolderState,
    InstanceState,
    ProcessState,
    State,
    default_switches,
)
from jupyterhub_migspawner.gpu.simulator.state import StateFile
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import Placement, Profile

StatePath = str | os.PathLike[str]

DRIVER_VERSION = "580.95.05"
_MOST_CARDS = 32  # the driver's own limit
_XID_EVENT = 0x8
_XID_OFF_THE_BUS = 79
_EVENTS_KEPT = 200


def create_state(
    path: StatePath,
    *,
    cards: int,
    model: str = "A100-SXM4-40GB",
    layouts: Sequence[Sequence[str]] | None = None,
    overwrite: bool = False,
    seed: str | None = None,
    swapped: Sequence[int] = (),
    tree: StatePath | None = None,
) -> None:
    """Make a simulated machine of ``cards`` equal cards, 1 to 32.

    ``path`` is the state file to write; it must not exist unless ``overwrite``. ``model`` is a
    known model; case, dashes and vendor do not matter. ``layouts`` are for each card the names of
    its profiles, cut at legal placements. Cards that have a layout, even an empty one, have MIG on;
    without ``layouts`` MIG is off on all. The same ``seed`` makes cards of the same UUIDs; None
    makes new ones each time. ``swapped`` are indices of cards that number their halves the other
    way round. ``tree`` is a folder that stands for the root of the file system: the driver's files
    in ``/proc`` and ``/dev`` are kept up to date under it.

    Raises :exc:`.GpuError` for an unknown model or profile, a layout that does not fit, a bad
    count, or a file that exists already or cannot be written.
    """
    kind = find_model(model)
    if not 1 <= cards <= _MOST_CARDS:
        raise GpuError(f"A simulated machine has 1 to {_MOST_CARDS} cards, not {cards}.")
    if layouts is not None and len(layouts) > cards:
        raise GpuError(f"There are layouts for {len(layouts)} cards, but only {cards} cards.")
    if layouts and not kind.mig_capable:
        raise GpuError(f"A {kind.name} cannot be cut: leave the layout out.")
    origin = seed if seed is not None else secrets.token_hex(16)
    state = State(
        format=FORMAT,
        driver_version=DRIVER_VERSION,
        nvml_version=f"13.{DRIVER_VERSION}",
        cuda_version=13000,
        boot=0,
        cards=[_card(kind, index, origin, index in swapped) for index in range(cards)],
        clients=[],
        events=[],
        events_seen=0,
        switches=default_switches(),
        tree=None if tree is None else str(Path(tree).absolute()),
    )
    for card, names in zip(state["cards"], layouts or (), strict=False):
        card["mig"] = card["pending"] = True
        _cut(card, names)
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    StateFile(path).create(state, overwrite=overwrite)


def add_process(
    path: StatePath,
    slice_uuid: str,
    pid: int,
    memory_mib: int | None = None,
    used: float = 0.0,
) -> None:
    """Let a living process use a slice (or, given a card's UUID, a card with MIG off).

    It leaves the slice by itself when it ends. Adding it again changes its ``memory_mib`` and
    ``used``, the per cent of the time in which the engine works for it.
    """
    started = _started(pid)
    with StateFile(path).change() as state:
        processes, ci_id = _users(state, slice_uuid)
        processes[:] = [each for each in living(processes) if each["pid"] != pid]
        processes.append(
            ProcessState(
                pid=pid, started=started, memory_mib=memory_mib, ci_id=ci_id, used=float(used)
            )
        )


def remove_process(path: StatePath, slice_uuid: str, pid: int) -> None:
    """Let a process stop using a slice, though it lives on; harmless if it does not use it."""
    with StateFile(path).change() as state:
        processes, _ = _users(state, slice_uuid)
        processes[:] = [each for each in living(processes) if each["pid"] != pid]


def add_monitor(path: StatePath, card_uuid: str, pid: int, gi_id: int | None = None) -> None:
    """Let a process hold a card, or one GPU instance, open as a monitor does, running no work."""
    started = _started(pid)
    with StateFile(path).change() as state:
        _find(state, card_uuid)["holders"].append(
            HolderState(pid=pid, started=started, gi_id=gi_id)
        )


def remove_monitor(path: StatePath, card_uuid: str, pid: int) -> None:
    """Let a monitor go of a card and all its instances."""
    with StateFile(path).change() as state:
        card = _find(state, card_uuid)
        card["holders"] = [each for each in card["holders"] if each["pid"] != pid]


def leak_instance(path: StatePath, card_uuid: str, gi_id: int) -> None:
    """Leave a handle of a GPU instance open for nobody: only a reboot lets it be destroyed."""
    with StateFile(path).change() as state:
        card = _find(state, card_uuid)
        if not any(each["id"] == gi_id for each in card["instances"]):
            raise GpuError(f"Card {card_uuid} has no GPU instance {gi_id}.")
        card["leaked"].append(gi_id)


def orphan_instance(path: StatePath, card_uuid: str, profile: str, start: int) -> int:
    """Cut a GPU instance without compute instance; return its id.

    A creation that died half way leaves one like this.
    """
    with StateFile(path).change() as state:
        card = _find(state, card_uuid)
        found = model_of(card).by_name(profile)
        if found is None:
            raise GpuError(f"A {model_of(card).name} has no profile {profile!r}.")
        return create_instance(card, found, (start, found.size))["id"]


def reboot(path: StatePath) -> None:
    """Restart the machine: instances, processes and losses of cards go, sessions die.

    An A100 or A30 comes up in the MIG mode that was pending; an H100 comes up with MIG off.
    """
    with StateFile(path).change() as state:
        state["boot"] += 1
        state["clients"] = []
        for card in state["cards"]:
            keeps = model_of(card).resets_for_mig
            card["mig"] = card["pending"] = card["pending"] and keeps
            card["lost"] = False
            if "recovery_action" in card:
                card["recovery_action"] = 0
            card["instances"] = []
            card["processes"] = []
            card["holders"] = []
            card["leaked"] = []


def lose_card(path: StatePath, card_uuid: str) -> None:
    """Let a card fall off the bus: XID 79, and every further call on it fails until a reboot."""
    with StateFile(path).change() as state:
        card = _find(state, card_uuid)
        card["lost"] = True
        _report(state, card_uuid, _XID_OFF_THE_BUS, None, None)


def report_xid(
    path: StatePath,
    card_uuid: str,
    xid: int,
    gi_id: int | None = None,
    ci_id: int | None = None,
) -> None:
    """Let the driver report an XID error on a card, or on one instance of it."""
    with StateFile(path).change() as state:
        _find(state, card_uuid)
        _report(state, card_uuid, xid, gi_id, ci_id)


def set_recovery_action(path: StatePath, card_uuid: str, action: int) -> None:
    """Let the driver ask for something to be done with a card: ``nvmlDeviceGpuRecoveryAction_t``.

    Without it the driver reports none, as those before R560 do. A restart of the machine sets it
    to nothing.
    """
    with StateFile(path).change() as state:
        _find(state, card_uuid)["recovery_action"] = action


def set_switches(
    path: StatePath,
    *,
    privileged: str | None = None,
    reshuffle: bool | None = None,
    passthrough: bool | None = None,
    profiles_need_mig: bool | None = None,
    prefixed_names: bool | None = None,
    latency: Mapping[str, float] | None = None,
) -> None:
    """Change how the machine behaves; None leaves a switch as it is.

    For the meaning of each see :class:`~jupyterhub_migspawner.gpu.simulator.state.Switches`.
    """
    with StateFile(path).change() as state:
        switches = state["switches"]
        if privileged is not None:
            if privileged not in ("everyone", "root", "nobody"):
                raise GpuError(
                    f"Privileged are 'everyone', 'root' or 'nobody', not {privileged!r}."
                )
            switches["privileged"] = privileged
        if reshuffle is not None:
            switches["reshuffle"] = reshuffle
        if passthrough is not None:
            switches["passthrough"] = passthrough
        if profiles_need_mig is not None:
            switches["profiles_need_mig"] = profiles_need_mig
        if prefixed_names is not None:
            switches["prefixed_names"] = prefixed_names
        if latency is not None:
            switches["latency"] = dict(latency)


def fail_call(
    path: StatePath, symbol: str, code: Code, *, times: int = 1, card_uuid: str | None = None
) -> None:
    """Let the next ``times`` calls of an NVML function fail, on one card or on any."""
    with StateFile(path).change() as state:
        state["switches"]["faults"].append(
            FaultState(symbol=symbol, code=int(code), times=times, card_uuid=card_uuid)
        )


def slice_uuids(path: StatePath) -> tuple[str, ...]:
    """Return the UUIDs of all slices of the machine, in order of card and start."""
    return tuple(
        slice_uuid(card, instance, compute)
        for card in StateFile(path).read()["cards"]
        for instance in sorted(card["instances"], key=lambda each: each["start"])
        for compute in instance["computes"]
    )


def card_uuids(path: StatePath) -> tuple[str, ...]:
    """Return the UUIDs of all cards of the machine, in order."""
    return tuple(card["uuid"] for card in StateFile(path).read()["cards"])


def profiles_of(model: Model) -> tuple[Profile, ...]:
    """Return the model's profiles as the values the rest of the package works with."""
    return tuple(
        Profile(
            name=each.name,
            id=each.id,
            compute_slices=each.slices,
            memory_mib=each.memory_mib,
            multiprocessors=each.multiprocessors,
            max_instances=each.max_instances,
            placements=tuple(Placement(start, each.size) for start in each.starts),
            engines=each.engines,
            whole=each.size == model.slots,
        )
        for each in model.profiles
    )


def _card(model: Model, index: int, origin: str, swapped: bool) -> CardState:
    digest = hashlib.sha256(f"{origin}/{index}".encode()).digest()
    serial = int.from_bytes(digest[:8], "little")
    return CardState(
        index=index,
        minor=index,
        uuid=card_uuid(model.chip, serial),
        model=model.key,
        bus=0x07 + 8 * index % 0xF8 if index < 31 else 0xFF,
        serial=serial,
        swapped=swapped,
        mig=False,
        pending=False,
        lost=False,
        created=0,
        instances=[],
        processes=[],
        holders=[],
        leaked=[],
    )


def _cut(card: CardState, names: Sequence[str]) -> None:
    model = model_of(card)
    for name, start in arrange(profiles_of(model), names):
        profile = model.by_name(name)
        if profile is None:
            raise GpuError(f"A {model.name} has no profile {name!r}.")
        instance = create_instance(card, profile, (start, profile.size))
        full = max(
            (each for each in model.compute_profiles(profile) if each.slices == profile.slices),
            key=lambda each: each.multiprocessors,
        )
        create_compute(card, instance, full.id, 0)


def _started(pid: int) -> int:
    try:
        started = start_time(pid)
    except OSError as error:
        raise GpuError(f"Process {pid} cannot be looked at: {error.strerror}.") from error
    if started is None:
        raise GpuError(f"No process {pid} runs on this machine; give the id of one that does.")
    return started


def _find(state: State, card_uuid: str) -> CardState:
    card = next((each for each in state["cards"] if each["uuid"] == card_uuid), None)
    if card is None:
        known = ", ".join(each["uuid"] for each in state["cards"])
        raise GpuError(f"There is no simulated card {card_uuid[:60]!r}; there are: {known}.")
    return card


def _users(state: State, uuid: str) -> tuple[list[ProcessState], int]:
    """Return the list of processes of a slice or card, and the compute instance's id on it."""
    for card in state["cards"]:
        if card["uuid"] == uuid:
            if card["mig"]:
                raise GpuError(f"Card {uuid} has MIG on; name a slice of it instead.")
            return card["processes"], 0
        found = _slice(card, uuid)
        if found is not None:
            return found[0]["processes"], found[1]["id"]
    raise GpuError(f"There is no simulated slice {uuid[:60]!r}; list them with: migspawner slices")


def _slice(card: CardState, uuid: str) -> tuple[InstanceState, ComputeState] | None:
    for instance in card["instances"]:
        for compute in instance["computes"]:
            if slice_uuid(card, instance, compute) == uuid:
                return instance, compute
    return None


def _report(state: State, card_uuid: str, xid: int, gi_id: int | None, ci_id: int | None) -> None:
    state["events_seen"] += 1
    state["events"].append(
        EventState(
            number=state["events_seen"],
            card_uuid=card_uuid,
            type=_XID_EVENT,
            data=xid,
            gi_id=gi_id,
            ci_id=ci_id,
        )
    )
    del state["events"][:-_EVENTS_KEPT]
