"""What the state file holds: the simulated machine as JSON objects with known keys."""

from __future__ import annotations

from typing import TypedDict

FORMAT = 1


class _Process(TypedDict):
    pid: int
    started: int
    memory_mib: int | None
    ci_id: int


class ProcessState(_Process, total=False):
    """A process that uses an instance; ``started`` (clock ticks since boot) defeats pid reuse.

    ``used`` is the per cent of the time in which it lets the engine work, 0 unless set.
    """

    used: float


class ComputeState(TypedDict):
    """A compute instance, in compute slices of its GPU instance."""

    id: int
    profile_id: int
    start: int
    size: int


class InstanceState(TypedDict):
    """A GPU instance, in memory slots of its card."""

    id: int
    profile_id: int
    start: int
    size: int
    syspipe: int
    computes: list[ComputeState]
    processes: list[ProcessState]


class HolderState(TypedDict):
    """A process that holds NVML, a card or an instance open without running work on it."""

    pid: int
    started: int
    gi_id: int | None


class _Card(TypedDict):
    """One card. ``serial`` is its unique number, ``swapped`` that its halves are numbered swapped.

    ``processes`` use the whole card while MIG is off; ``holders`` are monitors. ``leaked`` are ids
    of instances whose handle a process keeps, so that they cannot be destroyed until a reboot.
    """

    index: int
    minor: int
    uuid: str
    model: str
    bus: int
    serial: int
    swapped: bool
    mig: bool
    pending: bool
    lost: bool
    created: int
    instances: list[InstanceState]
    processes: list[ProcessState]
    holders: list[HolderState]
    leaked: list[int]


class CardState(_Card, total=False):
    """A card as it is stored.

    ``recovery_action`` is what the driver wants done with it; it does not report any where missing.
    """

    recovery_action: int


class EventState(TypedDict):
    """Something the driver reports to those who registered for it."""

    number: int
    card_uuid: str
    type: int
    data: int
    gi_id: int | None
    ci_id: int | None


class FaultState(TypedDict):
    """A call that is to fail: ``times`` left, on one card or (None) on any."""

    symbol: str
    code: int
    times: int
    card_uuid: str | None


class Switches(TypedDict):
    """How the simulated machine behaves where real ones differ, or where things go wrong.

    ``privileged``: who may cut cards: ``everyone``, ``root`` (by effective user id) or ``nobody``.
    ``reshuffle``: an instance made again at the same place gets another UUID.
    ``passthrough``: the cards belong to a virtual machine: a mode change waits for a reboot.
    ``profiles_need_mig``: profile queries answer only with MIG on.
    ``prefixed_names``: profile names come as ``MIG 1g.5gb``.
    ``latency``: seconds before a call answers, by symbol; ``*`` for all others.
    """

    privileged: str
    reshuffle: bool
    passthrough: bool
    profiles_need_mig: bool
    prefixed_names: bool
    latency: dict[str, float]
    faults: list[FaultState]


class State(TypedDict):
    """The whole machine. ``boot`` counts restarts: sessions of an earlier one are dead.

    ``tree`` is the folder in which ``/proc`` and ``/dev`` files of the driver are kept, or None.
    """

    format: int
    driver_version: str
    nvml_version: str
    cuda_version: int
    boot: int
    cards: list[CardState]
    clients: list[HolderState]
    events: list[EventState]
    events_seen: int
    switches: Switches
    tree: str | None


def default_switches() -> Switches:
    """Return a machine that behaves: anybody may cut, UUIDs come back, nothing is slow or fails."""
    return Switches(
        privileged="everyone",
        reshuffle=False,
        passthrough=False,
        profiles_need_mig=False,
        prefixed_names=False,
        latency={},
        faults=[],
    )
