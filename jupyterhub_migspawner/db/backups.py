"""Copies of the lease database: backup, restore, and the move to another kind of database.

A backup is a SQLite file, whichever database it is of, so that every tool that this project needs
comes with it. Of SQLite it is made by SQLite's own online backup, of PostgreSQL from one snapshot;
both while the hub runs. Promises that a copy is readable for its owner only, made where nobody else
can put a file beside it (SQLite would open a log that lay there), and sound before it has its name;
that a restore replaces all or nothing, keeps what it replaces beside it, and gives what it puts
there a new generation, so that nobody takes it for what they have seen before.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from jupyterhub_migspawner.db import backup_files, identity, migrations, roles, soundness, urls
from jupyterhub_migspawner.db.engine import WRITING, database_error, make_engine
from jupyterhub_migspawner.db.tables import database_identity, metadata
from jupyterhub_migspawner.errors import DatabaseError

ROWS = 500
"""Rows that are held in memory at a time."""

_OTHERS = sa.text(
    "SELECT pid, client_addr FROM pg_stat_activity WHERE application_name = 'migspawner' "
    "AND datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"
)
_SEQUENCE = sa.text("SELECT pg_get_serial_sequence(:name, 'id')")
_SET_SEQUENCE = sa.text(
    "SELECT setval(CAST(:sequence AS regclass), :number, true) WHERE :number > 0"
)


def back_up(url: str, file: Path) -> None:
    """Write a copy of the database as it is now into a new file.

    Raises :class:`~jupyterhub_migspawner.errors.DatabaseError`; then there is no new file.
    """
    parsed = urls.parse(url)
    source = urls.file_of(parsed)
    status = migrations.check(url)
    if source is None or status.state != migrations.BEHIND:
        # Of an older schema only SQLite makes copies by itself.
        status.demand_current()
    file = file.absolute()
    if source is not None and file.resolve() == source.resolve():
        raise DatabaseError(f"{file} is the lease database itself; choose another file.")
    with backup_files.new_file(file) as made:
        if source is not None:
            _copy_file(source, made)
        else:
            migrations.upgrade(f"sqlite:///{made}")
            _copy_rows(parsed, urls.parse(f"sqlite:///{made}"))
        found = soundness.damage(made) or (
            soundness.problems(f"sqlite:///{made}") if status.current else ()
        )
        if found:
            raise DatabaseError(
                f"No backup was made: the lease database {status.database} is not sound. "
                f"{' '.join(found[:3])} See `migspawner db check`."
            )
        backup_files.finish(made)


def restore(url: str, file: Path) -> str:
    """Put a backup in the place of the database; return where the replaced one is now, or "".

    A backup of an older version is brought up to this one. Raises
    :class:`~jupyterhub_migspawner.errors.DatabaseError`; then nothing was replaced.
    """
    parsed = urls.parse(url)
    file = file.absolute()
    if not file.is_file():
        raise DatabaseError(f"There is no backup {file}.")
    demand_unused(url)
    target = urls.file_of(parsed)
    folder = file.parent if target is None else target.parent
    stamp = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}"
    with backup_files.private_file(folder, file.name) as made:
        _copy_file(file, made)
        _bring_up(file, made)
        generation = _next_generation(parsed, made)
        _run(made, "UPDATE database_identity SET generation = ?", generation)
        soundness.demand_sound(f"sqlite:///{made}")
        backup_files.finish(made)
        if target is None:
            return _restore_server(parsed, made, stamp)
        return _swap(made, target, stamp)


def copy(url: str, to: str) -> None:
    """Copy the database into an empty one of either kind, as a new generation of it.

    Raises :class:`~jupyterhub_migspawner.errors.DatabaseError`; then the other one is empty still.
    """
    source, target = urls.parse(url), urls.parse(to)
    migrations.check(url).demand_current()
    demand_unused(url)
    status = migrations.check(to)
    if status.state != migrations.MISSING:
        raise DatabaseError(
            f"The database {urls.shown(target)} is not empty; name one that is, or that does not "
            "exist yet."
        )
    migrations.upgrade(to)
    _copy_rows(source, target, newer=True)
    soundness.demand_sound(to)


def demand_unused(url: str) -> None:
    """Raise :class:`~jupyterhub_migspawner.errors.DatabaseError` while a process uses it."""
    users = users_of(url)
    if users:
        raise DatabaseError(
            f"The lease database {urls.shown(urls.parse(url))} is in use by "
            f"{', '.join(users[:5])}; stop the hub first. Servers keep running without it, if "
            "c.JupyterHub.cleanup_servers is False."
        )


def users_of(url: str) -> list[str]:
    """Return other processes that have the database open, as far as this user may see them."""
    parsed = urls.parse(url)
    file = urls.file_of(parsed)
    if file is not None:
        return [f"process {pid}" for pid in backup_files.with_open(file)]
    engine = make_engine(parsed)
    try:
        with engine.connect() as connection:
            rows = connection.execute(_OTHERS).all()
            return [f"a session from {row[1] or 'its own machine'} (pid {row[0]})" for row in rows]
    except exc.SQLAlchemyError as error:
        raise database_error(urls.shown(parsed), error, committing=False) from error
    finally:
        engine.dispose()


def _copy_file(source: Path, made: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(backup_files.read_only(source), uri=True)) as old,
            closing(sqlite3.connect(made)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        raise database_error(f"sqlite:///{source}", error, committing=False) from error


def _bring_up(file: Path, made: Path) -> None:
    """Make sure that a copy of a backup is a sound lease database of this version."""
    if found := soundness.damage(made):
        raise DatabaseError(
            f"The backup {file} is damaged: {' '.join(found[:3])} Choose another one."
        )
    status = migrations.check(f"sqlite:///{made}")
    if status.state == migrations.BEHIND:
        status = migrations.upgrade(f"sqlite:///{made}")
    if not status.current:
        message = status.message.replace(str(made), str(file))
        raise DatabaseError(f"{file} is no backup that can be restored. {message}")


def _run(made: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(made)) as connection, connection:
        connection.execute(statement, values)


def _next_generation(url: sa.URL, made: Path) -> int:
    """Return one more than the generation of the backup, and of what it replaces.

    That one counts only where it is of the same origin.
    """
    with closing(sqlite3.connect(made)) as connection:
        found = identity.position_of(connection.execute(identity.POSITION).fetchone())
    if found is None:
        raise DatabaseError("The backup has no identity.")  # migrations give it one
    now = position(url)
    same = now is not None and now.identity == found.identity
    return max(found.generation, now.generation if now is not None and same else 0) + 1


def position(url: sa.URL) -> identity.Position | None:
    """Return which database is there and how far it has come; None where that cannot be read."""
    file = urls.file_of(url)
    if file is not None:
        try:
            with closing(sqlite3.connect(backup_files.read_only(file), uri=True)) as connection:
                return identity.position_of(connection.execute(identity.POSITION).fetchone())
        except sqlite3.Error:
            return None
    engine = make_engine(url)
    try:
        with engine.connect() as connection:
            return identity.position_of(connection.execute(sa.text(identity.POSITION)).first())
    except exc.SQLAlchemyError:
        return None
    finally:
        engine.dispose()


def _swap(made: Path, target: Path, stamp: str) -> str:
    kept = _unused(
        f"{target}.replaced-{stamp}",
        lambda name: any(Path(f"{name}{side}").exists() for side in (*backup_files.SIDES, "")),
    )
    owner = target if target.exists() else target.parent
    found = owner.stat()
    if os.geteuid() == 0:
        os.chown(made, found.st_uid, found.st_gid)
    moved = ""
    # The log first: it must never stand beside a file that it is not of.
    for side in (*backup_files.SIDES, ""):
        old = Path(f"{target}{side}")
        if old.exists():
            # What is left of a log's index alone is nothing to keep.
            if not side or (side == "-wal" and old.stat().st_size):
                moved = kept
            old.rename(f"{kept}{side}")
    made.rename(target)
    backup_files.sync(target.parent)
    return moved


def _unused(name: str, taken: Callable[[str], bool]) -> str:
    """Return the name, or the first of ``name_2``, ``name_3`` … that is not taken."""
    names = (name if number == 1 else f"{name}_{number}" for number in count(1))
    return next(each for each in names if not taken(each))


def _restore_server(url: sa.URL, made: Path, stamp: str) -> str:
    name = urls.shown(url)
    engine = make_engine(url)
    try:
        with engine.execution_options(**{WRITING: True}).begin() as connection:
            inspector = sa.inspect(connection)
            there = set(inspector.get_table_names())
            schema = _unused(
                f"migspawner_replaced_{stamp.lower()}", inspector.get_schema_names().__contains__
            )
            old = sorted(there & {*metadata.tables, migrations.VERSION_TABLE})
            if there and not old:
                raise DatabaseError(migrations.check(url.render_as_string(False)).message)
            if old:
                connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
                for table in old:
                    connection.execute(sa.text(f"ALTER TABLE {table} SET SCHEMA {schema}"))
            migrations.create(connection)
            source = make_engine(urls.parse(f"sqlite:///{made}"))
            try:
                with source.connect() as rows:
                    _fill(rows, connection)
            finally:
                source.dispose()
            roles.grant_again(connection)
            return f"schema {schema}" if old else ""
    except exc.SQLAlchemyError as error:
        raise database_error(name, error, committing=False) from error
    finally:
        engine.dispose()


def _copy_rows(source: sa.URL, target: sa.URL, *, newer: bool = False) -> None:
    """Copy all rows of a database into one that has the tables and no rows, in one snapshot."""
    reading, writing = make_engine(source), make_engine(target)
    try:
        if source.drivername != "sqlite":
            reading = reading.execution_options(isolation_level="REPEATABLE READ")
        with (
            reading.connect() as rows,
            writing.execution_options(**{WRITING: True}).begin() as connection,
        ):
            _fill(rows, connection)
            roles.grant_again(connection)
            if newer:
                generation = database_identity.c.generation + 1
                connection.execute(sa.update(database_identity).values(generation=generation))
    except exc.SQLAlchemyError as error:
        raise database_error(urls.shown(target), error, committing=False) from error
    finally:
        reading.dispose()
        writing.dispose()


def _fill(rows: sa.Connection, connection: sa.Connection) -> None:
    connection.execute(sa.delete(database_identity))
    for table in metadata.sorted_tables:
        found = rows.execution_options(stream_results=True).execute(sa.select(table))
        for some in found.mappings().partitions(ROWS):
            values: list[dict[str, Any]] = [dict(row) for row in some]
            connection.execute(sa.insert(table), values)
        if connection.dialect.name == "postgresql" and "id" in table.c:
            _set_sequence(connection, table)


def _set_sequence(connection: sa.Connection, table: sa.Table) -> None:
    sequence = connection.execute(_SEQUENCE, {"name": table.name}).scalar()
    if sequence is not None:
        newest = connection.execute(sa.select(sa.func.max(table.c.id))).scalar() or 0
        connection.execute(_SET_SEQUENCE, {"sequence": sequence, "number": newest})
