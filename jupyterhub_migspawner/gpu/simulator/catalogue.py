"""The cards the simulator knows: their profiles, sizes, placements and numbers.

Figures are those NVIDIA's drivers report for the models: the MIG User Guide (driver 580) and
``nvidia-smi mig -lgip`` listings of real cards, whose GiB are exact multiples of MiB. The compute
side of A100, H100, H200, GH200 and B200 has seven slices on eight memory slots, the A30 has four on
four, and the RTX PRO 6000 four on twelve. Of the B200 no listing shows the memory of the three
largest profiles; theirs are two and four times the memory of the 2g profile.
"""

from __future__ import annotations

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.simulator.models import GiProfile, Model
from jupyterhub_migspawner.model.inventory import Engines
from jupyterhub_migspawner.policy.card_filter import normalized

_HIGH_FIRST_1G = (6, 4, 5, 0, 1, 2, 3)
_SEVEN = tuple(range(7))


def _seven_slices(
    names: tuple[int, int, int, int],
    memory: tuple[int, int, int, int],
    multiprocessors: tuple[int, int, int, int, int, int],
    engines: tuple[Engines, Engines, Engines, Engines, Engines, Engines, Engines],
    copy: tuple[int, int, int, int, int],
) -> tuple[GiProfile, ...]:
    """Return the profiles of a card with seven compute slices on eight memory slots.

    ``names`` and ``memory`` (MiB) are for sizes of 1, 2, 4 and 8 slots; ``multiprocessors`` for 1g,
    1g with twice the memory, 2g, 3g, 4g and 7g; ``engines`` the same with 1g+me after 1g; ``copy``
    engines for 1g, 2g, 3g, 4g and 7g.
    """
    n1, n2, n4, n8 = names
    m1, m2, m4, m8 = memory
    sm1, sm1_double, sm2, sm3, sm4, sm7 = multiprocessors
    e1, e1_media, e1_double, e2, e3, e4, e7 = engines
    c1, c2, c3, c4, c7 = copy
    high = _HIGH_FIRST_1G
    return (
        GiProfile(f"1g.{n1}gb", 19, 0, 1, 1, _SEVEN, m1, sm1, 7, c1, e1, high),
        GiProfile(f"1g.{n1}gb+me", 20, 7, 1, 1, _SEVEN, m1, sm1, 1, c1, e1_media, high),
        GiProfile(
            f"1g.{n2}gb", 15, 9, 1, 2, (0, 2, 4, 6), m2, sm1_double, 4, c1, e1_double, (6, 4, 0, 2)
        ),
        GiProfile(f"2g.{n2}gb", 14, 1, 2, 2, (0, 2, 4), m2, sm2, 3, c2, e2, (4, 0, 2)),
        GiProfile(f"3g.{n4}gb", 9, 2, 3, 4, (0, 4), m4, sm3, 2, c3, e3, (4, 0)),
        GiProfile(f"4g.{n4}gb", 5, 3, 4, 4, (0,), m4, sm4, 1, c4, e4, (0,)),
        GiProfile(f"7g.{n8}gb", 0, 4, 7, 8, (0,), m8, sm7, 1, c7, e7, (0,)),
    )


_A100_SM = (14, 14, 28, 42, 56, 98)
_A100_COPY = (1, 2, 3, 4, 7)
_A100_ENGINES = (
    Engines(),
    Engines(decoders=1, jpeg=1, optical_flow=1),
    Engines(decoders=1),
    Engines(decoders=1),
    Engines(decoders=2),
    Engines(decoders=2),
    Engines(decoders=5, jpeg=1, optical_flow=1),
)
_A100_40 = _seven_slices(
    (5, 10, 20, 40), (4864, 9856, 19968, 40192), _A100_SM, _A100_ENGINES, _A100_COPY
)
_A100_80 = _seven_slices(
    (10, 20, 40, 80), (9856, 19968, 40192, 80384), _A100_SM, _A100_ENGINES, _A100_COPY
)

_HOPPER_SM = (16, 26, 32, 60, 64, 132)
_HOPPER_COPY = (1, 2, 3, 4, 8)
_BLACKWELL_SM = (18, 30, 36, 70, 72, 148)
_BLACKWELL_COPY = (2, 4, 6, 8, 16)
# A decoder and a JPEG engine for each compute slice, and one optical flow engine for all.
_ONE_EACH = (
    Engines(decoders=1, jpeg=1),
    Engines(decoders=1, jpeg=1, optical_flow=1),
    Engines(decoders=1, jpeg=1),
    Engines(decoders=2, jpeg=2),
    Engines(decoders=3, jpeg=3),
    Engines(decoders=4, jpeg=4),
    Engines(decoders=7, jpeg=7, optical_flow=1),
)

