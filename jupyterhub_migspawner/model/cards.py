"""Cards: the row, their kinds, and the layouts they are cut into."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

Want = tuple[str, int]
"""A profile name and the memory slot at which it starts."""

Layout = tuple[Want, ...]
"""What a card is cut into, sorted by start."""

MIG_OFF: Want = ("whole", 0)
"""Stands in a card's target, and for its slice, where the card is lent with MIG off."""


class CardKind(NamedTuple):
    """What tells a card from one of another kind: its model, its memory, its MIG mode.

    The memory is in MiB; the mode is whether MIG is on, or is to be on again once the card is not
    lent without it.
    """

    model: str
    memory_mib: int
    mig: bool = True


Kinds = frozenset[CardKind]


@dataclass(frozen=True)
class CardRow:
    """One physical GPU.

    ``layout`` is the base layout it returns to, ``target`` what it is to be cut into now (None when
    it needs nothing). ``state`` is ``ok``, ``draining`` or ``lost``. ``compute_slices`` is the
    number of the card's largest profile; ``whole`` the profile and start that take all of it, None
    while unknown (MIG off, or not allowed to ask). ``mig_wanted`` is False where the layout is a
    card with MIG off; ``layout_by`` says who set the layout and is empty while it is only what was
    found. ``reserved_for`` is the grant for which the card is being emptied, or None;
    ``reserved_until`` says how long it is kept, once it is empty.
    ``drained`` is why it is drained, or empty; that holds for a lost card, too.
    ``device_minor`` is the number of its node ``/dev/nvidiaN``, None while unknown.
    ``incomplete`` says that it has GPU instances that are no slices, left from a cut that crashed.
    """

    uuid: str
    node: str
    index: int
    model: str
    memory_mib: int
    mig_enabled: bool
    state: str
    layout: Layout
    target: Layout | None
    problem: str
    compute_slices: int = 0
    whole: Want | None = None
    mig_wanted: bool = True
    layout_by: str = ""
    reserved_for: int | None = None
    reserved_until: datetime | None = None
    problem_since: datetime | None = None
    incomplete: bool = False
    drained: str = ""
    device_minor: int | None = None

    @property
    def kind(self) -> CardKind:
        """What tiers know it by."""
        return CardKind(self.model, self.memory_mib, self.mig_enabled or self.mig_wanted)
