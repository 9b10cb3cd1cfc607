"""Leases in the lease database: the statements of their life.

Built once; each change of state names the states it may start from and is a single update, so that
two who change the same lease cannot both succeed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import UtcTime
from jupyterhub_migspawner.db.queries.parts import narrowed
from jupyterhub_migspawner.db.tables import leases
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.leases import (
    ACTIVE,
    LIVE,
    LOST,
    PENDING,
    RELEASED,
    RELEASING,
    LeaseRow,
)
from jupyterhub_migspawner.model.parts import Part

# In the order of the row's fields, which are called like the columns but for the user.
_COLUMNS = tuple(
    leases.c["username" if field.name == "user" else field.name] for field in fields(LeaseRow)
)

# Literal lists, as in the indexes: a database uses a partial index only when it can see that the
# condition implies the index's own.
_IS_HELD = sa.text("leases.state IN ('pending', 'active')")
_IS_LIVE = sa.text("leases.state IN ('pending', 'active', 'releasing')")

_SELECT = sa.select(*_COLUMNS)
_BY_ATTEMPT = _SELECT.where(leases.c.attempt == sa.bindparam("attempt"))
_BY_ID = _SELECT.where(leases.c.id == sa.bindparam("lease_id"))
_HELD_BY = _SELECT.where(leases.c.username == sa.bindparam("user"), _IS_HELD).order_by(leases.c.id)
_COUNTED_OF = _SELECT.where(leases.c.username == sa.bindparam("user"), _IS_LIVE).order_by(
    leases.c.id
)
_ENDED = (
    _SELECT.where(leases.c.username == sa.bindparam("user"))
    .where(leases.c.hub == sa.bindparam("of_hub"), leases.c.ticket_id.is_(None))
    .where(leases.c.ended_at >= sa.bindparam("ended", type_=UtcTime()))
    .order_by(leases.c.ended_at.desc(), leases.c.id.desc())
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
_INSERT = sa.insert(leases).returning(leases.c.id)
_INSERT_NUMBERED = sa.insert(leases).inline()
_NEXT_ID = sa.text("SELECT nextval(pg_get_serial_sequence('leases', 'id'))")
_CHANGE = sa.update(leases).where(leases.c.id == sa.bindparam("lease_id"))
_ACTIVATE = (
    _CHANGE.where(leases.c.state == PENDING)
    .values(state=ACTIVE, deadline=None)
    .returning(*_COLUMNS)
)
_ADOPT = (
    _CHANGE.where(leases.c.state == PENDING, leases.c.ticket_id.is_not(None))
    .values(
        attempt=sa.bindparam("by_attempt"),
        server=sa.bindparam("for_server"),
        since=sa.bindparam("now", type_=UtcTime()),
        deadline=sa.bindparam("until", type_=UtcTime()),
        ends_at=sa.bindparam("end", type_=UtcTime()),
        request_id=sa.bindparam("grant_id"),
        started=sa.bindparam("begun", type_=UtcTime()),
        ticket_id=sa.null(),
    )
    .returning(*_COLUMNS)
)
_ISOLATE = (
    _CHANGE.where(_IS_HELD).values(isolation=sa.bindparam("by_isolation")).returning(*_COLUMNS)
)
_RENEW = (
    _CHANGE.where(leases.c.state == PENDING)
    .values(deadline=sa.bindparam("until", type_=UtcTime()))
    .returning(*_COLUMNS)
)
_RELEASE = (
    _CHANGE.where(_IS_HELD)
    .values(
        state=RELEASING,
        deadline=None,
        releasing_at=sa.bindparam("now", type_=UtcTime()),
        end_reason=sa.bindparam("why"),
    )
    .returning(*_COLUMNS)
)
_SHORTEN = (
    _CHANGE.where(_IS_HELD)
    .where(sa.or_(leases.c.ends_at.is_(None), leases.c.ends_at > sa.bindparam("until")))
    .values(ends_at=sa.bindparam("until", type_=UtcTime()), end_reason=sa.bindparam("why"))
    .returning(*_COLUMNS)
)
_ENDING = (
    sa.select(*_COLUMNS)
    .where(leases.c.state == ACTIVE, leases.c.hub == sa.bindparam("of_hub"))
    .where(leases.c.ends_at <= sa.bindparam("soon", type_=UtcTime()))
    .where(sa.or_(leases.c.warned_for.is_(None), leases.c.warned_for != leases.c.ends_at))
    .order_by(leases.c.id)
)
_WARN = (
    sa.update(leases)
    .where(leases.c.id == sa.bindparam("lease_id"))
    .where(sa.or_(leases.c.warned_for.is_(None), leases.c.warned_for != leases.c.ends_at))
    .values(warned_for=leases.c.ends_at)
)
_WAIT = (
    _CHANGE.where(leases.c.state == RELEASING)
    .values(waiting_for=sa.bindparam("why"))
    .returning(*_COLUMNS)
)
_END = (
    _CHANGE.where(leases.c.state == RELEASING)
    .values(state=RELEASED, ended_at=sa.bindparam("now", type_=UtcTime()), waiting_for="")
    .returning(*_COLUMNS)
)
_LOSE = (
    _CHANGE.where(_IS_LIVE)
    .values(
        state=LOST,
        deadline=None,
        ended_at=sa.bindparam("now", type_=UtcTime()),
        end_reason=sa.bindparam("why"),
        waiting_for="",
    )
    .returning(*_COLUMNS)
)
_LEAVE = (
    _CHANGE.where(leases.c.state == LOST, leases.c.releasing_at.is_(None))
    .values(releasing_at=sa.bindparam("now", type_=UtcTime()))
    .returning(*_COLUMNS)
)
_FILL_UUID = sa.update(leases).where(
    leases.c.slice_id == sa.bindparam("of_slice"), _IS_LIVE, leases.c.slice_uuid.is_(None)
)
_FILL_UUID = _FILL_UUID.values(slice_uuid=sa.bindparam("found_uuid"))
_FOLLOW = sa.update(leases).where(leases.c.card_uuid == sa.bindparam("of_card"), _IS_LIVE)
_FOLLOW = _FOLLOW.values(node=sa.bindparam("to_node"))

_RENAME_USER = (
    sa.update(leases)
    .where(leases.c.hub == sa.bindparam("of_hub"), leases.c.username == sa.bindparam("old"))
    .where(leases.c.since <= sa.bindparam("before"))
)
_RENAME_USER = _RENAME_USER.values(username=sa.bindparam("new"))
_RENAME_SERVER = sa.update(leases).where(
    leases.c.hub == sa.bindparam("of_hub"),
    leases.c.username == sa.bindparam("user"),
    leases.c.server == sa.bindparam("old"),
    leases.c.since <= sa.bindparam("before"),
    _IS_LIVE,
)
_RENAME_SERVER = _RENAME_SERVER.values(server=sa.bindparam("new")).returning(*_COLUMNS)
_RENAME_HUB = sa.update(leases).where(leases.c.hub == sa.bindparam("old"))
_RENAME_HUB = _RENAME_HUB.values(hub=sa.bindparam("new"))


def _one(tx: Transaction, statement: sa.Executable, **values: Any) -> LeaseRow | None:
    row = tx.first(statement, **values)
    return LeaseRow(*row) if row else None


def insert(tx: Transaction, lease: LeaseRow) -> LeaseRow:
    """Add a lease; return it with its id, a new one where it has none.

    ``leases_one_a_seat`` refuses a second lease on its seat.
    """
    values = vars(lease).copy()
    number = values.pop("id")
    values["username"] = values.pop("user")
    if not tx.postgres:
        return replace(lease, id=tx.insert(_INSERT, **values))
    # With its number known, nobody waits for the answer to the insert.
    number = number or next_id(tx)
    tx.send(_INSERT_NUMBERED, id=number, **values)
    return replace(lease, id=number)


def next_id(tx: Transaction) -> int:
    """Return the id for a lease about to be inserted; 0 where inserting it gives the id."""
    row = tx.first(_NEXT_ID) if tx.postgres else None
    return int(row[0]) if row else 0


def by_attempt(tx: Transaction, attempt: str) -> LeaseRow | None:
    """Return the lease that an attempt got; None when it got none."""
    return _one(tx, _BY_ATTEMPT, attempt=attempt)


def by_id(tx: Transaction, lease_id: int) -> LeaseRow | None:
    """Return one lease, live or past; None when there is none of that number."""
    return _one(tx, _BY_ID, lease_id=lease_id)


def held_by(tx: Transaction, user: str) -> tuple[LeaseRow, ...]:
    """Return pending and active leases of a person, without what is only offered to them."""
    return tuple(lease for lease in with_offers(tx, user) if lease.ticket_id is None)


def with_offers(tx: Transaction, user: str) -> tuple[LeaseRow, ...]:
    """Return pending and active leases of a person, and those that are held for their tickets."""
    return tuple(LeaseRow(*row) for row in tx.rows(_HELD_BY, user=user))


def counted_of(tx: Transaction, user: str) -> tuple[LeaseRow, ...]:
    """Return all that counts against a person, at every hub.

    Those are leases that are pending, active or releasing, and what is held for their tickets.
    """
    return tuple(LeaseRow(*row) for row in tx.rows(_COUNTED_OF, user=user))


def ended_since(
    tx: Transaction, hub: str, user: str, since: datetime, most: int
) -> tuple[LeaseRow, ...]:
    """Return up to ``most`` past sessions of a user of a hub that ended since, the latest first."""
    rows = tx.rows(_ENDED, of_hub=hub, user=user, ended=since, most=most)
    return tuple(LeaseRow(*row) for row in rows)


def adopt(
    tx: Transaction,
    lease_id: int,
    *,
    attempt: str,
    server: str,
    now: datetime,
    deadline: datetime,
    ends_at: datetime | None,
    request_id: int | None,
    started: datetime | None = None,
) -> LeaseRow | None:
    """Turn an offer into the pending lease of a start; None when it is no offer any more."""
    return _one(
        tx,
        _ADOPT,
        lease_id=lease_id,
        by_attempt=attempt,
        for_server=server,
        now=now,
        until=deadline,
        end=ends_at,
        grant_id=request_id,
        begun=started,
    )


def activate(tx: Transaction, lease_id: int) -> LeaseRow | None:
    """Make a pending lease active; as for all changes here, None when it is not in that state."""
    return _one(tx, _ACTIVATE, lease_id=lease_id)


def isolate(tx: Transaction, lease_id: int, isolation: str) -> LeaseRow | None:
    """Record what keeps the server of a pending or active lease off other slices."""
    return _one(tx, _ISOLATE, lease_id=lease_id, by_isolation=isolation)


def renew(tx: Transaction, lease_id: int, until: datetime) -> LeaseRow | None:
    """Give a pending lease a new deadline."""
    return _one(tx, _RENEW, lease_id=lease_id, until=until)


def release(tx: Transaction, lease_id: int, now: datetime, why: str) -> LeaseRow | None:
    """Make a pending or active lease releasing."""
    return _one(tx, _RELEASE, lease_id=lease_id, now=now, why=why)


def shorten(tx: Transaction, lease_id: int, until: datetime, why: str) -> LeaseRow | None:
    """Let a pending or active lease end at that time, or before as it would have anyway.

    ``why`` stays with it and becomes part of the reason of its end.
    """
    return _one(tx, _SHORTEN, lease_id=lease_id, until=until, why=why)


def ending(tx: Transaction, hub: str, soon: datetime) -> tuple[LeaseRow, ...]:
    """Return active leases of a hub that end soon and whose people were not warned of it.

    ``soon`` is the time by which they end; a warning of an earlier end does not count.
    """
    return tuple(LeaseRow(*row) for row in tx.rows(_ENDING, of_hub=hub, soon=soon))


def warn(tx: Transaction, lease_id: int) -> bool:
    """Record that people were warned of a lease's present end; return False if they were before."""
    return tx.change(_WARN, lease_id=lease_id) == 1


