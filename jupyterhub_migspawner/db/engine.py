"""Connections to the lease database, and what their errors mean.

SQLite: write-ahead log, ``synchronous=FULL`` (a committed lease survives a power cut), foreign keys
on, transactions begun by us. PostgreSQL: READ COMMITTED, times in UTC, bounded waits for locks, and
a session that stops in the middle of a transaction loses it instead of blocking everybody.

Promises that every failure becomes a :class:`~jupyterhub_migspawner.errors.DatabaseError` that
names the database without its password and says what to do.
"""

from __future__ import annotations

import shlex
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from random import uniform
from time import monotonic, sleep
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from jupyterhub_migspawner.db import urls
from jupyterhub_migspawner.db.database_file import DatabaseFile
from jupyterhub_migspawner.errors import DatabaseError

WAIT_SECONDS = 30
"""Longest wait for a lock, a free connection or the other writer."""

CONNECT_SECONDS = 10
"""Longest wait for a database server to answer."""

_TRY_SECONDS = (0.0005, 0.003)
"""Between two tries to become SQLite's writer."""

_TURN_SECONDS = 0.02
_TURNS = int(WAIT_SECONDS / _TURN_SECONDS)

GONE = "unable to open database file: it is gone"

WRITING = "migspawner_writing"
"""Execution option: this transaction is going to write."""


class Interrupted(DatabaseError):
    """The transaction had no effect and may be run again: lost connection, or a deadlock."""


class OutcomeUnknown(DatabaseError):
    """The connection was lost with the commit: the transaction happened, or had no effect."""


def make_engine(url: sa.URL, file: DatabaseFile | None = None) -> sa.Engine:
    """Make an engine for a URL that :func:`.urls.parse` accepted; it connects to nothing yet.

    ``file`` is watched, where it is a SQLite database: the pool gives out no connection to a file
    that has been deleted or replaced.
    """
    if url.drivername == "sqlite":
        return _sqlite(url, file)
    return _postgres(url)


FILES = "migspawner_files"
"""Where a pooled connection remembers which files it has open."""


