"""Requests and grants in the lease database.

Every change of state names the state it starts from, so that of two deciders one finds nothing to
change.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import UtcTime
from jupyterhub_migspawner.db.queries.parts import narrowed
from jupyterhub_migspawner.db.tables import requests
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.requests import RequestRow

_SELECT = sa.select(
    requests.c.id,
    requests.c.username,
    requests.c.tier,
    requests.c.hours,
    requests.c.reason,
    requests.c.state,
    requests.c.created_at,
    requests.c.decided_by,
    requests.c.decided_at,
    requests.c.decision_reason,
    requests.c.valid_until,
    requests.c.hub,
    requests.c.groups,
    requests.c.starts_at,
    requests.c.valid_from,
    requests.c.first_by,
    requests.c.uses,
)
_GROUPS = [column.name for column in _SELECT.selected_columns].index("groups")

# Literal, as in the index: then a person's past requests are not looked at.
_IS_OPEN = sa.text("requests.state IN ('pending', 'approved')")

_LOOK = _SELECT.where(requests.c.id == sa.bindparam("request_id"))
_BY_ID = _LOOK.with_for_update()
_LOCK_USER = (
    sa.select(requests.c.id)
    .where(requests.c.hub == sa.bindparam("of_hub"), requests.c.username == sa.bindparam("old"))
    .order_by(requests.c.id)
    .with_for_update()
)

# The grant that lasts longest; locked, so that it is not cancelled while a lease is taken on it.
_GRANT = (
    _SELECT.where(
        requests.c.username == sa.bindparam("user"),
        requests.c.tier == sa.bindparam("tier"),
        requests.c.state == "approved",
        _IS_OPEN,
        requests.c.valid_until > sa.bindparam("now"),
        sa.or_(requests.c.valid_from.is_(None), requests.c.valid_from <= sa.bindparam("now")),
    )
    .order_by(requests.c.valid_until.desc(), requests.c.id)
    .with_for_update()
)

_OPEN_OF_USER = _SELECT.where(requests.c.username == sa.bindparam("user"), _IS_OPEN).order_by(
    requests.c.id
)

_STALE = (
    _SELECT.where(
        sa.or_(
            sa.and_(
                requests.c.state == "pending",
                requests.c.created_at <= sa.bindparam("created_before"),
            ),
            sa.and_(requests.c.state == "approved", requests.c.valid_until <= sa.bindparam("now")),
        )
    )
    .order_by(requests.c.id)
    .with_for_update(skip_locked=True)
)

_OPEN_OF_HUB = (
    _SELECT.where(
        requests.c.hub == sa.bindparam("hub"),
        requests.c.username == sa.bindparam("user"),
        requests.c.created_at <= sa.bindparam("before"),
        _IS_OPEN,
    )
    .order_by(requests.c.id)
    .with_for_update()
)
_RENAME_USER = (
    sa.update(requests)
    .where(requests.c.hub == sa.bindparam("of_hub"), requests.c.username == sa.bindparam("old"))
    .where(requests.c.created_at <= sa.bindparam("before"))
)
_RENAME_USER = _RENAME_USER.values(username=sa.bindparam("new"))
_RENAME_FIRST = sa.update(requests).where(
    requests.c.hub == sa.bindparam("of_hub"),
    requests.c.first_by == sa.bindparam("old"),
    requests.c.created_at <= sa.bindparam("before"),
)
_RENAME_FIRST = _RENAME_FIRST.values(first_by=sa.bindparam("new"))
_RENAME_HUB = sa.update(requests).where(requests.c.hub == sa.bindparam("old"))
_RENAME_HUB = _RENAME_HUB.values(hub=sa.bindparam("new"))

_INSERT = sa.insert(requests).returning(requests.c.id)

_MOVE = sa.update(requests).where(
    requests.c.id == sa.bindparam("request_id"), requests.c.state == sa.bindparam("was")
)


_OVERDUE = _SELECT.where(
    requests.c.state == "pending",
    requests.c.reminded_at.is_(None),
    requests.c.created_at <= sa.bindparam("created_before"),
).order_by(requests.c.id)
_ENDING = _SELECT.where(
    requests.c.state == "approved",
    requests.c.warned_at.is_(None),
    requests.c.valid_until <= sa.bindparam("ends_before"),
).order_by(requests.c.id)
_REMIND = sa.update(requests).where(
    requests.c.id == sa.bindparam("request_id"),
    requests.c.state == "pending",
    requests.c.reminded_at.is_(None),
)
_REMIND = _REMIND.values(reminded_at=sa.bindparam("now", type_=UtcTime()))
_WARN = sa.update(requests).where(
    requests.c.id == sa.bindparam("request_id"),
    requests.c.state == "approved",
    requests.c.warned_at.is_(None),
)
_WARN = _WARN.values(warned_at=sa.bindparam("now", type_=UtcTime()))
_COMING = _SELECT.where(
    requests.c.state == "approved", requests.c.valid_from > sa.bindparam("now")
).order_by(requests.c.valid_from, requests.c.id)
_USE = sa.update(requests).where(requests.c.id == sa.bindparam("request_id"))
_USE = _USE.values(uses=requests.c.uses + 1).returning(requests.c.uses)


def _row(row: Any) -> RequestRow:
    values = list(row)
    values[_GROUPS] = tuple(values[_GROUPS])
    return RequestRow(*values)


def overdue(tx: Transaction, created_before: datetime) -> tuple[RequestRow, ...]:
    """Return pending requests made up to then whose approvers were not reminded yet."""
    return tuple(_row(row) for row in tx.rows(_OVERDUE, created_before=created_before))


def ending(tx: Transaction, ends_before: datetime) -> tuple[RequestRow, ...]:
    """Return grants that end by then, and whose users were not warned yet."""
    return tuple(_row(row) for row in tx.rows(_ENDING, ends_before=ends_before))


def remind(tx: Transaction, request_id: int, now: datetime) -> bool:
    """Record that approvers are reminded of a pending request; return False if they were before."""
    return tx.change(_REMIND, request_id=request_id, now=now) == 1


def warn(tx: Transaction, request_id: int, now: datetime) -> bool:
    """Record that a grant's user is warned of its end; return False when they were before."""
    return tx.change(_WARN, request_id=request_id, now=now) == 1


