"""Which notices users want and which not, in the lease database."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.tables import notice_choices
from jupyterhub_migspawner.db.transaction import Transaction

_C = notice_choices.c
_OF_USER = sa.and_(_C.hub == sa.bindparam("of_hub"), _C.username == sa.bindparam("user"))
_SELECT = sa.select(_C.topic, _C.wanted).where(_OF_USER)


def _upsert(insert: postgresql.Insert | sqlite.Insert) -> postgresql.Insert | sqlite.Insert:
    return insert.on_conflict_do_update(
        index_elements=[_C.hub, _C.username, _C.topic],
        set_={"wanted": insert.excluded.wanted, "changed_at": insert.excluded.changed_at},
    )


_KEEP_SQLITE = _upsert(sqlite.insert(notice_choices))
_KEEP_POSTGRES = _upsert(postgresql.insert(notice_choices))
_DROP_ALL = sa.delete(notice_choices).where(_OF_USER, _C.changed_at <= sa.bindparam("before"))
_RENAME_USER = sa.update(notice_choices).where(
    _C.hub == sa.bindparam("of_hub"),
    _C.username == sa.bindparam("old"),
    _C.changed_at <= sa.bindparam("before"),
)
_RENAME_USER = _RENAME_USER.values(username=sa.bindparam("new"))
_DROP_HUB = sa.delete(notice_choices).where(_C.hub == sa.bindparam("of_hub"))
_RENAME_HUB = sa.update(notice_choices).where(_C.hub == sa.bindparam("old"))
_RENAME_HUB = _RENAME_HUB.values(hub=sa.bindparam("new"))


def of_user(tx: Transaction, hub: str, user: str) -> dict[str, bool]:
    """Return what a user of a hub has chosen, by topic."""
    return {str(topic): bool(wanted) for topic, wanted in tx.rows(_SELECT, of_hub=hub, user=user)}


def keep(
    tx: Transaction, hub: str, user: str, topic: str, wanted: bool, changed_at: datetime
) -> None:
    """Store what a user chooses for a topic."""
    statement = _KEEP_POSTGRES if tx.postgres else _KEEP_SQLITE
    tx.change(statement, hub=hub, username=user, topic=topic, wanted=wanted, changed_at=changed_at)


def drop_all(tx: Transaction, hub: str, user: str, before: datetime) -> int:
    """Forget what a user has chosen up to ``before``; return how many choices that were."""
    return tx.change(_DROP_ALL, of_hub=hub, user=user, before=before)


def rename_user(tx: Transaction, hub: str, old: str, new: str, before: datetime) -> int:
    """Give a user's choices to another name of theirs; return how many they are.

    They replace what is left there, but not what was chosen since under the new name.
    """
    if of_user(tx, hub, old):
        drop_all(tx, hub, new, before)
        for topic in of_user(tx, hub, new):
            # Said since, under the new name: that counts.
            tx.change(
                sa.delete(notice_choices).where(_OF_USER, _C.topic == sa.bindparam("one")),
                of_hub=hub,
                user=old,
                one=topic,
            )
    return tx.change(_RENAME_USER, of_hub=hub, old=old, new=new, before=before)


def rename_hub(tx: Transaction, old: str, new: str) -> int:
    """Give the choices of a hub's users to another name of the hub; return how many they are."""
    tx.change(_DROP_HUB, of_hub=new)
    return tx.change(_RENAME_HUB, old=old, new=new)
