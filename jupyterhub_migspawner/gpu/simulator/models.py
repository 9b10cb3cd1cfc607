"""The cards the simulator knows: their profiles, sizes, placements and numbers.

Figures are those NVIDIA's drivers report for the models (MIG User Guide, driver 580, and
``nvidia-smi mig -lgip`` listings of real cards): memory in MiB, placements in memory slots. The
compute side of A100 and H100 has seven slices on eight memory slots, the A30 four on four.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyterhub_migspawner.errors import GpuError


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
    engines: tuple[int, int, int, int, int]  # copy, decoder, encoder, JPEG, optical flow
    auto: tuple[int, ...]

    @property
    def media(self) -> bool:
        """Whether it takes the card's media engines."""
        return "+me" in self.name


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

    @property
    def mig_capable(self) -> bool:
        """Whether the card can be cut at all."""
        return bool(self.profiles)

    def by_id(self, profile_id: int) -> GiProfile | None:
        """The profile that creation calls ``profile_id``."""
        return next((each for each in self.profiles if each.id == profile_id), None)

    def by_slot(self, slot: int) -> GiProfile | None:
        """The profile that queries call ``slot``."""
        return next((each for each in self.profiles if each.slot == slot), None)

    def by_name(self, name: str) -> GiProfile | None:
        """The profile of that name."""
        return next((each for each in self.profiles if each.name == name), None)

    def compute_profiles(self, profile: GiProfile) -> tuple[CiProfile, ...]:
        """Compute instance profiles that fit into an instance of ``profile``."""
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

_HIGH_FIRST_1G = (6, 4, 5, 0, 1, 2, 3)


def _eight_slots(
    suffixes: tuple[int, int, int, int],
    memory: tuple[int, int, int, int],
    multiprocessors: tuple[int, int, int, int, int, int],
    single_decoder: bool,
) -> tuple[GiProfile, ...]:
    """The seven profiles of an A100 or H100: sizes of 1, 2, 4 and 8 slots and their memory."""
    g1, g2, g4, g8 = suffixes
    m1, m2, m4, m8 = memory
    sm1, sm1_double, sm2, sm3, sm4, sm7 = multiprocessors
    one = (1, 1, 0, 1, 0) if single_decoder else (1, 0, 0, 0, 0)
    return (
        GiProfile(f"1g.{g1}gb", 19, 0, 1, 1, tuple(range(7)), m1, sm1, 7, one, _HIGH_FIRST_1G),
        GiProfile(
            f"1g.{g1}gb+me", 20, 7, 1, 1, tuple(range(7)), m1, sm1, 1, (1, 1, 0, 1, 1),
            _HIGH_FIRST_1G,
        ),
        GiProfile(
            f"1g.{g2}gb", 15, 9, 1, 2, (0, 2, 4, 6), m2, sm1_double, 4, (1, 1, 0, 0, 0),
            (6, 4, 0, 2),
        ),
        GiProfile(f"2g.{g2}gb", 14, 1, 2, 2, (0, 2, 4), m2, sm2, 3, (2, 1, 0, 0, 0), (4, 0, 2)),
        GiProfile(f"3g.{g4}gb", 9, 2, 3, 4, (0, 4), m4, sm3, 2, (3, 2, 0, 0, 0), (4, 0)),
        GiProfile(f"4g.{g4}gb", 5, 3, 4, 4, (0,), m4, sm4, 1, (4, 2, 0, 0, 0), (0,)),
        GiProfile(f"7g.{g8}gb", 0, 4, 7, 8, (0,), m8, sm7, 1, (7, 5, 0, 1, 1), (0,)),
    )  # fmt: skip


_A100_SM = (14, 14, 28, 42, 56, 98)
_H100_SM = (16, 26, 32, 60, 64, 132)

