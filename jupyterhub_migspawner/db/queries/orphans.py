"""Servers that run without a lease in this database."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.tables import orphans
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.orphans import OrphanRow

_C = orphans.c
# How they are reached is for their hub alone; the agents of nodes may not read it.
_REACH = ("url", "sealed")
_FIELDS = [each.name for each in fields(OrphanRow) if each.name not in _REACH]
_SELECT = sa.select(*(_C["username" if name == "user" else name] for name in _FIELDS)).order_by(
    _C.node, _C.username, _C.server, _C.attempt
)
_SELECT_REACH = sa.select(_C.url, _C.sealed).where(_C.attempt == sa.bindparam("of_attempt"))
_OF_ATTEMPT = _SELECT.where(_C.attempt == sa.bindparam("of_attempt"))
_OF_USER = _SELECT.where(_C.username == sa.bindparam("of_user"))
# A node does not see what another node reports: a mark that was copied there is left alone.
_INSERT_SQLITE = sqlite.insert(orphans).on_conflict_do_nothing()
_INSERT_POSTGRES = postgresql.insert(orphans).on_conflict_do_nothing()
_DELETE = sa.delete(orphans).where(_C.attempt == sa.bindparam("of_attempt"))
_PIDS = sa.update(orphans).where(_C.attempt == sa.bindparam("of_attempt"))
_UNVOUCH = (
    sa.update(orphans)
    .where(_C.hub == sa.bindparam("of_hub"), _C.username == sa.bindparam("of_user"))
    .where(_C.server == sa.bindparam("of_server"), _C.vouched)
    .values(vouched=False, found_at=sa.bindparam("ended"))
)


def every(tx: Transaction) -> tuple[OrphanRow, ...]:
    """Return all servers without a lease, by node and user."""
    return tuple(_row(row) for row in tx.rows(_SELECT))


def by_attempt(tx: Transaction, attempt: str) -> OrphanRow | None:
    """Return the server without a lease of an attempt; None when there is none."""
    row = tx.first(_OF_ATTEMPT, of_attempt=attempt)
    return _row(row) if row else None


def reach(tx: Transaction, attempt: str) -> tuple[str, str]:
    """Return the address of a server without a lease, and its sealed token; empty if unknown."""
    row = tx.first(_SELECT_REACH, of_attempt=attempt)
    return (str(row[0]), str(row[1])) if row else ("", "")


def of_user(tx: Transaction, user: str) -> tuple[OrphanRow, ...]:
    """Return the servers without a lease of a person, at every hub."""
    return tuple(_row(row) for row in tx.rows(_OF_USER, of_user=user))


def keep(tx: Transaction, orphan: OrphanRow) -> None:
    """Add a server without a lease, or replace what was known of it."""
    values = {each.name: getattr(orphan, each.name) for each in fields(OrphanRow)}
    values["username"] = values.pop("user")
    values["pids"] = list(orphan.pids)
    tx.change(_DELETE, of_attempt=orphan.attempt)
    tx.change(_INSERT_POSTGRES if tx.postgres else _INSERT_SQLITE, **values)


def note_pids(tx: Transaction, attempt: str, pids: tuple[int, ...]) -> None:
    """Record which processes a server without a lease has now."""
    tx.change(_PIDS, of_attempt=attempt, pids=list(pids))


def forget(tx: Transaction, attempt: str) -> None:
    """Forget a server that is gone, or has a lease now."""
    tx.change(_DELETE, of_attempt=attempt)


def unvouch(tx: Transaction, hub: str, user: str, server: str, now: datetime) -> int:
    """Record that a hub says its server does not run any more; return how many there were."""
    return tx.change(_UNVOUCH, of_hub=hub, of_user=user, of_server=server, ended=now)


def _row(row: Any) -> OrphanRow:
    values = dict(zip(_FIELDS, row, strict=True))
    values["pids"] = tuple(int(pid) for pid in values["pids"])
    return OrphanRow(**values)