_A30_STARTS = (0, 1, 2, 3)
_A30 = (
    GiProfile("1g.6gb", 14, 0, 1, 1, _A30_STARTS, 5952, 14, 4, 1, Engines(), _A30_STARTS),
    GiProfile(
        "1g.6gb+me", 21, 7, 1, 1, _A30_STARTS, 5952, 14, 1, 1,
        Engines(decoders=1, jpeg=1, optical_flow=1), _A30_STARTS,
    ),
    GiProfile("2g.12gb", 5, 1, 2, 2, (0, 2), 11968, 28, 2, 2, Engines(decoders=2), (0, 2)),
    GiProfile(
        "2g.12gb+me", 6, 8, 2, 2, (0, 2), 11968, 28, 1, 2,
        Engines(decoders=2, jpeg=1, optical_flow=1), (0, 2),
    ),
    GiProfile(
        "4g.24gb", 0, 3, 4, 4, (0,), 24000, 56, 1, 4,
        Engines(decoders=4, jpeg=1, optical_flow=1), (0,),
    ),
)  # fmt: skip

_ALL_ENGINES = Engines(decoders=4, encoders=4, jpeg=4, optical_flow=1)
_QUARTERS, _HALVES = (0, 3, 6, 9), (0, 6)


def _quarter(suffix: str, id: int, slot: int, most: int, engines: Engines) -> GiProfile:
    """Return a 1g profile of the RTX PRO 6000."""
    name = f"1g.24gb{suffix}"
    return GiProfile(name, id, slot, 1, 3, _QUARTERS, 24192, 46, most, 1, engines, _QUARTERS)


def _half(suffix: str, id: int, slot: int, most: int, engines: Engines) -> GiProfile:
    """Return a 2g profile of the RTX PRO 6000."""
    name = f"2g.48gb{suffix}"
    return GiProfile(name, id, slot, 2, 6, _HALVES, 48512, 94, most, 2, engines, _HALVES)


_RTX_PRO_6000 = (
    _quarter("", 14, 0, 4, Engines(1, 1, 1, 0)),
    _quarter("+me", 21, 7, 1, Engines(1, 1, 1, 1)),
    _quarter("+gfx", 47, 10, 4, Engines(1, 1, 1, 0)),
    _quarter("+me.all", 65, 15, 1, _ALL_ENGINES),
    _quarter("-me", 67, 13, 4, Engines()),
    _half("", 5, 1, 2, Engines(2, 2, 2, 0)),
    _half("+gfx", 35, 11, 2, Engines(2, 2, 2, 0)),
    _half("+me.all", 64, 16, 1, _ALL_ENGINES),
    _half("-me", 66, 14, 2, Engines()),
    GiProfile("4g.96gb", 0, 3, 4, 12, (0,), 97280, 188, 1, 4, _ALL_ENGINES, (0,)),
    GiProfile("4g.96gb+gfx", 32, 12, 4, 12, (0,), 97280, 188, 1, 4, _ALL_ENGINES, (0,)),
)


def _ampere(
    key: str, name: str, device: int, memory_mib: int, profiles: tuple[GiProfile, ...]
) -> Model:
    """Return a card of the A100's chip."""
    slots = max(start + each.size for each in profiles for start in each.starts)
    return Model(
        key=key,
        name=name,
        memory_mib=memory_mib,
        slots=slots,
        max_mig_devices=min(slots, 7),
        chip=0x170,
        pci_device_id=device << 16 | 0x10DE,
        compute_capability=(8, 0),
        slice_multiprocessors=14,
        resets_for_mig=True,
        profiles=profiles,
    )


def _seven(
    key: str,
    name: str,
    device: int,
    memory_mib: int,
    names: tuple[int, int, int, int],
    memory: tuple[int, int, int, int],
    *,
    blackwell: bool = False,
) -> Model:
    """Return a card of the H100's chip or of the B200's."""
    return Model(
        key=key,
        name=name,
        memory_mib=memory_mib,
        slots=8,
        max_mig_devices=7,
        chip=0x1A0 if blackwell else 0x180,
        pci_device_id=device << 16 | 0x10DE,
        compute_capability=(10, 0) if blackwell else (9, 0),
        slice_multiprocessors=18 if blackwell else 16,
        resets_for_mig=False,
        profiles=_seven_slices(
            names,
            memory,
            _BLACKWELL_SM if blackwell else _HOPPER_SM,
            _ONE_EACH,
            _BLACKWELL_COPY if blackwell else _HOPPER_COPY,
        ),
    )


