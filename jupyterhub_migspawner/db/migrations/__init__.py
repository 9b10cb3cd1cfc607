"""The schema of the lease database: create it, bring it up to date, tell where it stands.

Alembic runs the steps in ``versions/``; which steps exist is also written in :data:`REVISIONS`, so
that opening a database does not have to load Alembic (a test compares the two). All steps run in
one transaction: a database has the old schema or the new one, never something between.
"""

from __future__ import annotations

import os
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from jupyterhub_migspawner import files
from jupyterhub_migspawner.db import identity, urls
from jupyterhub_migspawner.db.engine import WRITING, database_error, make_engine
from jupyterhub_migspawner.errors import DatabaseError

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
    "0017",
    "0018",
    "0019",
    "0020",
    "0021",
    "0022",
    "0023",
)
"""All schema revisions this code knows, oldest first."""

HEAD = REVISIONS[-1]

VERSION_TABLE = "migspawner_schema"
"""Our own name: the hub's database and many others use Alembic's default one."""

# One number of our own: creators of one PostgreSQL database wait for each other.
_CREATION_LOCK = sa.text("SELECT pg_advisory_xact_lock(7885628139)")

# Alembic keeps the migration that runs in module-level variables.
_alembic = threading.Lock()

CURRENT = "current"
MISSING = "missing"
BEHIND = "behind"
AHEAD = "ahead"
FOREIGN = "foreign"


@dataclass(frozen=True)
class Status:
    """Where a database stands: ``current``, ``missing``, ``behind``, ``ahead`` or ``foreign``.

    ``revision`` is the schema found (None without one), ``head`` the one this code needs;
    ``message`` says it in a sentence, with the way out.
    """

    database: str
    state: str
    revision: str | None
    head: str
    message: str

    @property
    def current(self) -> bool:
        """Whether this code can work with the database."""
        return self.state == CURRENT

    def demand_current(self) -> None:
        """Raise :class:`~jupyterhub_migspawner.errors.DatabaseError` unless it is current."""
        if not self.current:
            raise DatabaseError(self.message)


def check(url: str) -> Status:
    """Tell which schema the database has; change nothing.

    Raises :class:`~jupyterhub_migspawner.errors.DatabaseError` when it cannot be read at all.
    """
    parsed = urls.parse(url)
    file = urls.file_of(parsed)
    if file is not None and urls.is_missing(file):
        # Connecting would make an empty file.
        return _status(urls.shown(parsed), MISSING, None)
    return _work(parsed, (), writing=False)


def ready(url: str, *, create: bool) -> Status:
    """Make sure that the database can be written and has the schema this code needs.

    ``create`` gives an empty or new one the schema; any other schema is refused. Raises
    :class:`~jupyterhub_migspawner.errors.DatabaseError`.
    """
    parsed = urls.parse(url)
    if create:
        _make_file(parsed)
    elif (file := urls.file_of(parsed)) is not None and urls.is_missing(file):
        _status(urls.shown(parsed), MISSING, None).demand_current()
    status = _work(parsed, (MISSING,) if create else (), writing=True)
    status.demand_current()
    return status


def upgrade(url: str) -> Status:
    """Create the schema or bring it to :data:`HEAD`; returns the status afterwards.

    What a step has removed from a database of an older schema is erased from its file, too. Raises
    :class:`~jupyterhub_migspawner.errors.DatabaseError`; the database is then as it was, or what
    was removed is not erased yet, which the message says.
    """
    parsed = urls.parse(url)
    _make_file(parsed)
    before = check(url)
    status = _work(parsed, (MISSING, BEHIND), writing=True, secure=True)
    status.demand_current()
    if before.state == BEHIND:
        erase(url)
    return status


def erase(url: str) -> None:
    """Overwrite what was deleted: old versions of rows hold what once stood in clear.

    On SQLite in the file and its write-ahead log. On PostgreSQL in the table that held tokens; the
    server's own log and its backups are not reached. Nothing else may have the database open.
    Raises :class:`~jupyterhub_migspawner.errors.DatabaseError`.
    """
    parsed = urls.parse(url)
    name = urls.shown(parsed)
    engine = make_engine(parsed)
    try:
        # Neither database does this in a transaction.
        with closing(engine.raw_connection()) as connection:
            bare: Any = connection.dbapi_connection
            if engine.dialect.name == "postgresql":
                bare.autocommit = True
                bare.execute("VACUUM FULL stays")
                return
            bare.execute("VACUUM").close()
            # The log still holds the old pages until it is cut to nothing.
            (busy, _, _) = bare.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise DatabaseError(f"The lease database {name} is in use.")
    except (DatabaseError, exc.SQLAlchemyError, engine.dialect.loaded_dbapi.Error) as error:
        cause = error if isinstance(error, DatabaseError) else None
        cause = cause or database_error(name, error, committing=False)
        raise DatabaseError(
            f"{cause} Its schema is current, but what was deleted, such as tokens of servers, may "
            "still stand in its files: stop everything that uses it and run `migspawner db "
            "upgrade` again."
        ) from error
    finally:
        engine.dispose()


