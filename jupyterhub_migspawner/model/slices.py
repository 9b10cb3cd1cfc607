"""Slices, as the last inventory of their node listed them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SliceRow:
    """One GPU instance with its one full compute instance, as last seen.

    Known by (card, profile, start). ``present`` is False when the last inventory did not list it or
    it is being destroyed; ``wanted`` False when its card's layout does not have it;
    ``quarantined`` is the reason it is given to nobody, or an empty string.
    """

    id: int
    node: str
    card_uuid: str
    card_index: int
    profile: str
    start: int
    size: int
    compute_slices: int
    memory_mib: int
    whole: bool
    uuid: str | None
    gi_id: int | None
    ci_id: int | None
    present: bool
    quarantined: str
    wanted: bool = True


@dataclass(frozen=True)
class SliceDevice:
    """The numbers by which the driver names the device nodes of a slice, on its node.

    ``card_minor`` is the number of the card's ``/dev/nvidiaN``. ``gi_id`` and ``ci_id`` are the ids
    of the GPU instance and of its compute instance; both are None for a card with MIG off.
    """

    card_minor: int
    gi_id: int | None
    ci_id: int | None