_A30 = (
    GiProfile("1g.6gb", 14, 0, 1, 1, (0, 1, 2, 3), 5952, 14, 4, (1, 0, 0, 0, 0), (0, 1, 2, 3)),
    GiProfile("1g.6gb+me", 21, 7, 1, 1, (0, 1, 2, 3), 5952, 14, 1, (1, 1, 0, 1, 1), (0, 1, 2, 3)),
    GiProfile("2g.12gb", 5, 1, 2, 2, (0, 2), 11968, 28, 2, (2, 2, 0, 0, 0), (0, 2)),
    GiProfile("2g.12gb+me", 6, 8, 2, 2, (0, 2), 11968, 28, 1, (2, 2, 0, 1, 1), (0, 2)),
    GiProfile("4g.24gb", 0, 3, 4, 4, (0,), 24000, 56, 1, (4, 4, 0, 1, 1), (0,)),
)

MODELS: dict[str, Model] = {
    each.key: each
    for each in (
        Model(
            key="A100-SXM4-40GB",
            name="NVIDIA A100-SXM4-40GB",
            memory_mib=40960,
            slots=8,
            max_mig_devices=7,
            chip=0x170,
            pci_device_id=0x20B010DE,
            compute_capability=(8, 0),
            slice_multiprocessors=14,
            resets_for_mig=True,
            profiles=_eight_slots((5, 10, 20, 40), (4864, 9856, 19968, 40192), _A100_SM, False),
        ),
        Model(
            key="A100-SXM4-80GB",
            name="NVIDIA A100-SXM4-80GB",
            memory_mib=81920,
            slots=8,
            max_mig_devices=7,
            chip=0x170,
            pci_device_id=0x20B210DE,
            compute_capability=(8, 0),
            slice_multiprocessors=14,
            resets_for_mig=True,
            profiles=_eight_slots((10, 20, 40, 80), (9856, 19968, 40192, 80384), _A100_SM, False),
        ),
        Model(
            key="A30",
            name="NVIDIA A30",
            memory_mib=24576,
            slots=4,
            max_mig_devices=4,
            chip=0x170,
            pci_device_id=0x20B710DE,
            compute_capability=(8, 0),
            slice_multiprocessors=14,
            resets_for_mig=True,
            profiles=_A30,
        ),
        Model(
            key="H100-80GB",
            name="NVIDIA H100 80GB HBM3",
            memory_mib=81559,
            slots=8,
            max_mig_devices=7,
            chip=0x180,
            pci_device_id=0x233010DE,
            compute_capability=(9, 0),
            slice_multiprocessors=16,
            resets_for_mig=False,
            profiles=_eight_slots((10, 20, 40, 80), (9984, 20096, 40448, 81152), _H100_SM, True),
        ),
        Model(
            key="T4",
            name="Tesla T4",
            memory_mib=15360,
            slots=0,
            max_mig_devices=0,
            chip=0x164,
            pci_device_id=0x1EB810DE,
            compute_capability=(7, 5),
            slice_multiprocessors=0,
            resets_for_mig=False,
            profiles=(),
        ),
    )
}

_SHORT_NAMES = {
    "a100": "A100-SXM4-40GB",
    "a10040gb": "A100-SXM4-40GB",
    "a10080gb": "A100-SXM4-80GB",
    "a10040": "A100-SXM4-40GB",
    "a10080": "A100-SXM4-80GB",
    "a30": "A30",
    "a3024gb": "A30",
    "h100": "H100-80GB",
    "h10080": "H100-80GB",
    "h100sxm580gb": "H100-80GB",
    "h10080gbhbm3": "H100-80GB",
}


def find_model(text: str) -> Model:
    """The model a person means by ``text``: upper or lower case, with or without dashes and vendor.

    Raises:
        GpuError: the simulator has no such model; the sentence lists those it has.
    """
    squeezed = "".join(letter for letter in text.lower() if letter.isalnum())
    squeezed = squeezed.removeprefix("nvidia").removeprefix("tesla")
    for key, model in MODELS.items():
        if squeezed in (_squeeze(key), _squeeze(model.name)):
            return model
    if squeezed in _SHORT_NAMES:
        return MODELS[_SHORT_NAMES[squeezed]]
    known = ", ".join(MODELS)
    raise GpuError(f"There is no simulated card {text[:60]!r}; the known ones are {known}.")


def _squeeze(text: str) -> str:
    letters = "".join(letter for letter in text.lower() if letter.isalnum())
    return letters.removeprefix("nvidia").removeprefix("tesla")
