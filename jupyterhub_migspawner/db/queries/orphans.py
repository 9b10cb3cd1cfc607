"""Servers that run without a lease in this database."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import orphans
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.orphans import OrphanRow

_C = orphans.c
_SELECT = sa.select(
    *(_C["username" if each.name == "user" else each.name] for each in fields(OrphanRow))
).order_by(_C.node, _C.username, _C.server, _C.attempt)
_OF_ATTEMPT = _SELECT.where(_C.attempt == sa.bindparam("of_attempt"))
_OF_USER = _SELECT.where(_C.username == sa.bindparam("of_user"))
_INSERT = sa.insert(orphans)
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


def of_user(tx: Transaction, user: str) -> tuple[OrphanRow, ...]:
    """Return the servers without a lease of a person, at every hub."""
    return tuple(_row(row) for row in tx.rows(_OF_USER, of_user=user))


def keep(tx: Transaction, orphan: OrphanRow) -> None:
    """Add a server without a lease, or replace what was known of it."""
    values = {each.name: getattr(orphan, each.name) for each in fields(OrphanRow)}
    values["username"] = values.pop("user")
    values["pids"] = list(orphan.pids)
    tx.change(_DELETE, of_attempt=orphan.attempt)
    tx.change(_INSERT, **values)


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
    values = list(row)
    at = [each.name for each in fields(OrphanRow)].index("pids")
    values[at] = tuple(int(pid) for pid in values[at])
    return OrphanRow(*values)
