"""The event log: append-only, one row for every change of a lease, request, card or slice.

Written in the transaction that makes the change, so that neither exists without the other.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.leases.kinds import KINDS
from jupyterhub_migspawner.leases.rows import EventRow
from jupyterhub_migspawner.leases.schema import events
from jupyterhub_migspawner.leases.store import Transaction

_INSERT = sa.insert(events)

_COLUMNS = (
    events.c.id,
    events.c.at,
    events.c.actor,
    events.c.kind,
    events.c.username,
    events.c.lease_id,
    events.c.card_uuid,
    events.c.request_id,
    events.c.detail,
)

_AFTER = (
    sa.select(*_COLUMNS)
    .where(events.c.id > sa.bindparam("after_id"))
    .order_by(events.c.id)
    .limit(sa.bindparam("most"))
)


def append(
    tx: Transaction,
    at: datetime,
    actor: str,
    kind: str,
    *,
    user: str = "",
    lease_id: int | None = None,
    card_uuid: str | None = None,
    request_id: int | None = None,
    **detail: Any,
) -> None:
    """Add one event; ``detail`` has to be JSON-ready and says why.

    Raises ``ValueError`` for a kind that :data:`.kinds.KINDS` does not know.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of event {kind!r}")
    tx.change(
        _INSERT,
        at=at,
        actor=actor,
        kind=kind,
        username=user,
        lease_id=lease_id,
        card_uuid=card_uuid,
        request_id=request_id,
        detail=detail,
    )


def after(tx: Transaction, after_id: int, limit: int) -> tuple[EventRow, ...]:
    """Up to ``limit`` events with a larger id than ``after_id``, oldest first."""
    return tuple(EventRow(*row) for row in tx.rows(_AFTER, after_id=after_id, most=limit))
