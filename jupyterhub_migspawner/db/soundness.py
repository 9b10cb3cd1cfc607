"""Is a lease database sound? What the database itself says, and what our own rules say.

SQLite checks its pages and foreign keys; PostgreSQL its indexes, where the extension amcheck is
there. Then the tables are compared with those this code knows, and the rows with what must hold of
them. Changes nothing. Promises to name what it finds in sentences, and to find nothing wrong with a
database that was only ever written by this code.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import exc

from jupyterhub_migspawner.db import migrations, urls
from jupyterhub_migspawner.db.engine import database_error, first_line, make_engine
from jupyterhub_migspawner.db.tables import database_identity, leases, metadata, slices
from jupyterhub_migspawner.errors import DatabaseError

MOST = 20
"""So many findings of one kind are named."""

_LIVE = sa.text("leases.state IN ('pending', 'active', 'releasing')")
_HELD = sa.text("leases.state IN ('pending', 'active') AND leases.ticket_id IS NULL")

_COUNTS = (
    sa.select(slices.c.id, slices.c.held, sa.func.count(leases.c.id))
    .outerjoin(leases, sa.and_(leases.c.slice_id == slices.c.id, _LIVE))
    .group_by(slices.c.id, slices.c.held)
    .having(slices.c.held != sa.func.count(leases.c.id))
    .order_by(slices.c.id)
)
_SHARED = sa.select(slices.c.id).where(slices.c.held == 0, slices.c.shared_by.is_not(None))
_SEATS = (
    sa.select(leases.c.slice_id, leases.c.seat, sa.func.min(leases.c.id), sa.func.max(leases.c.id))
    .where(_LIVE)
    .group_by(leases.c.slice_id, leases.c.seat)
    .having(sa.func.count() > 1)
)
_SERVERS = (
    sa.select(leases.c.hub, leases.c.username, leases.c.server)
    .where(_HELD)
    .group_by(leases.c.hub, leases.c.username, leases.c.server)
    .having(sa.func.count() > 1)
)
_ATTEMPTS = sa.select(leases.c.attempt).group_by(leases.c.attempt).having(sa.func.count() > 1)
_ELSEWHERE = (
    sa.select(leases.c.id, slices.c.id)
    .join(slices, slices.c.id == leases.c.slice_id)
    .where(
        _LIVE,
        sa.or_(
            leases.c.card_uuid != slices.c.card_uuid,
            leases.c.profile != slices.c.profile,
            leases.c.start != slices.c.start,
        ),
    )
)
_NO_SLICE = (
    sa.select(leases.c.id)
    .outerjoin(slices, slices.c.id == leases.c.slice_id)
    .where(slices.c.id.is_(None))
)
_OTHER = leases.alias("other")
_WHOLE = (
    sa.select(leases.c.id, _OTHER.c.id)
    .join(_OTHER, sa.and_(_OTHER.c.card_uuid == leases.c.card_uuid, _OTHER.c.id != leases.c.id))
    .where(leases.c.whole, _LIVE, _OTHER.c.state.in_(["pending", "active", "releasing"]))
)
_RULES: tuple[tuple[sa.Select[tuple[object, ...]], str], ...] = (
    (_COUNTS, "Slice {0} counts {1} live leases, and has {2}."),
    (_SHARED, "Slice {0} has a tier's seats, and nobody on them."),
    (_SEATS, "Seat {1} of slice {0} has more than one live lease, among them {2} and {3}."),
    (_SERVERS, "The server {2!r} of {1!r} at hub {0!r} has more than one lease."),
    (_ATTEMPTS, "The attempt {0!r} has more than one lease."),
    (_ELSEWHERE, "Lease {0} does not lie where its slice {1} does."),
    (_NO_SLICE, "Lease {0} has a slice that does not exist."),
    (_WHOLE, "Lease {0} has a whole card on which lease {1} is live, too."),
)

_INDEXES = sa.text(
    "SELECT c.oid, c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "JOIN pg_class t ON t.oid = i.indrelid JOIN pg_am a ON a.oid = c.relam "
    "WHERE t.relnamespace = current_schema()::regnamespace AND t.relname = ANY(:tables) "
    "AND a.amname = 'btree'"
)
_AMCHECK = sa.text("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'")
_CHECK_INDEX = sa.text("SELECT bt_index_check(CAST(:oid AS oid), true)")


def problems(url: str) -> tuple[str, ...]:
    """Return what is wrong with the database, in sentences.

    Only for one whose schema is current. Raises
    :class:`~jupyterhub_migspawner.errors.DatabaseError` when it cannot be read at all.
    """
    parsed = urls.parse(url)
    file = urls.file_of(parsed)
    if file is not None:
        found = damage(file)
        if found:
            return found
    name = urls.shown(parsed)
    engine = make_engine(parsed)
    try:
        with engine.connect() as connection:
            return (*_of_schema(connection), *_of_rows(connection), *_of_indexes(connection))
    except exc.SQLAlchemyError as error:
        raise database_error(name, error, committing=False) from error
    finally:
        engine.dispose()


def damage(file: Path) -> tuple[str, ...]:
    """Return what SQLite finds wrong with the pages and keys of a file, opened for reading only."""
    if file.exists() and not file.stat().st_size:
        return ("The file is empty: it was made just now, or truncated.",)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True)) as connection:
            rows = connection.execute(f"PRAGMA integrity_check({MOST})").fetchall()
            found = [str(row[0]) for row in rows if row[0] != "ok"]
            keys = connection.execute("PRAGMA foreign_key_check").fetchmany(MOST)
    except sqlite3.Error as error:
        return (f"SQLite cannot read it: {first_line(error)}.",)
    return (
        *(f"SQLite finds damage: {' '.join(each.split())}" for each in found),
        *(f"A row of {row[0]} names one of {row[2]} that does not exist." for row in keys),
    )


def demand_sound(url: str) -> None:
    """Raise :class:`~jupyterhub_migspawner.errors.DatabaseError` for one that is not sound."""
    migrations.check(url).demand_current()
    found = problems(url)
    if found:
        raise DatabaseError(
            f"The lease database {urls.shown(urls.parse(url))} is not sound: {' '.join(found[:3])}"
        )


def _of_schema(connection: sa.Connection) -> Iterator[str]:
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names())
    for name, table in metadata.tables.items():
        if name not in tables:
            yield f"The table {name} is missing."
            continue
        columns = {column["name"] for column in inspector.get_columns(name)}
        for column in table.columns:
            if column.name not in columns:
                yield f"The column {name}.{column.name} is missing."
        indexes = {index["name"] for index in inspector.get_indexes(name)}
        for index in table.indexes:
            if index.name not in indexes:
                yield f"The index {index.name} is missing."


def _of_rows(connection: sa.Connection) -> Iterator[str]:
    inspector = sa.inspect(connection)
    if not {"leases", "slices", "database_identity"} <= set(inspector.get_table_names()):
        return  # said already
    number = connection.execute(
        sa.select(sa.func.count()).select_from(database_identity)
    ).scalar_one()
    if number != 1:
        yield f"The database has {number} identities instead of one."
    for statement, sentence in _RULES:
        for row in connection.execute(statement.limit(MOST)):
            yield sentence.format(*row)


def _of_indexes(connection: sa.Connection) -> Iterator[str]:
    if connection.dialect.name != "postgresql" or not connection.execute(_AMCHECK).first():
        return
    rows = connection.execute(_INDEXES, {"tables": list(metadata.tables)}).all()
    for oid, name in rows:
        try:
            with connection.begin_nested():
                connection.execute(_CHECK_INDEX, {"oid": oid})
        except exc.ProgrammingError:
            return  # this user may not ask
        except exc.DBAPIError as error:
            yield f"PostgreSQL finds damage in index {name}: {first_line(error.orig)}."
