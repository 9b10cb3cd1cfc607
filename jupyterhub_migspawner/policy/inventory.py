"""An inventory of a node's cards: which card is meant where the driver did not say, and is it dead.

A card that fails before its UUID was read is still listed, at its index; were it taken for a
card that is gone, its leases would be lost for a passing error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import Card, Inventory

DEAD_AFTER = timedelta(minutes=10)
"""How long a card may answer with errors alone before the leases on it are lost."""


def recognise(found: Inventory, known: Sequence[CardRow]) -> Inventory:
    """Fill in what is known for cards of an inventory that told no UUID, by their index."""
    told = {card.uuid for card in found.cards}
    left = {row.index: row for row in known if row.uuid not in told and row.state != "lost"}
    # One that is lost already may answer so for days; any other at its index goes before it.
    for row in known:
        if row.uuid not in told:
            left.setdefault(row.index, row)
    return replace(
        found,
        cards=tuple(
            _filled(card, left[card.index]) if not card.uuid and card.index in left else card
            for card in found.cards
        ),
    )


def _filled(card: Card, row: CardRow) -> Card:
    return replace(
        card,
        uuid=row.uuid,
        model=row.model,
        memory_mib=row.memory_mib,
        mig_capable=row.whole is not None or bool(row.layout) or row.mig_enabled,
        mig_enabled=row.mig_enabled,
        mig_pending=row.mig_enabled,
        problem=card.problem.replace(f"Card {card.index}:", f"Card {card.index} ({row.uuid}):", 1),
    )


def is_dead(card: Card, since: datetime | None, now: datetime) -> bool:
    """Tell whether nothing can work on the card any more; ``since`` is when its problem began.

    Fallen off the bus, waiting for a reset, or answering with nothing but errors for
    :data:`DEAD_AFTER`. That this process may not ask says nothing about the card.
    """
    if card.lost:
        return True
    if not card.problem or card.code in (0, Code.NO_PERMISSION):
        return False
    return since is not None and now - since >= DEAD_AFTER
