"""New SQLite lease databases for tests, without a run of every migration for each of them.

The migrations run once in a process. Their result is kept as SQL, which each further empty database
gets: the same schema in a twentieth of the time. A database that has tables already, and every
PostgreSQL, is migrated as in production; so is what other processes do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from unittest.mock import patch

import sqlalchemy as sa

from jupyterhub_migspawner.db import migrations

_migrate: Callable[[sa.Connection], None] = migrations._migrate


@cache
def _statements() -> tuple[str, ...]:
    """What makes an empty SQLite database one of the current schema."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        _migrate(connection)
        connection.commit()
        lines = connection.connection.dbapi_connection.iterdump()  # type: ignore[union-attr]
        found = tuple(line for line in lines if line not in ("BEGIN TRANSACTION;", "COMMIT;"))
    engine.dispose()
    return found


def _create(connection: sa.Connection) -> None:
    if connection.dialect.name != "sqlite" or sa.inspect(connection).get_table_names():
        _migrate(connection)
        return
    for statement in _statements():
        connection.exec_driver_sql(statement)
    # Each database is one of its own.
    connection.exec_driver_sql("UPDATE database_identity SET identity = lower(hex(randomblob(16)))")


@contextmanager
def created_from_a_copy() -> Iterator[None]:
    """In this block, empty SQLite databases get the current schema from a copy."""
    with patch.object(migrations, "_migrate", _create):
        yield


def copy_for_good() -> None:
    """The same until this process ends."""
    patch.object(migrations, "_migrate", _create).start()
