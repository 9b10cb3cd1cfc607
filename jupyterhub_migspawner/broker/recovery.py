"""Cards whose driver wants them reset or their node restarted.

Newer drivers report a recovery action for each card. While they want something done, nothing new
is lent on the card; leases on it go on. The drain ends when the driver wants nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.gpu.xids import recovery_advice
from jupyterhub_migspawner.model.inventory import Card

PREFIX = "The driver asks for recovery: "
"""How the reason of such a drain begins; a drain for another reason is left alone."""


def changes(
    tx: Transaction, node: str, card: Card, drained: str, now: datetime
) -> list[Callable[[], None]]:
    """Return what the card's recovery action changes.

    ``drained`` is why the card is drained, empty when it is not; ``now`` is in UTC.
    """
    if card.recovery_action is None or (drained and not drained.startswith(PREFIX)):
        return []
    advice = recovery_advice(card.recovery_action)
    why = f"{PREFIX}{advice}." if advice else ""
    if why == drained:
        return []

    def drain() -> None:
        queries.cards.update(tx, card.uuid, drained=why)
        kind = "card.drained" if why else "card.resumed"
        reason = why or "the driver no longer asks for recovery"
        queries.events.append(tx, now, node, kind, card_uuid=card.uuid, why=reason)

    return [drain]
