"""The event log: append-only, one row for every change of a lease, request, card or slice.

Written in the transaction that makes the change, so that neither exists without the other. Nothing
changes a row; only :mod:`..compaction` takes old ones out.

Promises readers an order that never changes behind them: a reader that has read up to an event
never gets one with a smaller id later. SQLite's one writer at a time gives ids in the order of
commits. On PostgreSQL two transactions may commit in the other order than they took their ids, so
one that is about to append says so with an advisory lock on the first id that it may get, which
goes when it ends; readers stop before the lowest of these.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import events
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.db.wakeups import CHANNEL
from jupyterhub_migspawner.model.events import (
    EVERYTHING,
    KINDS,
    WAKING,
    EventPage,
    EventQuery,
    EventRow,
)

BROKER = "migspawner"
"""The actor in events of what happens by itself."""

# The locks of our own, apart from those of Transaction.queue_for.
_LOCK_SPACE = 0x6D696765

# Nobody asks for the id.
_INSERT = sa.insert(events).inline()

# PostgreSQL, the first event of a transaction, in one statement: the next id is read, then locked
# (shared: two may have read the same), and only then an id is taken, which is that one or a later
# one. Nobody asks for these locks alone, so that trying always succeeds. A lock has room for the
# low half of an id.
_INSERT_ANNOUNCED = _INSERT.values(
    id=sa.literal_column(
        f"""
        CASE WHEN pg_try_advisory_xact_lock_shared(
            {_LOCK_SPACE},
            (SELECT last_value + is_called::int FROM events_id_seq)::bit(32)::int
        ) THEN nextval('events_id_seq') END
        """,
        sa.BigInteger,
    )
)
_NOTIFY = sa.text(f"SELECT pg_notify('{CHANNEL}', '')")
_TAKEN = sa.text("SELECT last_value - 1 + is_called::int FROM events_id_seq")
_ANNOUNCED = sa.text(
    f"""
    SELECT DISTINCT objid::bigint FROM pg_locks
    WHERE locktype = 'advisory' AND classid = {_LOCK_SPACE} AND objsubid = 2 AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    """
)
_LAST = sa.select(sa.func.coalesce(sa.func.max(events.c.id), 0))

_COLUMNS = (
    events.c.id,
    events.c.at,
    events.c.actor,
    events.c.kind,
    events.c.username,
    events.c.lease_id,
    events.c.card_uuid,
    events.c.request_id,
    events.c.detail,
)


def append(
    tx: Transaction,
    at: datetime,
    actor: str,
    kind: str,
    *,
    user: str = "",
    lease_id: int | None = None,
    card_uuid: str | None = None,
    request_id: int | None = None,
    **detail: Any,
) -> None:
    """Add one event; ``detail`` has to be JSON-ready and says why.

    A node also signs what its root does on the command line.
    Raises ``ValueError`` for a kind that :data:`.model.events.KINDS` does not know.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of event {kind!r}")
    if tx.node and actor not in (tx.node, BROKER):
        actor = f"{tx.node}: {actor}"
    announce = tx.postgres and not tx.announced
    tx.send(
        _INSERT_ANNOUNCED if announce else _INSERT,
        at=at,
        actor=actor,
        kind=kind,
        username=user,
        lease_id=lease_id,
        card_uuid=card_uuid,
        request_id=request_id,
        detail=detail,
    )
    tx.note_event()
    if tx.postgres and kind in WAKING and not tx.notified:
        tx.send(_NOTIFY)
        tx.notified = True


def final(tx: Transaction) -> int:
    """Return the id up to which the log will not change any more.

    On PostgreSQL each statement of a transaction sees what was committed before it, so the order
    here matters: an id that is taken by now belongs to a transaction that has announced itself
    before; where its lock is gone afterwards, it has ended, and the next statement sees its rows.
    """
    if not tx.postgres:
        return int(tx.first(_LAST)[0])
    taken = int(tx.first(_TAKEN)[0])
    announced = (taken + _signed(int(row[0]) - taken) for row in tx.rows(_ANNOUNCED))
    return min((taken, *(first - 1 for first in announced)))


def _signed(difference: int) -> int:
    """Return the difference of two ids of whose one only the low 32 bits are known."""
    return (difference + 2**31) % 2**32 - 2**31


def after(tx: Transaction, after_id: int, limit: int, query: EventQuery = EVERYTHING) -> EventPage:
    """Return up to ``limit`` events with a larger id than ``after_id``, oldest first."""
    end = final(tx)
    if end <= after_id:
        return EventPage((), after_id)
    found = _found(tx, query, events.c.id > after_id, events.c.id <= end, limit=limit)
    if len(found) < limit:
        return EventPage(found, end)
    return EventPage(found, found[-1].id if found else after_id)


def last(tx: Transaction, limit: int, query: EventQuery = EVERYTHING) -> EventPage:
    """Return the newest ``limit`` events, oldest first."""
    end = final(tx)
    found = _found(tx, query, events.c.id <= end, limit=limit, newest=True)
    return EventPage(found[::-1], end)


def _found(
    tx: Transaction,
    query: EventQuery,
    *where: sa.ColumnElement[bool],
    limit: int,
    newest: bool = False,
) -> tuple[EventRow, ...]:
    order = events.c.id.desc() if newest else events.c.id
    statement = sa.select(*_COLUMNS).where(*where, *_conditions(query)).order_by(order)
    return tuple(EventRow(*row) for row in tx.rows(statement.limit(limit)))


def _conditions(query: EventQuery) -> list[sa.ColumnElement[bool]]:
    wanted: list[sa.ColumnElement[bool]] = []
    if query.since is not None:
        wanted.append(events.c.at >= query.since)
    if query.kinds:
        kinds = {k for k in KINDS for name in query.kinds if name in (k, k.split(".")[0])}
        wanted.append(sa.or_(sa.false(), *(events.c.kind == kind for kind in sorted(kinds))))
    for column, value in (
        (events.c.username, query.user),
        (events.c.lease_id, query.lease_id),
        (events.c.card_uuid, query.card_uuid),
        (events.c.request_id, query.request_id),
    ):
        if value is not None:
            wanted.append(column == value)
    return wanted
