"""What the simulator has to know of a kind of card.

Memory is in MiB, placements are in memory slots. The figures themselves are in :mod:`.catalogue`.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyterhub_migspawner.model.inventory import Engines


@dataclass(frozen=True)
class GiProfile:
    """A GPU instance profile as the simulated driver describes it.

    ``slot`` is the number a query takes (``NVML_GPU_INSTANCE_PROFILE_*``), ``id`` what creation
    takes. ``auto`` is the order in which the driver tries the starts when nobody names one.
    """

    name: str
    id: int
    slot: int
    slices: int
    size: int
    starts: tuple[int, ...]
    memory_mib: int
    multiprocessors: int
    max_instances: int
    copy_engines: int
    engines: Engines
    auto: tuple[int, ...]


@dataclass(frozen=True)
class CiProfile:
    """A compute instance profile inside one GPU instance; ``slot`` and ``id`` are the same."""

    name: str
    id: int
    slices: int
    multiprocessors: int
    max_instances: int


@dataclass(frozen=True)
class Model:
    """A kind of card."""

    key: str
    name: str
    memory_mib: int
    slots: int
    max_mig_devices: int
    chip: int
    pci_device_id: int
    compute_capability: tuple[int, int]
    slice_multiprocessors: int
    resets_for_mig: bool
    profiles: tuple[GiProfile, ...]
    unified_memory: bool = False
    """The GPU has no memory of its own but shares the CPU's; memory queries are not supported."""

    @property
    def engines(self) -> Engines:
        """Media engines of the card: those of the profile of the whole card."""
        found = Engines()
        for each in self.profiles:
            found |= each.engines
        return found

    @property
    def mig_capable(self) -> bool:
        """Whether the card can be cut at all."""
        return bool(self.profiles)

    def by_id(self, profile_id: int) -> GiProfile | None:
        """Return the profile that creation calls ``profile_id``."""
        return next((each for each in self.profiles if each.id == profile_id), None)

    def by_slot(self, slot: int) -> GiProfile | None:
        """Return the profile that queries call ``slot``."""
        return next((each for each in self.profiles if each.slot == slot), None)

    def by_name(self, name: str) -> GiProfile | None:
        """Return the profile of that name."""
        return next((each for each in self.profiles if each.name == name), None)

    def compute_profiles(self, profile: GiProfile) -> tuple[CiProfile, ...]:
        """Return the compute instance profiles that fit into an instance of ``profile``."""
        found = []
        for ci_id, slices in _CI_SLICES.items():
            if slices > profile.slices or (slices, profile.slices) in _CI_MISSING:
                continue
            full = slices == profile.slices
            spare = full and profile.multiprocessors > slices * self.slice_multiprocessors
            # Where an instance has more multiprocessors than its slices account for, a one-slice
            # full compute instance exists twice, and only the revised one takes the spare ones.
            revised = spare and slices == 1
            found.append(
                CiProfile(
                    name=profile.name if full and not revised else f"{slices}c.{profile.name}",
                    id=ci_id,
                    slices=slices,
                    multiprocessors=(
                        profile.multiprocessors
                        if full and not revised
                        else slices * self.slice_multiprocessors
                    ),
                    max_instances=profile.slices // slices,
                )
            )
            if revised:
                found.append(
                    CiProfile(
                        name=profile.name,
                        id=_CI_REVISED,
                        slices=slices,
                        multiprocessors=profile.multiprocessors,
                        max_instances=1,
                    )
                )
        return tuple(found)


# NVML_COMPUTE_INSTANCE_PROFILE_*: the number of the profile, and its compute slices.
_CI_SLICES = {0: 1, 1: 2, 2: 3, 3: 4, 4: 7}
_CI_REVISED = 7
_CI_MISSING = {(3, 4)}  # a 4g offers compute instances of one, two and four slices
