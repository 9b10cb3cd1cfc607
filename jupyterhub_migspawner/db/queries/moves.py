"""Move all stored times that still matter when the clock is set.

A step of the clock gives the same moments other names. So the times of everything that is not over
move by the same amount: how long a session has been idle, how long it still has and who has waited
longer stay as they were, and a clock that is set wrong and back again changes nothing. What is over
keeps its times.

:data:`MOVED` and :data:`LEFT` name every column that holds a time; a test compares them with the
schema.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db import tables
from jupyterhub_migspawner.db.columns import UtcTime
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.policy.clock import moved

LATELY = timedelta(days=8)
"""Leases that ended within so long still count in the hours of a week."""

_NOW = sa.bindparam("now", type_=UtcTime())
_LATELY = sa.bindparam("lately", type_=UtcTime())
_LIVE = sa.text("leases.state IN ('pending', 'active', 'releasing')")
_OPEN = sa.text("requests.state IN ('pending', 'approved')")
_GRANT = sa.text("requests.state = 'approved'")
_WAITING = sa.text("tickets.state IN ('waiting', 'offered')")


@dataclass(frozen=True)
class Times:
    """Columns of some rows of a table that hold times.

    ``warned`` are those of warnings that people got: they are cleared, so that people are warned
    again, unless the step is too small for that.
    """

    table: sa.Table
    columns: tuple[str, ...]
    where: sa.ColumnElement[bool] | sa.TextClause | None = None
    warned: tuple[str, ...] = ()
    select: sa.Select[Any] = field(init=False)
    update: sa.Update = field(init=False)

    def __post_init__(self) -> None:
        table, names = self.table, (*self.columns, *self.warned)
        keys = [column.name for column in table.primary_key]
        select = sa.select(*(table.c[name] for name in (*keys, *names)))
        update = sa.update(table).values(
            {name: sa.bindparam(f"new_{name}", type_=UtcTime()) for name in names}
        )
        for key in keys:
            update = update.where(table.c[key] == sa.bindparam(f"key_{key}"))
        object.__setattr__(
            self, "select", select if self.where is None else select.where(self.where)
        )
        object.__setattr__(self, "update", update)

    def change(self, tx: Transaction, new: Any, **values: Any) -> int:
        """Give each row what ``new(column, time)`` makes of its times; return how many changed."""
        keys = [column.name for column in self.table.primary_key]
        count = 0
        for row in tx.rows(self.select, **values):
            old = {name: getattr(row, name) for name in (*self.columns, *self.warned)}
            made = {name: None if at is None else new(name, at) for name, at in old.items()}
            if made != old:
                where = {f"key_{key}": getattr(row, key) for key in keys}
                tx.change(self.update, **where, **{f"new_{name}": at for name, at in made.items()})
                count += 1
        return count


MOVED = (
    Times(tables.nodes, ("heartbeat_at", "agent_at")),
    Times(tables.hubs, ("seen_at",)),
    Times(tables.clocks, ("moment",)),
    Times(tables.cards, ("problem_since", "reserved_until")),
    Times(
        tables.requests,
        ("created_at", "decided_at", "valid_until", "starts_at", "valid_from", "reminded_at"),
        _OPEN,
        ("warned_at",),
    ),
    Times(tables.drafts, ("changed_at",)),
    Times(tables.tickets, ("created_at", "offer_until", "ended_at"), _WAITING),
    Times(tables.leases, ("since", "deadline", "ends_at", "releasing_at"), _LIVE, ("warned_for",)),
    # What was used in the last week still counts for the rest of it.
    Times(
        tables.leases,
        ("since", "releasing_at", "ended_at"),
        tables.leases.c.ended_at > _LATELY,
    ),
    Times(
        tables.quota_exceptions,
        ("granted_at", "until"),
        sa.and_(
            tables.quota_exceptions.c.until > _NOW, tables.quota_exceptions.c.ended_at.is_(None)
        ),
    ),
    Times(tables.readings, ("seen_at", "active_at", "active_since")),
    Times(
        tables.stays,
        ("extended_until", "protected_until", "alerted_at", "silent_since", "silent_at"),
        None,
        ("warned_at", "told_until"),
    ),
    Times(tables.tombstones, ("at",)),
    Times(tables.orphans, ("since", "ends_at", "found_at")),
    Times(tables.action_rates, ("at",)),
)
"""What moves with the clock."""

LEFT = {
    # The log says when each thing happened by the clock of then, and is never changed.
    "events": {"at"},
    # The hub's own time, which the hub does not move either.
    "leases": {"started"},
    "orphans": {"started"},
    "quota_exceptions": {"ended_at"},
    # Nothing is ever done by these.
    "database_identity": {"made_at"},
    "notice_choices": {"changed_at"},
}
"""Times that stay as they are."""

_ENDS = (
    Times(tables.leases, ("ends_at",), sa.text("leases.state IN ('pending', 'active')")),
    # What is only offered is held until its deadline.
    Times(
        tables.leases,
        ("deadline",),
        sa.text("leases.state = 'pending' AND leases.ticket_id IS NOT NULL"),
    ),
    Times(tables.requests, ("valid_until",), _GRANT),
    Times(tables.tickets, ("offer_until",), sa.text("tickets.state = 'offered'")),
    Times(tables.cards, ("reserved_until",)),
)
_TOLD = (
    Times(tables.requests, (), _GRANT, ("warned_at",)),
    Times(tables.stays, (), None, ("warned_at", "told_until")),
)


def shift(tx: Transaction, by: timedelta, before: datetime, *, untell: bool) -> None:
    """Move all that is not over; ``before`` is what the time was by the clock before the step.

    With ``untell``, warnings of ends are forgotten, so that people are warned of the new ones.
    """
    for times in MOVED:

        def new(name: str, at: datetime, warned: Iterable[str] = times.warned) -> datetime | None:
            return None if untell and name in warned else moved(at, by)

        times.change(tx, new, **_values(times, before))


def hold(tx: Transaction, since: datetime, until: datetime) -> int:
    """Move ends between two times to the second one; return how many are held.

    No end that would have come between ``since`` and ``until`` comes before ``until``. Idle ends
    wait likewise: their people count as not warned of them.
    """
    count = 0
    for times in _ENDS:
        count += times.change(tx, lambda name, at: until if since < at < until else at)
    for times in _TOLD:
        times.change(tx, lambda name, at: None)
    return count


def _values(times: Times, before: datetime) -> dict[str, datetime]:
    if times.where is None or isinstance(times.where, sa.TextClause):
        return {}
    if times.table is tables.quota_exceptions:
        return {"now": before}
    return {"lately": moved(before, -LATELY)}
