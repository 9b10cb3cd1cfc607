"""The targets of cards, and which slices they keep.

A card has a base layout, and while it is given out whole, or on its way back, a target that goes
before it (:mod:`jupyterhub_migspawner.policy.layouts`). Relies on the caller holding the card's
lock; promises that the column ``wanted`` of its slices says what layout and target say.
"""

from __future__ import annotations

from datetime import datetime

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.policy.layouts import is_desired


def update_desired(tx: Transaction, card_uuid: str) -> None:
    """Record for each slice of a card whether its layout, or its target, has it."""
    record = queries.cards.by_uuid(tx, card_uuid)
    if record is None:
        return
    card = record.row
    for row in queries.slices.select(tx, card_uuid=card_uuid):
        wanted = is_desired(card, (row.profile, row.start))
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
    if card.target == card.layout:
        return  # it was given out whole as a card whose layout is that, or is on its way already
    there = {
        (r.profile, r.start) for r in queries.slices.select(tx, card_uuid=card_uuid) if r.present
    }
    if card.target is None and there == set(card.layout) and card.mig_enabled == card.mig_wanted:
        return
    layout = [list(want) for want in card.layout]
    queries.cards.update(tx, card_uuid, target=layout)
    update_desired(tx, card_uuid)
    queries.events.append(
        tx, now, actor, "card.target", card_uuid=card_uuid, target=layout, why=why
    )