def coming(tx: Transaction, now: datetime) -> tuple[RequestRow, ...]:
    """Return requests that are approved and will be grants, the soonest first."""
    return tuple(_row(row) for row in tx.rows(_COMING, now=now))


def use(tx: Transaction, request_id: int) -> int:
    """Count one more server that has run on a grant; return how many by now."""
    return int(tx.first(_USE, request_id=request_id)[0])


def insert(tx: Transaction, **values: Any) -> int:
    """Add a pending request; return its id."""
    return tx.insert(
        _INSERT,
        state="pending",
        decided_by="",
        decided_at=None,
        decision_reason="",
        valid_until=None,
        **values,
    )


def look(tx: Transaction, request_id: int) -> RequestRow | None:
    """Return the request, for a caller that holds a card already and must not wait for it."""
    row = tx.first(_LOOK, request_id=request_id)
    return _row(row) if row else None


def by_id(tx: Transaction, request_id: int) -> RequestRow | None:
    """Return the request, locked until the transaction ends."""
    row = tx.first(_BY_ID, request_id=request_id)
    return _row(row) if row else None


def grants(tx: Transaction, user: str, tier: str, now: datetime) -> tuple[RequestRow, ...]:
    """Return the valid grants of a person for a tier, longest first, locked."""
    return tuple(_row(row) for row in tx.rows(_GRANT, user=user, tier=tier, now=now))


def open_of_user(tx: Transaction, user: str) -> tuple[RequestRow, ...]:
    """Return pending and approved requests of a person; approved ones may be past their time."""
    return tuple(_row(row) for row in tx.rows(_OPEN_OF_USER, user=user))


def open_of_hub(tx: Transaction, hub: str, user: str, before: datetime) -> tuple[RequestRow, ...]:
    """Return what :func:`open_of_user` does, of one hub and made up to ``before``; locked."""
    rows = tx.rows(_OPEN_OF_HUB, hub=hub, user=user, before=before)
    return tuple(_row(row) for row in rows)


def rename_user(tx: Transaction, hub: str, old: str, new: str, before: datetime) -> int:
    """Give the requests of a user of a hub to another name; return how many they are.

    Requests made after ``before`` stay.
    """
    # In the order in which everybody locks several.
    tx.rows(_LOCK_USER, of_hub=hub, old=old)
    # Who was the first to approve stays the same person, who cannot be the second as well.
    tx.change(_RENAME_FIRST, of_hub=hub, old=old, new=new, before=before)
    return tx.change(_RENAME_USER, of_hub=hub, old=old, new=new, before=before)


def rename_hub(tx: Transaction, old: str, new: str) -> int:
    """Give all requests of a hub to another name of it; return how many they are."""
    return tx.change(_RENAME_HUB, old=old, new=new)


def stale(tx: Transaction, now: datetime, created_before: datetime) -> tuple[RequestRow, ...]:
    """Return grants past their time and requests nobody decided about, locked."""
    found = tx.rows(_STALE, now=now, created_before=created_before)
    return tuple(_row(row) for row in found)


def move(tx: Transaction, request_id: int, was: str, **changes: Any) -> bool:
    """Change a request that is in state ``was``; return False when it no longer is."""
    return tx.change(_MOVE, request_id=request_id, was=was, **changes) == 1


def select(
    tx: Transaction,
    user: str | None,
    states: Collection[str] | None,
    part: Part | None = None,
) -> tuple[RequestRow, ...]:
    """Return requests, oldest first, of one person or in some states; all of them or a part."""
    among = None if states is None else frozenset(states)
    wanted: dict[str, Any] = {"user": user} if user is not None else {}
    if part is None:
        found = tx.rows(_selection(user is not None, among), **wanted)
    else:
        statement = _part(user is not None, among, part.before is None)
        found = tx.rows(statement, **wanted, **part.values)[::-1]
    return tuple(_row(row) for row in found)


@lru_cache(maxsize=128)
def _part(of_user: bool, states: frozenset[str] | None, begins: bool) -> sa.Select[Any]:
    return narrowed(_selection(of_user, states), requests.c.id, begins)


@lru_cache(maxsize=128)
def _selection(of_user: bool, states: frozenset[str] | None) -> sa.Select[Any]:
    statement = _SELECT.order_by(requests.c.id)
    if of_user:
        statement = statement.where(requests.c.username == sa.bindparam("user"))
    if states is not None:
        among = (requests.c.state == state for state in sorted(states))
        statement = statement.where(sa.or_(sa.false(), *among))
        if states <= {"pending", "approved"}:
            statement = statement.where(_IS_OPEN)
    return statement
