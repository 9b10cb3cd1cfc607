"""The hubs that lend from this database, and which home each name belongs to."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.tables import hubs
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.hubs import HubRow

_SELECT = sa.select(hubs.c.name, hubs.c.home, hubs.c.seen_at)
_BY_NAME = _SELECT.where(hubs.c.name == sa.bindparam("of_name"))
_BY_HOME = _SELECT.where(hubs.c.home == sa.bindparam("of_home")).order_by(hubs.c.name)
_ALL = _SELECT.order_by(hubs.c.name)
_DELETE = sa.delete(hubs).where(hubs.c.name == sa.bindparam("of_name"))


def _upsert(insert: sa.Insert) -> sa.Insert:
    changed = {"home": insert.excluded.home, "seen_at": insert.excluded.seen_at}  # type: ignore[attr-defined]
    return insert.on_conflict_do_update(index_elements=["name"], set_=changed)  # type: ignore[attr-defined,no-any-return]


_KEEP_SQLITE = _upsert(sqlite.insert(hubs))
_KEEP_POSTGRES = _upsert(postgresql.insert(hubs))


def by_name(tx: Transaction, name: str) -> HubRow | None:
    """Return the hub of that name; None when there is none."""
    row = tx.first(_BY_NAME, of_name=name)
    return HubRow(*row) if row else None


def by_home(tx: Transaction, home: str) -> tuple[HubRow, ...]:
    """Return the names that a home has had."""
    return tuple(HubRow(*row) for row in tx.rows(_BY_HOME, of_home=home))


def every(tx: Transaction) -> tuple[HubRow, ...]:
    """Return all hubs."""
    return tuple(HubRow(*row) for row in tx.rows(_ALL))


def keep(tx: Transaction, name: str, home: str, seen_at: datetime) -> None:
    """Record that a name belongs to a home, and that its hub is there."""
    statement = _KEEP_POSTGRES if tx.postgres else _KEEP_SQLITE
    tx.change(statement, name=name, home=home, seen_at=seen_at)


def forget(tx: Transaction, name: str) -> None:
    """Free a name."""
    tx.change(_DELETE, of_name=name)
