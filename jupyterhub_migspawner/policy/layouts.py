"""The desired state of a card now, which slices belong to it, and whether it has been reached.

A card has a base layout, and while it is given out whole, or on its way back, a target that goes
before it.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyterhub_migspawner.model.cards import MIG_OFF, CardRow, Layout, Want


@dataclass(frozen=True)
class Desired:
    """The desired state of a card: cut into ``wants``, with MIG on or off."""

    wants: Layout
    mig: bool


def desired(card: CardRow, *, given_whole: bool) -> Desired | None:
    """Return the desired state of the card, or None when it is to be left as it is.

    ``given_whole`` says that a live lease holds all of it. Left alone is also a card whose layout
    nobody has set, when it never had slices or is drained: an admin may be at work on it.
    """
    if card.state == "lost":
        return None
    if card.target == (MIG_OFF,):
        return Desired((), False)
    if card.target is not None:
        back = card.target == card.layout
        return Desired(card.target, card.mig_wanted if back else True)
    if given_whole or (not card.layout_by and (not card.layout or card.state == "draining")):
        return None
    return Desired(card.layout, card.mig_wanted)


def is_reached(card: CardRow, present: set[Want]) -> bool:
    """Tell whether the slices that are there, and the card's mode, are what its target says."""
    if card.target is None:
        return False
    if card.target == (MIG_OFF,):
        return MIG_OFF in present and not card.mig_enabled
    mig = card.mig_wanted if card.target == card.layout else True
    return present - {MIG_OFF} == set(card.target) and card.mig_enabled == mig


def is_desired(card: CardRow, want: Want) -> bool:
    """Tell whether a slice of the card is in its target, or else in its layout.

    Every slice is, while the card has neither: nobody has set a layout, and none was found.
    """
    if card.target is not None:
        return want in card.target
    uncut = want == MIG_OFF and not card.mig_wanted
    undecided = not card.layout and not card.layout_by
    return undecided or uncut or want in card.layout


def is_going_back(card: CardRow) -> bool:
    """Tell whether a card that was given out whole is being cut into its base layout again."""
    return card.state == "ok" and not card.problem and card.target == card.layout
