"""Drafts of requests in the lease database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import drafts
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.requests import DraftRow

_C = drafts.c
_SELECT = sa.select(
    _C.id, _C.hub, _C.username, _C.tier, _C.hours, _C.starts_at, _C.reason, _C.changed_at
)
_OF_USER = _SELECT.where(
    _C.hub == sa.bindparam("of_hub"), _C.username == sa.bindparam("user")
).order_by(_C.id)
_OF_HUB = sa.and_(_C.hub == sa.bindparam("of_hub"), _C.username == sa.bindparam("user"))
_ONE = _SELECT.where(_C.id == sa.bindparam("draft_id"), _OF_HUB)
_INSERT = sa.insert(drafts).returning(_C.id)
_UPDATE = sa.update(drafts).where(_C.id == sa.bindparam("draft_id"), _OF_HUB)
_DELETE = sa.delete(drafts).where(_C.id == sa.bindparam("draft_id"), _OF_HUB)
_DELETE_ALL = sa.delete(drafts).where(_OF_HUB, _C.changed_at <= sa.bindparam("before"))
_RENAME_USER = sa.update(drafts).where(
    _C.hub == sa.bindparam("of_hub"),
    _C.username == sa.bindparam("old"),
    _C.changed_at <= sa.bindparam("before"),
)
_RENAME_USER = _RENAME_USER.values(username=sa.bindparam("new"))
_RENAME_HUB = sa.update(drafts).where(_C.hub == sa.bindparam("old"))
_RENAME_HUB = _RENAME_HUB.values(hub=sa.bindparam("new"))


def of_user(tx: Transaction, hub: str, user: str) -> tuple[DraftRow, ...]:
    """Return the drafts of a user of a hub, oldest first."""
    return tuple(DraftRow(*row) for row in tx.rows(_OF_USER, of_hub=hub, user=user))


def by_id(tx: Transaction, hub: str, user: str, draft_id: int) -> DraftRow | None:
    """Return one draft of a user; None where it is another's."""
    row = tx.first(_ONE, of_hub=hub, user=user, draft_id=draft_id)
    return DraftRow(*row) if row else None


def insert(tx: Transaction, **values: Any) -> int:
    """Add a draft; return its id."""
    return tx.insert(_INSERT, **values)


def change(tx: Transaction, hub: str, user: str, draft_id: int, **values: Any) -> bool:
    """Replace a draft; return False when there is none of that number."""
    return tx.change(_UPDATE, of_hub=hub, user=user, draft_id=draft_id, **values) == 1


def drop(tx: Transaction, hub: str, user: str, draft_id: int) -> bool:
    """Discard a draft; return False when there is none of that number."""
    return tx.change(_DELETE, of_hub=hub, user=user, draft_id=draft_id) == 1


def drop_all(tx: Transaction, hub: str, user: str, before: datetime) -> int:
    """Discard what a user has begun up to ``before``; return how many drafts that were."""
    return tx.change(_DELETE_ALL, of_hub=hub, user=user, before=before)


def rename_user(tx: Transaction, hub: str, old: str, new: str, before: datetime) -> int:
    """Give the drafts of a user of a hub to another name; return how many they are."""
    return tx.change(_RENAME_USER, of_hub=hub, old=old, new=new, before=before)


def rename_hub(tx: Transaction, old: str, new: str) -> int:
    """Give all drafts of a hub to another name of it; return how many they are."""
    return tx.change(_RENAME_HUB, old=old, new=new)
