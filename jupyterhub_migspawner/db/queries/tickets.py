"""The waiting list in the lease database."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import UtcTime
from jupyterhub_migspawner.db.queries.parts import narrowed
from jupyterhub_migspawner.db.tables import hubs, tickets
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.tickets import OPEN, WAITING, TicketRow

_C = tickets.c
_COLUMNS = (
    _C.id,
    _C.hub,
    _C.username,
    _C.server,
    _C.tier,
    _C.tiers,
    _C.start,
    _C.state,
    _C.created_at,
    _C.blocked,
    _C.overtaken,
    _C.offer_until,
    _C.ended_at,
    _C.end_reason,
)
_TIERS = [column.name for column in _COLUMNS].index("tiers")

# Literal, as in the indexes.
_IS_OPEN = sa.text("tickets.state IN ('waiting', 'offered')")
_SELECT = sa.select(*_COLUMNS)
_BY_ID = _SELECT.where(_C.id == sa.bindparam("ticket_id"))
_OF_USER = _SELECT.where(
    _C.hub == sa.bindparam("of_hub"), _C.username == sa.bindparam("user"), _IS_OPEN
).order_by(_C.id)
# Whose hub is not there to offer them anything does not keep others waiting.
_SERVED = (
    _SELECT.join(hubs, hubs.c.name == _C.hub)
    .where(_IS_OPEN, _C.state == WAITING, hubs.c.seen_at >= sa.bindparam("heard_since"))
    .order_by(_C.id)
)
_INSERT = sa.insert(tickets).returning(_C.id)
_UPDATE = sa.update(tickets).where(
    _C.id == sa.bindparam("ticket_id"), _C.state == sa.bindparam("was")
)
_OVERTAKE = sa.update(tickets).where(_C.id == sa.bindparam("ticket_id"), _C.state == WAITING)
_OVERTAKE = _OVERTAKE.values(overtaken=_C.overtaken + 1)
_RENAME_USER = sa.update(tickets).where(
    _C.hub == sa.bindparam("of_hub"),
    _C.username == sa.bindparam("old"),
    _C.created_at <= sa.bindparam("before", type_=UtcTime()),
)
_RENAME_USER = _RENAME_USER.values(username=sa.bindparam("new"))
_RENAME_SERVER = sa.update(tickets).where(
    _C.hub == sa.bindparam("of_hub"),
    _C.username == sa.bindparam("user"),
    _C.server == sa.bindparam("old"),
    _C.created_at <= sa.bindparam("before", type_=UtcTime()),
    _IS_OPEN,
)
_RENAME_SERVER = _RENAME_SERVER.values(server=sa.bindparam("new")).returning(*_COLUMNS)
_RENAME_HUB = sa.update(tickets).where(_C.hub == sa.bindparam("old"))
_RENAME_HUB = _RENAME_HUB.values(hub=sa.bindparam("new"))


def _row(row: Any) -> TicketRow:
    values = list(row)
    values[_TIERS] = tuple(values[_TIERS])
    return TicketRow(*values)


def insert(tx: Transaction, **values: Any) -> int:
    """Add a waiting ticket; return its id."""
    return tx.insert(
        _INSERT,
        state=WAITING,
        blocked="",
        overtaken=0,
        offer_until=None,
        ended_at=None,
        end_reason="",
        **values,
    )


def by_id(tx: Transaction, ticket_id: int) -> TicketRow | None:
    """Return one ticket; a caller that changes it queues for its person first."""
    row = tx.first(_BY_ID, ticket_id=ticket_id)
    return _row(row) if row else None


def open_of_user(tx: Transaction, hub: str, user: str) -> tuple[TicketRow, ...]:
    """Return what a user of a hub waits for or is offered, oldest first."""
    return tuple(_row(row) for row in tx.rows(_OF_USER, of_hub=hub, user=user))


def served(tx: Transaction, heard_since: datetime) -> tuple[TicketRow, ...]:
    """Return all waiting tickets of hubs that have been heard of since, blocked ones too."""
    return tuple(_row(row) for row in tx.rows(_SERVED, heard_since=heard_since))


def change(tx: Transaction, ticket_id: int, was: str, **changes: Any) -> bool:
    """Change a ticket that is in state ``was``; return False when it no longer is."""
    return tx.change(_UPDATE, ticket_id=ticket_id, was=was, **changes) == 1


def overtake(tx: Transaction, ticket_id: int) -> None:
    """Count that a later ticket was served before this one."""
    tx.change(_OVERTAKE, ticket_id=ticket_id)


def rename_user(tx: Transaction, hub: str, old: str, new: str, before: datetime) -> int:
    """Give the tickets of a user of a hub to another name; return how many they are.

    Tickets taken after ``before`` stay.
    """
    return tx.change(_RENAME_USER, of_hub=hub, old=old, new=new, before=before)


def rename_server(
    tx: Transaction, hub: str, user: str, old: str, new: str, before: datetime
) -> tuple[TicketRow, ...]:
    """Give the open tickets for a server to its other name; return them.

    Tickets taken after ``before`` stay.
    """
    rows = tx.rows(_RENAME_SERVER, of_hub=hub, user=user, old=old, new=new, before=before)
    return tuple(_row(row) for row in rows)


def rename_hub(tx: Transaction, old: str, new: str) -> int:
    """Give all tickets of a hub to another name of it; return how many they are."""
    return tx.change(_RENAME_HUB, old=old, new=new)


def select(
    tx: Transaction,
    *,
    hub: str | None = None,
    user: str | None = None,
    states: Collection[str] | None = None,
    part: Part | None = None,
) -> tuple[TicketRow, ...]:
    """Return tickets, oldest first, all of them or a part; open ones unless asked otherwise."""
    wanted = {"hub": hub, "username": user}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    among = frozenset(OPEN if states is None else states)
    if part is None:
        found = tx.rows(_selection(tuple(wanted), among), **wanted)
    else:
        statement = _part(tuple(wanted), among, part.before is None)
        found = tx.rows(statement, **wanted, **part.values)[::-1]
    return tuple(_row(row) for row in found)


@lru_cache(maxsize=64)
def _part(columns: tuple[str, ...], states: frozenset[str], begins: bool) -> sa.Select[Any]:
    return narrowed(_selection(columns, states), _C.id, begins)


@lru_cache(maxsize=64)
def _selection(columns: tuple[str, ...], states: frozenset[str]) -> sa.Select[Any]:
    statement = _SELECT.order_by(_C.id)
    statement = statement.where(sa.or_(sa.false(), *(_C.state == s for s in sorted(states))))
    if states <= set(OPEN):
        statement = statement.where(_IS_OPEN)
    for column in columns:
        statement = statement.where(_C[column] == sa.bindparam(column))
    return statement
