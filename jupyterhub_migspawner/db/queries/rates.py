"""How fast each person has written lately, in the lease database."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.tables import action_rates
from jupyterhub_migspawner.db.transaction import Transaction

_C = action_rates.c
_OF_USER = sa.and_(_C.hub == sa.bindparam("of_hub"), _C.username == sa.bindparam("user"))
_SELECT = sa.select(_C.level, _C.at).where(_OF_USER)
_KEY = [_C.hub, _C.username]
_INTO_SQLITE = sqlite.insert(action_rates)
_KEEP_SQLITE = _INTO_SQLITE.on_conflict_do_update(
    index_elements=_KEY,
    set_={"level": _INTO_SQLITE.excluded.level, "at": _INTO_SQLITE.excluded.at},
)
_INTO_POSTGRES = postgresql.insert(action_rates)
_KEEP_POSTGRES = _INTO_POSTGRES.on_conflict_do_update(
    index_elements=_KEY,
    set_={"level": _INTO_POSTGRES.excluded.level, "at": _INTO_POSTGRES.excluded.at},
)
_DROP = sa.delete(action_rates).where(_OF_USER)


def of_user(tx: Transaction, hub: str, user: str) -> tuple[float, datetime] | None:
    """Return how many actions counted for a user of a hub, and when; None where none did."""
    row = tx.first(_SELECT, of_hub=hub, user=user)
    return (float(row[0]), row[1]) if row else None


def keep(tx: Transaction, hub: str, user: str, level: float, at: datetime) -> None:
    """Store how many actions count for a user of a hub now."""
    statement = _KEEP_POSTGRES if tx.postgres else _KEEP_SQLITE
    tx.change(statement, hub=hub, username=user, level=level, at=at)


def drop(tx: Transaction, hub: str, user: str) -> int:
    """Forget how fast a user of a hub has written."""
    return tx.change(_DROP, of_hub=hub, user=user)