def _sqlite(url: sa.URL, file: DatabaseFile | None) -> sa.Engine:
    file = file or DatabaseFile(Path(url.database or "").absolute())

    def connect() -> sqlite3.Connection:
        before = file.nodes()[0]
        connection = file.connect()
        if before is None or file.nodes()[0] != before:
            connection.close()
            raise sqlite3.OperationalError(GONE)
        return connection

    engine = sa.create_engine(
        url,
        creator=connect,
        # One writer at a time by the turnstile; the rest are readers.
        # Errors are logged; what people wrote does not belong there.
        hide_parameters=True,
        pool_size=4,
        max_overflow=28,
        pool_timeout=WAIT_SECONDS,
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        # The driver's own BEGIN comes late and deferred; the store, and "begin" below, say it.
        connection.isolation_level = None
        write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL").close()
        connection.execute("PRAGMA foreign_keys=ON").close()
        # Reading opens the write-ahead log, whose files are there from now on.
        connection.execute("SELECT count(*) FROM sqlite_master").close()
        record.info[FILES] = file.nodes()

    @sa.event.listens_for(engine, "checkout")
    def compare(connection: Any, record: Any, proxy: Any) -> None:
        if record.info[FILES] != file.nodes():
            raise exc.InvalidatePoolError("the file was replaced")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        # For transactions through SQLAlchemy, which are the migrations.
        writing = connection.get_execution_options().get(WRITING)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def write_ahead(connection: sqlite3.Connection, pause: Callable[[float], object] = sleep) -> None:
    """Make the file keep a write-ahead log; wait up to ``WAIT_SECONDS`` for its holder.

    The mode stays in the file, so only the first to open a new one changes it. SQLite refuses that
    change at once while another opens the file too, whatever the time-out of the connection: it
    does not call the busy handler for a reader that becomes a writer. So the waiting is ours, and
    the connection's own comes after it.
    """
    set_busy_timeout(connection, 0)
    for turn in range(_TURNS + 1):
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            break
        except sqlite3.OperationalError as error:
            if turn == _TURNS or "locked" not in str(error):
                raise
        pause(_TURN_SECONDS)
    set_busy_timeout(connection, WAIT_SECONDS)


def set_busy_timeout(connection: sqlite3.Connection, seconds: float) -> None:
    """Let a connection wait up to ``seconds`` for a lock of others, by SQLite's own tries."""
    connection.execute(f"PRAGMA busy_timeout={int(seconds * 1000)}").close()


def begin_writing(cursor: Any, seconds: float, pause: Callable[[float], object] = sleep) -> bool:
    """Begin a transaction as SQLite's one writer; wait up to ``seconds`` for other processes.

    Returns whether there was anybody to wait for.

    SQLite's own waiting tries ten times a second, and a process that writes without a pause leaves
    it gaps of a fraction of a millisecond: a late process may wait for many seconds. So the waiting
    is ours, with many more tries, and the connection's own busy timeout has to be 0. Of a process
    only the first at the turnstile does it.
    """
    give_up = monotonic() + seconds
    waited = False
    while True:
        try:
            cursor.execute("BEGIN IMMEDIATE")
            return waited
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or monotonic() >= give_up:
                raise
        waited = True
        # Not in step with the writers.
        pause(uniform(*_TRY_SECONDS))


def _postgres(url: sa.URL) -> sa.Engine:
    try:
        from psycopg import capabilities
    except ImportError:
        raise _without_driver(url, "psycopg 3, which is not installed") from None
    if not capabilities.has_pipeline():
        raise _without_driver(url, "psycopg with libpq 14 or later, and this one is older")
    defaults = {"connect_timeout": str(CONNECT_SECONDS), "application_name": "migspawner"}
    try:
        engine = sa.create_engine(
            url.update_query_dict({k: v for k, v in defaults.items() if k not in url.query}),
            isolation_level="READ COMMITTED",
            hide_parameters=True,
            pool_size=8,
            max_overflow=24,
            pool_timeout=WAIT_SECONDS,
        )
    except Exception:
        raise DatabaseError(
            f"The database URL {urls.shown(url)} cannot be used; {urls.EXPECTED}."
        ) from None

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        # Not as start-up options: connection poolers refuse those.
        connection.autocommit = True
        connection.execute(f"SET lock_timeout = '{WAIT_SECONDS}s'")
        connection.execute(f"SET idle_in_transaction_session_timeout = '{2 * WAIT_SECONDS}s'")
        connection.execute("SET timezone = 'UTC'")
        # What is asked for all the time is small and in memory; by default the server takes an
        # index for so dear that it rather reads all cards to find sixteen.
        connection.execute("SET random_page_cost = 1.1")
        connection.autocommit = False

    return engine


def _without_driver(url: sa.URL, what: str) -> DatabaseError:
    return DatabaseError(
        f"The lease database {urls.shown(url)} needs {what}; install it: "
        f"{shlex.quote(sys.executable)} -m pip install 'psycopg[binary]>=3.2'."
    )


NO_RIGHT = "42501"
"""PostgreSQL's insufficient_privilege; also for rows that a policy refuses."""

# PostgreSQL: serialization_failure, deadlock_detected, and two writers of one unique key.
_AGAIN = {"40001", "40P01", "23505"}


def database_error(
    name: str, error: Exception, *, committing: bool, lost: bool = False
) -> DatabaseError:
    """Return the error to raise instead of one of the driver's or the pool's.

    ``committing`` says that the outcome is not known, ``lost`` that the connection is gone.
    """
    if isinstance(error, exc.TimeoutError):
        return DatabaseError(
            f"The lease database {name} has no free connection after {WAIT_SECONDS} seconds; "
            "too many calls at once, or it has stopped answering. Try again."
        )
    if isinstance(error, exc.DBAPIError) and isinstance(error.orig, Exception):
        lost, error = error.connection_invalidated, error.orig
    cause = first_line(error)
    if isinstance(error, exc.SQLAlchemyError):
        return DatabaseError(f"The lease database {name} cannot be used: {cause}.")
    if getattr(error, "sqlstate", None) in _AGAIN and not committing:
        return Interrupted(f"The lease database {name} is contended: {cause}. Try again.")
    if lost:
        message = (
            f"The connection to the lease database {name} was lost: {cause}. "
            "Try again when it is back."
        )
        return OutcomeUnknown(message) if committing else Interrupted(message)
    if getattr(error, "sqlstate", None) == NO_RIGHT:
        user = sa.make_url(name).username or "of this process"
        return DatabaseError(
            f"The lease database {name} refuses its role {user}: {cause}. If that is the role of a "
            f"node, `migspawner db role NODE --name {user}` on the hub mends its rights."
        )
    for words, sentence in _KNOWN:
        if any(word in cause.lower() for word in words):
            return DatabaseError(f"The lease database {name} {sentence.format(cause=cause)}")
    return DatabaseError(f"The lease database {name} answered: {cause}.")


RESTORE = (
    "stop the hub, then run `migspawner db restore FILE` with the newest backup, which keeps the "
    "damaged one beside it. Without a backup, move the database away and start the hub: it begins "
    "with an empty one, and slices of running servers stay quarantined until `migspawner leases "
    "adopt`."
)

_KNOWN: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("file is not a database", "file is encrypted"),
        f"is not a SQLite database; check database_url. If it was one, it is damaged: {RESTORE}",
    ),
    (
        ("malformed",),
        f"is damaged: {RESTORE}",
    ),
    (
        ("readonly database", "read-only transaction"),
        "is read-only for this user; give the user that runs the hub write access to it and, for "
        "SQLite, to its directory.",
    ),
    (
        ("disk is full", "no space left", "disk i/o error"),
        "cannot be written, its disk is full or failing; make room and try again.",
    ),
    (
        ("database is locked", "lock timeout", "database table is locked"),
        f"has been locked by another process for {WAIT_SECONDS} seconds; try again, and check "
        "whether a backup or another program holds it.",
    ),
    (
        ("unable to open database file",),
        "cannot be opened; check that the file and its directory exist and that the user that "
        "runs the hub may write there.",
    ),
    (
        ("password authentication failed", "no password supplied", "role "),
        "refuses this user or password; check database_url.",
    ),
    (
        ('fatal:  database "',),
        "does not exist on its server; create it there (`createdb`) or correct database_url.",
    ),
    (
        (
            "connection refused",
            "could not translate host name",
            "failed to resolve host",
            "connection failed",
            "timeout expired",
            "starting up",
            "no such file or directory",
        ),
        "cannot be reached ({cause}); check that it runs, and host and port in database_url.",
    ),
    (
        ("no such table", "undefinedtable"),
        "lacks a table; run `migspawner db check`.",
    ),
)


def first_line(error: object) -> str:
    """Return what a driver says of an error, short enough for a sentence."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]