def wait(tx: Transaction, lease_id: int, why: str) -> LeaseRow | None:
    """Record why a lease is still releasing."""
    return _one(tx, _WAIT, lease_id=lease_id, why=why)


def end(tx: Transaction, lease_id: int, now: datetime) -> LeaseRow | None:
    """Make a releasing lease released."""
    return _one(tx, _END, lease_id=lease_id, now=now)


def lose(tx: Transaction, lease_id: int, now: datetime, why: str) -> LeaseRow | None:
    """Make a live lease lost: its card is gone."""
    return _one(tx, _LOSE, lease_id=lease_id, now=now, why=why)


def leave(tx: Transaction, lease_id: int, now: datetime) -> LeaseRow | None:
    """Record that the server of a lease that was lost does not run any more."""
    return _one(tx, _LEAVE, lease_id=lease_id, now=now)


def stranded(tx: Transaction, hub: str, user: str | None = None) -> tuple[LeaseRow, ...]:
    """Return leases of a hub that were lost with their card while their servers run, oldest first.

    Not those whose server has been given another since.
    """
    lost = [each for each in select(tx, hub=hub, user=user, states=(LOST,)) if each.stranded]
    if not lost:
        return ()
    held = select(tx, hub=hub, user=user, states=LIVE)
    last = {(each.user, each.server): each.id for each in held}
    return tuple(each for each in lost if last.get((each.user, each.server), 0) < each.id)


