"""The desired state of a card now, and which of its slices that keeps.

A card has a base layout, and while it is given out whole, or on its way back, a target that goes
before it. Relies on the caller holding the card's lock; promises that the column ``wanted`` of its
slices says what layout and target say.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import MIG_OFF, CardRow, Layout, Want


@dataclass(frozen=True)
class Desired:
    """The desired state of a card: cut into ``wants``, with MIG on or off."""

    wants: Layout
    mig: bool


def desired(card: CardRow, *, given_whole: bool) -> Desired | None:
    """The desired state of the card, or None when it is to be left as it is.

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
    """Whether the slices that are there, and the card's mode, are what its target says."""
    if card.target is None:
        return False
    if card.target == (MIG_OFF,):
        return MIG_OFF in present and not card.mig_enabled
    mig = card.mig_wanted if card.target == card.layout else True
    return present - {MIG_OFF} == set(card.target) and card.mig_enabled == mig


def is_going_back(card: CardRow) -> bool:
    """Whether a card that was given out whole is being cut into its base layout again."""
    return card.state == "ok" and not card.problem and card.target == card.layout


def mark_wanted(tx: Transaction, card_uuid: str) -> None:
    """Note for each slice of a card whether its layout, or its target, has it."""
    record = queries.cards.by_uuid(tx, card_uuid)
    if record is None:
        return
    card = record.row
    wants = card.layout if card.target is None else card.target
    open_to_all = card.target is None and not card.layout and not card.layout_by
    for row in queries.slices.select(tx, card_uuid=card_uuid):
        want = (row.profile, row.start)
        uncut = want == MIG_OFF and card.target is None and not card.mig_wanted
        wanted = open_to_all or uncut or want in wants
        if row.wanted != wanted:
            queries.slices.update(tx, row.id, wanted=wanted)


def back_to_layout(
    tx: Transaction, card_uuid: str, now: datetime, actor: str, why: str = "back to its layout"
) -> None:
    """Let a card that was given out whole be cut into its base layout again, unless it is so."""
    record = queries.cards.by_uuid(tx, card_uuid)
    if record is None:
        return
    card = record.row
    there = {
        (r.profile, r.start) for r in queries.slices.select(tx, card_uuid=card_uuid) if r.present
    }
    if card.target is None and there == set(card.layout) and card.mig_enabled == card.mig_wanted:
        return
    layout = [list(want) for want in card.layout]
    queries.cards.update(tx, card_uuid, target=layout)
    mark_wanted(tx, card_uuid)
    queries.events.append(
        tx, now, actor, "card.target", card_uuid=card_uuid, target=layout, why=why
    )
