"""Which database this is, and how far it has come.

A lease database has a random identity and a generation, which a restore raises. With the newest
lease and event they make its :class:`Position`: what was read once is never higher than what is
read later, unless the database was deleted, emptied, or replaced by another one or by an older copy
of itself. Such a database knows nothing of slices that are in use, and must not lend them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import database_identity
from jupyterhub_migspawner.errors import DatabaseError

POSITION = (
    "SELECT identity, generation, (SELECT max(id) FROM leases), (SELECT max(id) FROM events) "
    "FROM database_identity"
)
"""The position, in SQL that both databases understand."""

NEXT = (
    "Nothing is given out from it, and running servers keep running. If it is the wrong "
    "database, stop the hub, restore the right one (`migspawner db restore FILE` for a backup) "
    "and start the hub. To continue with this one, restart the hub: slices of servers that it "
    "does not know stay quarantined until `migspawner leases adopt`."
)
"""What to do about a database that was replaced."""


@dataclass(frozen=True)
class Position:
    """How far a database has come: its newest ``lease`` and ``event``, 0 before the first."""

    identity: str
    generation: int
    lease: int = 0
    event: int = 0


class Replaced(DatabaseError):
    """The database is not the one that this process has used."""


def position_of(row: Any) -> Position | None:
    """Return the position in a row of :data:`POSITION`; None for a database without identity."""
    if row is None:
        return None
    identity, generation, lease, event = row
    return Position(str(identity), int(generation), int(lease or 0), int(event or 0))


def difference(before: Position, found: Position | None) -> str:
    """Return why ``found`` cannot be what came of ``before``; empty when it can."""
    if found is None:
        return "it is empty"
    if found.identity != before.identity:
        return "it is another database"
    if found.generation > before.generation:
        return "it was restored from a backup in the meantime"
    if found.generation < before.generation:
        return "it is a copy from before the last restore"
    if found.lease < before.lease or found.event < before.event:
        return (
            f"it is an older copy (newest lease {found.lease}, newest event {found.event}; "
            f"this process has seen lease {before.lease} and event {before.event})"
        )
    return ""


def replaced(name: str, why: str) -> Replaced:
    """Return the error to raise for a database that is not the one that was used."""
    return Replaced(
        f"The lease database {name} is not the one that this process has used: {why}. {NEXT}"
    )


def has_no_table(error: Exception) -> bool:
    """Tell whether a driver's error says that a table is missing."""
    return getattr(error, "sqlstate", "") == "42P01" or "no such table" in str(error)


def has_no_identity(error: Exception) -> bool:
    """Tell whether a driver's error says that the table of :data:`POSITION` is missing."""
    return has_no_table(error) and database_identity.name in str(error)


def ensure(connection: sa.Connection) -> None:
    """Give a database without identity one: a new database, or one emptied by hand."""
    if connection.execute(sa.select(database_identity.c.id)).first() is None:
        connection.execute(
            sa.insert(database_identity).values(
                id=1,
                identity=secrets.token_hex(16),
                generation=1,
                made_at=datetime.now(timezone.utc),
            )
        )
