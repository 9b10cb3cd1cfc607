"""What the time was by each machine's count of seconds, in the lease database.

Promises that a transaction which writes knows of every step of the clock that was found before it
ends: on PostgreSQL it keeps, with a shared advisory lock, others from noting one meanwhile; SQLite
has one writer at a time.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.columns import UtcTime
from jupyterhub_migspawner.db.tables import clocks
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.policy.clock import Anchor

# Apart from the spaces of Transaction.queue_for and of the event log.
_LOCK = 7885628140

_C = clocks.c
_ALL = sa.select(_C.boot_id, _C.moment, _C.ticks, _C.awake, _C.steps).order_by(_C.boot_id)
_ONE = _ALL.where(_C.boot_id == sa.bindparam("of_boot"))
_TRY = sa.text(f"SELECT pg_try_advisory_xact_lock_shared({_LOCK})")
_WAIT = sa.text(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")
_ALONE = sa.text(f"SELECT pg_advisory_xact_lock({_LOCK})")
_FORGET_OTHERS = sa.delete(clocks).where(_C.boot_id != sa.bindparam("of_boot"))
_FORGET_OLD = sa.delete(clocks).where(_C.moment < sa.bindparam("before", type_=UtcTime()))

Upsert = postgresql.Insert | sqlite.Insert


def _keep(insert: Upsert) -> Upsert:
    names = ("moment", "ticks", "awake", "steps")
    return insert.on_conflict_do_update(
        index_elements=[_C.boot_id], set_={name: insert.excluded[name] for name in names}
    )


_KEEP_SQLITE = _keep(sqlite.insert(clocks))
_KEEP_POSTGRES = _keep(postgresql.insert(clocks))


def of_machine(tx: Transaction, boot_id: str) -> Anchor | None:
    """Return the anchor of the machine that has booted as this; None where it has none.

    The anchor holds until the transaction ends.
    """
    if tx.postgres and tx.writing:
        with tx.together() as asked:
            asked.rows(_TRY)
            asked.rows(_ONE, of_boot=boot_id)
        if not tx.first(_TRY)[0]:
            # The anchor that was read beside it may be about to change.
            tx.forget_answers()
            tx.rows(_WAIT)
    row = tx.first(_ONE, of_boot=boot_id)
    return Anchor(*row) if row else None


def lock(tx: Transaction) -> None:
    """Let no other transaction that writes go on until this one ends."""
    if tx.postgres:
        tx.rows(_ALONE)


def every(tx: Transaction) -> tuple[Anchor, ...]:
    """Return the anchors of all machines."""
    return tuple(Anchor(*row) for row in tx.rows(_ALL))


def keep(tx: Transaction, anchor: Anchor) -> None:
    """Store a machine's anchor in the place of its last one."""
    tx.change(
        _KEEP_POSTGRES if tx.postgres else _KEEP_SQLITE,
        boot_id=anchor.boot_id,
        moment=anchor.moment,
        ticks=anchor.ticks,
        awake=anchor.awake,
        steps=anchor.steps,
    )


def forget_others(tx: Transaction, boot_id: str) -> None:
    """Forget earlier boots; on SQLite there is one machine."""
    tx.change(_FORGET_OTHERS, of_boot=boot_id)


def forget_old(tx: Transaction, before: datetime) -> None:
    """Forget machines that have not been heard of since then."""
    tx.change(_FORGET_OLD, before=before)
