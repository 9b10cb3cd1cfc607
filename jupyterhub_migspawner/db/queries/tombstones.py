"""Attempts that were cancelled before they had a lease, in the lease database."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import tombstones
from jupyterhub_migspawner.db.transaction import Transaction

_REASON = sa.select(tombstones.c.reason).where(tombstones.c.attempt == sa.bindparam("name"))
_BURY = sa.insert(tombstones)
_FORGET = sa.delete(tombstones).where(tombstones.c.at < sa.bindparam("before"))


def reason(tx: Transaction, attempt: str) -> str | None:
    """Return why an attempt was cancelled before it had a lease, or None."""
    row = tx.first(_REASON, name=attempt)
    return str(row[0]) if row else None


def bury(tx: Transaction, attempt: str, why: str, at: datetime) -> None:
    """Remember that an attempt was cancelled."""
    tx.change(_BURY, attempt=attempt, reason=why, at=at)


def forget(tx: Transaction, before: datetime) -> int:
    """Drop tombstones whose attempts cannot be running any more; return how many they were."""
    return tx.change(_FORGET, before=before)