def _uncut(
    key: str,
    name: str,
    device: int,
    memory_mib: int,
    capability: tuple[int, int],
    *,
    unified_memory: bool = False,
) -> Model:
    """Return a card without MIG."""
    return Model(
        key=key,
        name=name,
        memory_mib=memory_mib,
        slots=0,
        max_mig_devices=0,
        chip=device >> 4,
        pci_device_id=device << 16 | 0x10DE,
        compute_capability=capability,
        slice_multiprocessors=0,
        resets_for_mig=False,
        profiles=(),
        unified_memory=unified_memory,
    )


MODELS: dict[str, Model] = {
    each.key: each
    for each in (
        _ampere("A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB", 0x20B0, 40960, _A100_40),
        _ampere("A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", 0x20B2, 81920, _A100_80),
        _ampere("A100-PCIE-40GB", "NVIDIA A100-PCIE-40GB", 0x20F1, 40960, _A100_40),
        _ampere("A100-PCIE-80GB", "NVIDIA A100 80GB PCIe", 0x20B5, 81920, _A100_80),
        _ampere("A30", "NVIDIA A30", 0x20B7, 24576, _A30),
        _seven(
            "H100-80GB", "NVIDIA H100 80GB HBM3", 0x2330, 81559,
            (10, 20, 40, 80), (9984, 20096, 40448, 81152),
        ),
        _seven(
            "H200", "NVIDIA H200", 0x2335, 143771,
            (18, 35, 71, 141), (16384, 33024, 71168, 143104),
        ),
        _seven(
            "GH200", "NVIDIA GH200 480GB", 0x2342, 97871,
            (12, 24, 48, 96), (11264, 23552, 47616, 95232),
        ),
        _seven(
            "B200", "NVIDIA B200", 0x2901, 183359,
            (23, 45, 90, 180), (22528, 45312, 90624, 181248), blackwell=True,
        ),
        Model(
            key="RTX-PRO-6000",
            name="NVIDIA RTX PRO 6000 Blackwell Server Edition",
            memory_mib=97887,
            slots=12,
            max_mig_devices=4,
            chip=0x1B2,
            pci_device_id=0x2BB510DE,
            compute_capability=(12, 0),
            slice_multiprocessors=46,
            resets_for_mig=False,
            profiles=_RTX_PRO_6000,
        ),
        _uncut("T4", "Tesla T4", 0x1EB8, 15360, (7, 5)),
        _uncut("GB10", "NVIDIA GB10", 0x2E12, 0, (12, 1), unified_memory=True),
    )
}  # fmt: skip

_SHORT_NAMES = {
    "a100": "A100-SXM4-40GB",
    "a10040gb": "A100-SXM4-40GB",
    "a10080gb": "A100-SXM4-80GB",
    "a10040": "A100-SXM4-40GB",
    "a10080": "A100-SXM4-80GB",
    "a100pcie": "A100-PCIE-40GB",
    "a3024gb": "A30",
    "h100": "H100-80GB",
    "h10080": "H100-80GB",
    "h100sxm580gb": "H100-80GB",
    "h200141gb": "H200",
    "gh20096gb": "GH200",
    "b200180gb": "B200",
    "rtxpro6000blackwell": "RTX-PRO-6000",
}


def find_model(text: str) -> Model:
    """Return the model that ``text`` names; case, dashes and the vendor do not matter.

    Raises :exc:`.GpuError` when the simulator has no such model; the sentence lists those it has.
    """
    squeezed = _squeeze(text)
    for key, model in MODELS.items():
        if squeezed in (_squeeze(key), _squeeze(model.name)):
            return model
    if squeezed in _SHORT_NAMES:
        return MODELS[_SHORT_NAMES[squeezed]]
    known = ", ".join(MODELS)
    raise GpuError(f"There is no simulated card {text[:60]!r}; the known ones are {known}.")


def _squeeze(text: str) -> str:
    # Models are also named in one word, as in options of the command line: A10080.
    return "".join(normalized(text).split())
