"""Whether sessions are in use, in the lease database: readings, and what holds an end off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.tables import leases, readings, stays
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.leases import LOST
from jupyterhub_migspawner.model.sessions import ReadingRow, StayRow

_R = readings.c
_READ = sa.select(
    _R.lease_id,
    _R.source,
    _R.seen_at,
    _R.active_at,
    _R.fingerprint,
    _R.said,
    _R.problem,
    _R.active_since,
).order_by(_R.lease_id, _R.source)
_READ_ONE = _READ.where(_R.lease_id == sa.bindparam("lease_id"))

_S = stays.c
_STAYS = sa.select(
    _S.lease_id,
    _S.url,
    _S.sealed,
    _S.extended_until,
    _S.protected_until,
    _S.protected_by,
    _S.protected_why,
    _S.warned_at,
    _S.alerted_at,
    _S.told_until,
    _S.silent_since,
    _S.silent_at,
    _S.alerted_for,
)
_STAY = _STAYS.where(_S.lease_id == sa.bindparam("of_lease"))
_CHANGE = sa.update(stays).where(_S.lease_id == sa.bindparam("of_lease"))

Upsert = postgresql.Insert | sqlite.Insert


def _keep(insert: Upsert) -> Upsert:
    names = ("seen_at", "active_at", "fingerprint", "said", "problem", "active_since")
    return insert.on_conflict_do_update(
        index_elements=[_R.lease_id, _R.source],
        set_={name: insert.excluded[name] for name in names},
    )


_KEEP_SQLITE = _keep(sqlite.insert(readings))
_KEEP_POSTGRES = _keep(postgresql.insert(readings))
_STAY_SQLITE = sqlite.insert(stays).on_conflict_do_nothing()
_STAY_POSTGRES = postgresql.insert(stays).on_conflict_do_nothing()

_ALIVE = sa.select(leases.c.id).where(
    sa.or_(
        sa.text("leases.state IN ('pending', 'active', 'releasing')"),
        # The server of one that was lost runs on, and its person is notified there.
        sa.and_(leases.c.state == LOST, leases.c.releasing_at.is_(None)),
    )
)
_FORGET_ONE = sa.delete(readings).where(
    _R.lease_id == sa.bindparam("of_lease"), _R.source == sa.bindparam("of_source")
)
_FORGET_READINGS = sa.delete(readings).where(_R.lease_id.not_in(_ALIVE))
_FORGET_STAYS = sa.delete(stays).where(_S.lease_id.not_in(_ALIVE))
_EMPTY = {"url": "", "sealed": "", "protected_by": "", "protected_why": ""}


def of_all(tx: Transaction) -> dict[int, tuple[ReadingRow, ...]]:
    """Return all readings there are, by lease."""
    found: dict[int, list[ReadingRow]] = {}
    for row in tx.rows(_READ):
        found.setdefault(int(row[0]), []).append(ReadingRow(*row))
    return {lease_id: tuple(rows) for lease_id, rows in found.items()}


def of_lease(tx: Transaction, lease_id: int) -> tuple[ReadingRow, ...]:
    """Return the readings of one lease."""
    return tuple(ReadingRow(*row) for row in tx.rows(_READ_ONE, lease_id=lease_id))


def keep(tx: Transaction, rows: Iterable[ReadingRow]) -> None:
    """Store what sources say, in the place of what they said before."""
    statement = _KEEP_POSTGRES if tx.postgres else _KEEP_SQLITE
    for row in rows:
        tx.change(
            statement,
            lease_id=row.lease_id,
            source=row.source,
            seen_at=row.seen_at,
            active_at=row.active_at,
            fingerprint=row.fingerprint,
            said=row.said,
            problem=row.problem,
            active_since=row.active_since,
        )


def forget(tx: Transaction, lease_id: int, source: str) -> None:
    """Discard what a source said that is none any more."""
    tx.change(_FORGET_ONE, of_lease=lease_id, of_source=source)


def stays_of_all(tx: Transaction) -> dict[int, StayRow]:
    """Return what is known of every session, by lease."""
    return {int(row[0]): StayRow(*row) for row in tx.rows(_STAYS)}


def stay(tx: Transaction, lease_id: int) -> StayRow:
    """Return what is known of the session of a lease."""
    row = tx.first(_STAY, of_lease=lease_id)
    return StayRow(*row) if row else StayRow(lease_id)


def change(tx: Transaction, lease_id: int, **values: Any) -> None:
    """Store something about the session of a lease."""
    statement = _STAY_POSTGRES if tx.postgres else _STAY_SQLITE
    tx.change(statement, lease_id=lease_id, **_EMPTY)
    tx.change(_CHANGE, of_lease=lease_id, **values)


def forget_ended(tx: Transaction) -> None:
    """Forget what is known of sessions that are over; why they ended is in their events."""
    tx.change(_FORGET_READINGS)
    tx.change(_FORGET_STAYS)
