"""What a node's cards are and how they are cut, as NVML reports it: plain values.

Nothing here talks to a driver; :mod:`jupyterhub_migspawner.gpu.nvml` reads these values from it.
Sizes are MiB; a card's memory slots are numbered from 0, and an instance occupies ``size`` of them
from ``start``. Names of profiles are the driver's own, without the ``MIG`` prefix some drivers put
before them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from jupyterhub_migspawner.model.codes import Code


@dataclass(frozen=True, order=True)
class Placement:
    """A run of memory slots on a card."""

    start: int
    size: int

    @property
    def mask(self) -> int:
        """The slots as a bit set; two placements overlap when their masks share a bit."""
        return ((1 << self.size) - 1) << self.start

    def overlaps(self, other: Placement) -> bool:
        """Tell whether both placements take a slot in common."""
        return self.start < other.start + other.size and other.start < self.start + self.size


@dataclass(frozen=True)
class Engines:
    """Media engines that a card's instances share: each engine belongs to at most one of them."""

    decoders: int = 0
    encoders: int = 0
    jpeg: int = 0
    optical_flow: int = 0

    def __add__(self, other: Engines) -> Engines:
        """Return what two instances take together."""
        return Engines(
            self.decoders + other.decoders,
            self.encoders + other.encoders,
            self.jpeg + other.jpeg,
            self.optical_flow + other.optical_flow,
        )

    def __mul__(self, count: int) -> Engines:
        """Return what so many equal instances take."""
        return Engines(
            self.decoders * count,
            self.encoders * count,
            self.jpeg * count,
            self.optical_flow * count,
        )

    def __or__(self, other: Engines) -> Engines:
        """Return the larger number of each kind."""
        return Engines(
            max(self.decoders, other.decoders),
            max(self.encoders, other.encoders),
            max(self.jpeg, other.jpeg),
            max(self.optical_flow, other.optical_flow),
        )

    def beyond(self, available: Engines) -> str:
        """Name the first kind of which there are not enough; return ``""`` when there are."""
        if self.decoders > available.decoders:
            return "decoders"
        if self.encoders > available.encoders:
            return "encoders"
        if self.jpeg > available.jpeg:
            return "JPEG engines"
        if self.optical_flow > available.optical_flow:
            return "optical flow engines"
        return ""


@dataclass(frozen=True)
class Profile:
    """A MIG size a card offers.

    ``id`` is what NVML's create call takes (19 for a 1g on an A100) and means another profile on
    another model. ``placements`` are all the card knows, whether free or taken now. ``engines`` are
    those that one instance takes. ``whole`` is true when the profile covers every memory slot of
    its card.
    """

    name: str
    id: int
    compute_slices: int
    memory_mib: int
    multiprocessors: int
    max_instances: int
    placements: tuple[Placement, ...]
    engines: Engines = Engines()
    whole: bool = False

    @property
    def attributes(self) -> str:
        """What the name says beyond the size, such as ``+me`` or ``-me``; ``""`` for a plain one.

        Source: "Profile References" under "Supported MIG Profiles" in the MIG User Guide.
        """
        return re.sub(r"^[0-9]+g\.[0-9]+gb", "", self.name)

    @property
    def size(self) -> int:
        """Memory slots an instance of it takes; 0 when the card did not tell its placements."""
        return self.placements[0].size if self.placements else 0


@dataclass(frozen=True)
class GpuProcess:
    """A process as NVML lists it; ``memory_mib`` is None where the driver will not say."""

    pid: int
    memory_mib: int | None = None


@dataclass(frozen=True)
class Instance:
    """One GPU instance on a card, with its full compute instance if it has one.

    ``ci_id`` and ``uuid`` are None for a GPU instance without a full compute instance: what is left
    of a creation that died half way, or something cut by hand.
    """

    gi_id: int
    ci_id: int | None
    profile: str
    profile_id: int
    start: int
    size: int
    compute_slices: int
    memory_mib: int
    uuid: str | None
    processes: tuple[GpuProcess, ...] = ()
    whole: bool = False

    @property
    def placement(self) -> Placement:
        """Where on the card it lies."""
        return Placement(self.start, self.size)


@dataclass(frozen=True)
class Card:
    """One physical GPU as it stood when it was read.

    ``problem`` is ``""`` or a sentence for the admin. A card with a problem lists only what could
    still be read: an instance that is missing from it is not proven gone. ``uuid`` is ``""`` only
    for a card that fell off the bus before this process ever read it. ``pci_device_id`` and
    ``pci_subsystem_id`` hold device and vendor, of the chip and of the board, as NVML gives them
    (0x20B010DE is an A100-SXM4-40GB). ``code`` is NVML's answer behind the problem, 0 where it is
    none of NVML's. ``recovery_action`` is what the driver wants done with the card, by
    :data:`jupyterhub_migspawner.gpu.xids.RECOVERY_ACTIONS`: 0 for nothing, None where the driver
    does not report it.
    """

    index: int
    uuid: str
    model: str
    minor: int
    memory_mib: int
    mig_capable: bool
    mig_enabled: bool
    mig_pending: bool
    profiles: tuple[Profile, ...] = ()
    instances: tuple[Instance, ...] = ()
    problem: str = ""
    pci_device_id: int = 0
    pci_subsystem_id: int = 0
    code: int = 0
    recovery_action: int | None = None

    @property
    def lost(self) -> bool:
        """Whether only a reset or a restart of the node brings the card back to work."""
        return self.code in (Code.GPU_IS_LOST, Code.RESET_REQUIRED)

    @property
    def slots(self) -> int:
        """Memory slots of the card, 0 when it told no placements."""
        return max(
            (place.start + place.size for each in self.profiles for place in each.placements),
            default=0,
        )

    def profile(self, name: str) -> Profile | None:
        """Return the profile of that name, or None."""
        return next((each for each in self.profiles if each.name == name), None)


@dataclass(frozen=True)
class Inventory:
    """All cards of a node, in NVML's order, and the versions that read them.

    ``boot_id`` tells one boot of the node's kernel from another; empty where nobody asked.
    """

    driver_version: str
    nvml_version: str
    cards: tuple[Card, ...] = ()
    boot_id: str = ""

    def card(self, uuid: str) -> Card | None:
        """Return the card of that UUID, or None."""
        return next((each for each in self.cards if each.uuid == uuid), None)


@dataclass(frozen=True)
class GpuEvent:
    """Something the driver reported about a card, or about one instance on it.

    ``xid`` is the XID number of NVIDIA's error catalogue, None for an event of another ``kind``;
    ``recovery_action`` is what the driver asked to be done with the card then, as of :class:`Card`.
    """

    card_uuid: str
    kind: str
    xid: int | None = None
    gi_id: int | None = None
    ci_id: int | None = None
    recovery_action: int | None = None