def fill_uuid(tx: Transaction, slice_id: int, slice_uuid: str) -> int:
    """Give live leases on a slice the UUID that it got after they were taken; return how many."""
    return tx.change(_FILL_UUID, of_slice=slice_id, found_uuid=slice_uuid)


def rename_user(tx: Transaction, hub: str, old: str, new: str, before: datetime) -> int:
    """Give the leases of a user of a hub to another name, past ones too; return how many.

    Leases taken after ``before`` stay.
    """
    return tx.change(_RENAME_USER, of_hub=hub, old=old, new=new, before=before)


def rename_server(
    tx: Transaction, hub: str, user: str, old: str, new: str, before: datetime
) -> tuple[LeaseRow, ...]:
    """Give the live leases of a server, taken up to ``before``, to its new name; return them."""
    rows = tx.rows(_RENAME_SERVER, of_hub=hub, user=user, old=old, new=new, before=before)
    return tuple(LeaseRow(*row) for row in rows)


def rename_hub(tx: Transaction, old: str, new: str) -> int:
    """Give all leases of a hub to another name of it; return how many they are."""
    return tx.change(_RENAME_HUB, old=old, new=new)


def follow_card(tx: Transaction, card_uuid: str, node: str) -> int:
    """Give the live leases of a card to its new node to look after; return how many they are."""
    return tx.change(_FOLLOW, of_card=card_uuid, to_node=node)