def create(connection: sa.Connection) -> None:
    """Make the tables in an open transaction of a database that has none of them."""
    _migrate(connection)


def _work(
    url: sa.URL, migrate_from: tuple[str, ...], *, writing: bool, secure: bool = False
) -> Status:
    """Read the status and, when it is one of ``migrate_from``, migrate in the same transaction.

    ``secure`` sets the rights of nodes' roles of a current database as well.
    """
    name = urls.shown(url)
    engine = make_engine(url)
    try:
        with engine.execution_options(**{WRITING: writing}).begin() as connection:
            if writing and engine.dialect.name == "postgresql":
                _demand_writable(name, connection)
                if migrate_from:
                    connection.execute(_CREATION_LOCK)
            status = _read(name, connection)
            if status.state in migrate_from:
                _migrate(connection)
                status = _read(name, connection)
            elif secure and status.current:
                _secure(connection)
            if writing and status.current:
                identity.ensure(connection)
            return status
    except exc.SQLAlchemyError as error:
        raise database_error(name, error, committing=True) from error
    finally:
        engine.dispose()


def _demand_writable(name: str, connection: sa.Connection) -> None:
    if connection.execute(sa.text("SHOW transaction_read_only")).scalar() == "on":
        raise DatabaseError(
            f"The lease database {name} is read-only (a standby, or set so); put the primary "
            "server into database_url."
        )


def _read(name: str, connection: sa.Connection) -> Status:
    tables = sa.inspect(connection).get_table_names()
    if VERSION_TABLE not in tables:
        return _status(name, FOREIGN if tables else MISSING, None)
    found = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()
    revision = str(found[0]) if found else None
    if revision == HEAD:
        return _status(name, CURRENT, revision)
    return _status(name, BEHIND if revision in (None, *REVISIONS) else AHEAD, revision)


def _status(name: str, state: str, revision: str | None) -> Status:
    message = {
        CURRENT: f"The lease database {name} has the current schema, revision {HEAD}.",
        MISSING: f"The lease database {name} does not exist yet or is empty; "
        "run `migspawner db upgrade` to create it. If it has been in use, restore it instead: "
        "`migspawner db restore FILE`.",
        BEHIND: f"The lease database {name} has schema revision {revision}, older than the "
        f"{HEAD} this version needs; stop the hub, keep a backup (`migspawner db backup FILE`, or "
        "pg_dump), and run `migspawner db upgrade`.",
        AHEAD: f"The lease database {name} has schema revision {revision}, which this version "
        f"does not know; it knows up to {HEAD}. It was written by a newer jupyterhub-migspawner: "
        "install that version again, or restore a backup from before the upgrade with `migspawner "
        "db restore FILE`.",
        FOREIGN: f"The database {name} holds tables of another program; give the lease database "
        "a file or database of its own in database_url.",
    }[state]
    return Status(name, state, revision, HEAD, message)


def _migrate(connection: sa.Connection) -> None:
    # Loaded only here: it takes longer than everything else a start does with the database.
    from alembic import command
    from alembic.config import Config

    config = Config()
    # The configuration parser expands per cent signs.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, "head")
    _secure(connection)


def _secure(connection: sa.Connection) -> None:
    """Set the rights of nodes' roles on tables that may be new or have new columns."""
    from jupyterhub_migspawner.db import roles, row_security

    row_security.secure(connection)
    roles.grant_again(connection)


def _make_file(url: sa.URL) -> None:
    """Make sure that a SQLite file can be created, and readable for its owner only.

    It holds who worked when and why they asked for more.
    """
    file = urls.file_of(url)
    if file is None or not urls.is_missing(file):
        return
    name = urls.shown(url)
    if not file.parent.is_dir():
        raise DatabaseError(
            f"The lease database {name} cannot be created: the directory {str(file.parent)!r} "
            "does not exist. Make it, or correct database_url."
        )
    try:
        os.close(files.open_file(file))
    except OSError as error:
        raise DatabaseError(
            f"The lease database {name} cannot be created: {error.strerror}. Give the user that "
            "runs the hub write access to its directory, or correct database_url."
        ) from error
