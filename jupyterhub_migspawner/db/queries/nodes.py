"""Nodes in the lease database, as their agents report them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.columns import UtcTime
from jupyterhub_migspawner.db.tables import nodes
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.nodes import AgentProcess, NodeRow

_SELECT = sa.select(
    nodes.c.name,
    nodes.c.heartbeat_at,
    nodes.c.driver_version,
    nodes.c.boot_id,
    nodes.c.agent,
    nodes.c.agent_at,
    nodes.c.clock_ahead,
).order_by(nodes.c.name)
_BY_NAME = _SELECT.where(nodes.c.name == sa.bindparam("node_name"))
_LOCK = _BY_NAME.with_for_update()
_HOLD = _BY_NAME.with_for_update(read=True)
_CHANGE = sa.update(nodes).where(nodes.c.name == sa.bindparam("node_name"))
_BEAT = (
    sa.update(nodes)
    .where(nodes.c.name == sa.bindparam("node_name"))
    .values(heartbeat_at=sa.bindparam("at", type_=UtcTime()))
)


def _upsert(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "heartbeat_at": insert.excluded.heartbeat_at,
            "driver_version": insert.excluded.driver_version,
            "boot_id": sa.func.coalesce(insert.excluded.boot_id, nodes.c.boot_id),
        },
    )


_HEARTBEAT_SQLITE = _upsert(sqlite.insert(nodes))
_HEARTBEAT_POSTGRES = _upsert(postgresql.insert(nodes))


def heartbeat(
    tx: Transaction, node: str, at: datetime, driver_version: str, boot_id: str = ""
) -> None:
    """Record that a node's agent is alive; add the node at first."""
    statement = _HEARTBEAT_POSTGRES if tx.postgres else _HEARTBEAT_SQLITE
    tx.change(
        statement,
        name=node,
        heartbeat_at=at,
        driver_version=driver_version,
        boot_id=boot_id or None,
    )


def beat(tx: Transaction, node: str, at: datetime) -> None:
    """Record that the agent of a node that is known is still alive."""
    tx.change(_BEAT, node_name=node, at=at)


def select(tx: Transaction) -> tuple[NodeRow, ...]:
    """Return all nodes by name."""
    return tuple(_row(row) for row in tx.rows(_SELECT))


def by_name(tx: Transaction, name: str) -> NodeRow | None:
    """Return one node, or None."""
    row = tx.first(_BY_NAME, node_name=name)
    return _row(row) if row else None


def lock(tx: Transaction, name: str) -> NodeRow | None:
    """Return one node, locked until the transaction ends, or None."""
    row = tx.first(_LOCK, node_name=name)
    return _row(row) if row else None


def hold(tx: Transaction, name: str) -> NodeRow | None:
    """Return one node whose agent stays the same until the transaction ends, or None."""
    row = tx.first(_HOLD, node_name=name)
    return _row(row) if row else None


def set_agent(tx: Transaction, name: str, agent: AgentProcess, at: datetime) -> None:
    """Record which process reports for a node, and that it does now."""
    tx.change(_CHANGE, node_name=name, agent=asdict(agent), agent_at=at)


def end_agent(tx: Transaction, name: str, agent: AgentProcess) -> None:
    """Record that a process which reported for a node has ended, unless another one does."""
    known = by_name(tx, name)
    if known is not None and known.agent == agent:
        tx.change(_CHANGE, node_name=name, agent_at=None)


def note_clock(tx: Transaction, name: str, ahead: float) -> None:
    """Record by how many seconds a node's clock is ahead of the database's."""
    tx.change(_CHANGE, node_name=name, clock_ahead=ahead)


def _row(row: Any) -> NodeRow:
    values = row._asdict()
    agent = values.pop("agent")
    return NodeRow(agent=None if agent is None else AgentProcess(**agent), **values)