def select(
    tx: Transaction,
    *,
    include_past: bool = False,
    user: str | None = None,
    server: str | None = None,
    node: str | None = None,
    card_uuid: str | None = None,
    hub: str | None = None,
    states: Collection[str] | None = None,
    part: Part | None = None,
) -> tuple[LeaseRow, ...]:
    """Return leases, oldest first, all of them or a part.

    Live ones only unless ``include_past`` or ``states`` say otherwise.
    """
    asked = {
        "username": user,
        "server": server,
        "node": node,
        "card_uuid": card_uuid,
        "hub": hub,
    }
    wanted = {name: value for name, value in asked.items() if value is not None}
    some = None if states is None else frozenset(states)
    columns = tuple(wanted)
    if part is None:
        found = tx.rows(_selection(columns, some, include_past), **wanted)
    else:
        statement = _part(columns, some, include_past, part.before is None)
        found = tx.rows(statement, **wanted, **part.values)[::-1]
    return tuple(LeaseRow(*row) for row in found)


@lru_cache(maxsize=128)
def _part(
    columns: tuple[str, ...], states: frozenset[str] | None, include_past: bool, begins: bool
) -> sa.Select[Any]:
    return narrowed(_selection(columns, states, include_past), leases.c.id, begins)


@lru_cache(maxsize=128)
def _selection(
    columns: tuple[str, ...], states: frozenset[str] | None, include_past: bool
) -> sa.Select[Any]:
    statement = _SELECT.order_by(leases.c.id)
    if states is not None:
        among = (leases.c.state == state for state in sorted(states))
        statement = statement.where(sa.or_(sa.false(), *among))
    if not include_past if states is None else states <= set(LIVE):
        statement = statement.where(_IS_LIVE)
    for column in columns:
        statement = statement.where(leases.c[column] == sa.bindparam(column))
    return statement
