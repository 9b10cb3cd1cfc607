"""What a node's cards are and how they are cut: plain values, read from NVML and compared by value.

Nothing here talks to a driver. Sizes are MiB; a card's memory slots are numbered from 0, and an
instance occupies ``size`` of them from ``start``. Names of profiles are the driver's own, without
the ``MIG`` prefix some drivers put before them.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyterhub_migspawner.gpu.codes import Code


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
        """Whether both want a slot in common."""
        return self.start < other.start + other.size and other.start < self.start + self.size


@dataclass(frozen=True)
class Profile:
    """A MIG size a card offers.

    ``id`` is what NVML's create call takes (19 for a 1g on an A100) and means another profile on
    another model. ``placements`` are all the card knows, whether free or taken now. ``media`` tells
    the profiles that take the card's media engines, of which one instance may exist at a time.
    ``whole`` is true when the profile covers every memory slot of its card.
    """

    name: str
    id: int
    compute_slices: int
    memory_mib: int
    multiprocessors: int
    max_instances: int
    placements: tuple[Placement, ...]
    media: bool = False
    whole: bool = False

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
    for a card that fell off the bus before this process ever read it. ``pci_device_id`` holds
    device and vendor as NVML gives them (0x20B010DE is an A100-SXM4-40GB). ``code`` is NVML's
    answer behind the problem, 0 where it is none of NVML's.
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
    code: int = 0

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
        """The profile of that name, or None."""
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
        """The card of that UUID, or None."""
        return next((each for each in self.cards if each.uuid == uuid), None)


@dataclass(frozen=True)
class GpuEvent:
    """Something the driver reported about a card, or about one instance on it.

    ``xid`` is the XID number of NVIDIA's error catalogue, None for an event of another ``kind``.
    """

    card_uuid: str
    kind: str
    xid: int | None = None
    gi_id: int | None = None
    ci_id: int | None = None


def mark_whole(profiles: tuple[Profile, ...]) -> frozenset[int]:
    """Ids of those profiles that cover as many memory slots as the largest one does."""
    largest = max((each.size for each in profiles), default=0)
    return frozenset(each.id for each in profiles if largest and each.size == largest)
