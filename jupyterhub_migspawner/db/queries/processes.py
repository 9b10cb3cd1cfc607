"""Processes of sessions, in the lease database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.tables import leases, processes
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.processes import ProcessesRow

_P = processes.c
_ALL = sa.select(_P.lease_id, _P.uid, _P.boot_id, _P.known, _P.reported)
_OF_NODE = _ALL.join(leases, leases.c.id == _P.lease_id).where(
    leases.c.node == sa.bindparam("of_node")
)
_ONE = _ALL.where(_P.lease_id == sa.bindparam("of_lease"))
_CHANGE = sa.update(processes).where(_P.lease_id == sa.bindparam("of_lease"))
_ADD_SQLITE = sqlite.insert(processes).on_conflict_do_nothing()
_ADD_POSTGRES = postgresql.insert(processes).on_conflict_do_nothing()
_FORGET = sa.delete(processes).where(
    sa.exists().where(
        leases.c.id == _P.lease_id,
        sa.or_(leases.c.state == "released", leases.c.ended_at < sa.bindparam("ended_before")),
    )
)
_EMPTY: dict[str, Any] = {"boot_id": "", "known": [], "reported": []}


def of_node(tx: Transaction, node: str) -> dict[int, ProcessesRow]:
    """Return what is known of the sessions of a node, by lease."""
    return {int(row[0]): _row(row) for row in tx.rows(_OF_NODE, of_node=node)}


def of_lease(tx: Transaction, lease_id: int) -> ProcessesRow:
    """Return what is known of the processes of a lease's session."""
    row = tx.first(_ONE, of_lease=lease_id)
    return _row(row) if row else ProcessesRow(lease_id)


def change(tx: Transaction, lease_id: int, **values: Any) -> None:
    """Store something about the processes of a lease's session."""
    tx.change(_ADD_POSTGRES if tx.postgres else _ADD_SQLITE, lease_id=lease_id, **_EMPTY)
    tx.change(_CHANGE, of_lease=lease_id, **values)


def forget_ended(tx: Transaction, ended_before: datetime) -> None:
    """Forget sessions whose slice was proven empty, and those that ended before that time."""
    tx.change(_FORGET, ended_before=ended_before)


def _row(row: Any) -> ProcessesRow:
    known = tuple((int(pid), int(started)) for pid, started in row[3])
    return ProcessesRow(int(row[0]), row[1], row[2], known, tuple(int(uid) for uid in row[4]))
