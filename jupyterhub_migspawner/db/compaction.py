"""Old events become counts: the only way out of the event log.

A count says how many events of a kind there were in a month, about which person, tier, profile and
card. Leases and requests themselves are never taken out, so that what a user used, asked for and
was given stays known to the second.

Promises that no event is counted twice or lost, however many processes compact at the same time;
that events of live leases and open requests stay, whatever their age, and so does the newest event
of all (SQLite gives its id again when it goes, and readers would miss the next one); and that a
transaction touches no more than :data:`BATCH` ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.queries.events import final
from jupyterhub_migspawner.db.tables import event_counts, event_readers, events, leases, requests
from jupyterhub_migspawner.db.transaction import Transaction

BATCH = 500
"""Ids that one transaction looks at: a few milliseconds during which nobody else writes."""

_OLD = events.c.at < sa.bindparam("before", type_=events.c.at.type)
_NEWEST_OLD = sa.select(events.c.id).where(_OLD).order_by(events.c.id.desc()).limit(1)
_NEXT = sa.select(sa.func.min(events.c.id)).where(events.c.id > sa.bindparam("after_id"))
_LIVE = sa.select(leases.c.id).where(
    sa.text("leases.state IN ('pending', 'active', 'releasing')"), leases.c.id == events.c.lease_id
)
_OPEN = sa.select(requests.c.id).where(
    sa.text("requests.state IN ('pending', 'approved')"), requests.c.id == events.c.request_id
)
_OVER = sa.and_(
    _OLD,
    events.c.id >= sa.bindparam("first"),
    events.c.id < sa.bindparam("end"),
    sa.not_(sa.exists(_LIVE)),
    sa.not_(sa.exists(_OPEN)),
)
_TAKE_OUT = (
    sa.delete(events)
    .where(_OVER)
    .returning(events.c.at, events.c.kind, events.c.username, events.c.card_uuid, events.c.detail)
)
_COUNT_OVER = sa.select(sa.func.count()).select_from(events).where(_OVER)
_COUNT_OLD = (
    sa.select(sa.func.count()).select_from(events).where(_OLD, events.c.id < sa.bindparam("end"))
)


def _upsert(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=list(event_counts.primary_key.columns),
        set_={"number": event_counts.c.number + insert.excluded.number},
    )


_ADD_SQLITE = _upsert(sqlite.insert(event_counts))
_ADD_POSTGRES = _upsert(postgresql.insert(event_counts))
_COUNTS = sa.select(event_counts).order_by(*event_counts.primary_key.columns)

_POSITION = sa.select(event_readers.c.event_id).where(
    event_readers.c.name == sa.bindparam("reader")
)


def _forward(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"event_id": insert.excluded.event_id},
        where=event_readers.c.event_id < insert.excluded.event_id,
    )


_FORWARD_SQLITE = _forward(sqlite.insert(event_readers))
_FORWARD_POSTGRES = _forward(postgresql.insert(event_readers))


@dataclass(frozen=True)
class EventCount:
    """How many events of a kind a month had; an empty text where they do not say."""

    month: str
    kind: str
    user: str
    tier: str
    profile: str
    card_uuid: str
    number: int


@dataclass(frozen=True)
class Compaction:
    """How far a compaction of the events from before a time has come.

    ``number`` of them have become counts, up to the one with id ``read_to``; those below ``end``
    are still to be looked at.
    """

    before: datetime
    end: int
    read_to: int = 0
    number: int = 0

    @property
    def done(self) -> bool:
        """Whether there is nothing left to look at."""
        return self.read_to >= self.end - 1


def begin(tx: Transaction, before: datetime) -> Compaction:
    """Return what there is to compact of the events from before that time.

    Looks at every young event, so it is for a transaction that reads. Ids and times need not agree:
    one machine with a wrong clock must not keep the others' events forever.
    """
    newest = tx.first(_NEWEST_OLD, before=before)
    # Not what another process is about to commit, either: readers have not seen it.
    return Compaction(before, 0 if newest is None else min(int(newest[0]) + 1, final(tx)))


def old(tx: Transaction, before: datetime) -> tuple[int, int]:
    """Count the events from before then that would become counts, and those that would stay."""
    end = begin(tx, before).end
    ready = int(tx.first(_COUNT_OVER, before=before, first=0, end=end)[0])
    return ready, int(tx.first(_COUNT_OLD, before=before, end=end)[0]) - ready


def go_on(tx: Transaction, so_far: Compaction) -> Compaction:
    """Turn some more events into counts; return how far that has come."""
    first = tx.first(_NEXT, after_id=so_far.read_to)[0]
    if first is None or first >= so_far.end:
        return replace(so_far, read_to=so_far.end)
    stop = min(int(first) + BATCH, so_far.end)
    taken = tx.rows(_TAKE_OUT, before=so_far.before, first=first, end=stop)
    add = _ADD_POSTGRES if tx.postgres else _ADD_SQLITE
    # In one order everywhere, so that two who compact cannot wait for each other.
    for key, number in sorted(_counted(taken).items()):
        tx.change(add, **dict(zip(_KEY, key, strict=True)), number=number)
    return replace(so_far, read_to=stop - 1, number=so_far.number + len(taken))


_KEY = ("month", "kind", "username", "tier", "profile", "card_uuid")


def _counted(taken: Iterable[Any]) -> Counter[tuple[str, ...]]:
    return Counter(
        (
            f"{row.at:%Y-%m}",
            row.kind,
            row.username,
            str(row.detail.get("tier", "")),
            str(row.detail.get("profile", "")),
            row.card_uuid or "",
        )
        for row in taken
    )


def counts(tx: Transaction) -> tuple[EventCount, ...]:
    """Return what is left of the events that were compacted, by month."""
    return tuple(EventCount(*row) for row in tx.rows(_COUNTS))


def position(tx: Transaction, reader: str) -> int | None:
    """Return the last event that a reader has passed on; None when it never did."""
    row = tx.first(_POSITION, reader=reader)
    return int(row[0]) if row else None


def move(tx: Transaction, reader: str, event_id: int) -> None:
    """Record how far a reader has come; never back."""
    tx.change(_FORWARD_POSTGRES if tx.postgres else _FORWARD_SQLITE, name=reader, event_id=event_id)
