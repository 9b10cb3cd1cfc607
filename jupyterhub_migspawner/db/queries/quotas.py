"""Exceptions from quotas in the lease database."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.queries.parts import narrowed
from jupyterhub_migspawner.db.tables import quota_exceptions
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.quotas import QuotaExceptionRow

_C = quota_exceptions.c
_SELECT = sa.select(
    _C.id,
    _C.username,
    _C.field,
    _C.amount,
    _C.reason,
    _C.granted_by,
    _C.granted_at,
    _C.until,
    _C.ended_by,
    _C.ended_at,
    _C.hub,
)
_BY_ID = _SELECT.where(_C.id == sa.bindparam("exception_id")).with_for_update()
_OF_USER = _SELECT.where(_C.username == sa.bindparam("user")).order_by(_C.id)
_ALL = _SELECT.order_by(_C.id)
_HOLDS = sa.and_(_C.until > sa.bindparam("now"), _C.ended_at.is_(None))
_HOLDING_OF_USER = _OF_USER.where(_HOLDS)
_HOLDING = _ALL.where(_HOLDS)
_INSERT = sa.insert(quota_exceptions).returning(_C.id)
_END = sa.update(quota_exceptions).where(
    _C.id == sa.bindparam("exception_id"), _C.ended_at.is_(None)
)
_RENAME_USER = sa.update(quota_exceptions).where(
    _C.hub == sa.bindparam("of_hub"),
    _C.username == sa.bindparam("old"),
    _C.granted_at <= sa.bindparam("before"),
)
_RENAME_USER = _RENAME_USER.values(username=sa.bindparam("new"))
_RENAME_HUB = sa.update(quota_exceptions).where(_C.hub == sa.bindparam("old"))
_RENAME_HUB = _RENAME_HUB.values(hub=sa.bindparam("new"))


def insert(tx: Transaction, **values: Any) -> int:
    """Add an exception; return its id."""
    return tx.insert(_INSERT, ended_by="", ended_at=None, **values)


def by_id(tx: Transaction, exception_id: int) -> QuotaExceptionRow | None:
    """Return one exception, locked until the transaction ends."""
    row = tx.first(_BY_ID, exception_id=exception_id)
    return QuotaExceptionRow(*row) if row else None


def select(
    tx: Transaction, user: str | None, holding_at: datetime | None, part: Part | None = None
) -> tuple[QuotaExceptionRow, ...]:
    """Return exceptions of a person or of all, oldest first, all of them or a part.

    With a time only those that hold then.
    """
    wanted: dict[str, Any] = {} if user is None else {"user": user}
    if holding_at is not None:
        wanted["now"] = holding_at
    if part is None:
        rows = tx.rows(_selection(user is not None, holding_at is not None), **wanted)
    else:
        statement = _part(user is not None, holding_at is not None, part.before is None)
        rows = tx.rows(statement, **wanted, **part.values)[::-1]
    return tuple(QuotaExceptionRow(*row) for row in rows)


def _selection(of_user: bool, holding: bool) -> sa.Select[Any]:
    if of_user:
        return _HOLDING_OF_USER if holding else _OF_USER
    return _HOLDING if holding else _ALL


@lru_cache(maxsize=8)
def _part(of_user: bool, holding: bool, begins: bool) -> sa.Select[Any]:
    return narrowed(_selection(of_user, holding), _C.id, begins)


def end(tx: Transaction, exception_id: int, by: str, at: datetime) -> bool:
    """End an exception before its time; return False when it has ended already."""
    return tx.change(_END, exception_id=exception_id, ended_by=by, ended_at=at) == 1


def rename_user(tx: Transaction, hub: str, old: str, new: str, before: datetime) -> int:
    """Give the exceptions of a user of a hub to another name; return how many they are.

    Exceptions granted after ``before`` stay.
    """
    return tx.change(_RENAME_USER, of_hub=hub, old=old, new=new, before=before)


def rename_hub(tx: Transaction, old: str, new: str) -> int:
    """Give all exceptions of a hub to another name of it; return how many they are."""
    return tx.change(_RENAME_HUB, old=old, new=new)
