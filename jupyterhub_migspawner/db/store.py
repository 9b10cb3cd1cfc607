"""The lease database as one object: open it, run transactions in it.

Relies on :mod:`.engine` for connections and their errors and on :mod:`.migrations` for the schema.
Promises: a store that opened has exactly the schema this code knows; a transaction happens as a
whole or not at all; on SQLite threads write in order of arrival; a lost connection costs the calls
it hits, not the next one; and that a database which is another one than was opened, or an older
copy of it, is neither read nor written.
"""

from __future__ import annotations

import threading
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from jupyterhub_migspawner.db import identity, migrations, urls
from jupyterhub_migspawner.db.database_file import DatabaseFile
from jupyterhub_migspawner.db.engine import (
    FILES,
    WAIT_SECONDS,
    Interrupted,
    begin_writing,
    database_error,
    make_engine,
)
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.db.statements import Prepared, Statements
from jupyterhub_migspawner.db.turnstile import Turnstile
from jupyterhub_migspawner.db.wakeups import Wakeups
from jupyterhub_migspawner.errors import DatabaseError

Watch = Callable[[str, Any], None]
T = TypeVar("T")

TRIES = 4
"""How often a transaction that had no effect is run before its error is raised."""

# Advisory locks live in one name space per database; this keeps ours apart from other programs'.
_LOCK_SPACE = 0x6D696773

# One call a row, in the order of the numbers given.
_LOCK = sa.text(
    "SELECT pg_advisory_xact_lock(:space, number) "
    "FROM unnest(CAST(:numbers AS integer[])) WITH ORDINALITY AS asked (number, place) "
    "ORDER BY place"
)

# Several stores of one process on one file have to queue at the same turnstile.
_turnstiles: weakref.WeakValueDictionary[str, Turnstile] = weakref.WeakValueDictionary()
_turnstiles_guard = threading.Lock()


class Transaction:
    """What runs inside one transaction; handed out by :class:`Store`.

    Rows are named tuples. Statements are kept compiled, by identity: build them once.
    """

    __slots__ = ("_cursor", "_statements", "_watch", "announced", "notified", "postgres", "writing")

    def __init__(
        self,
        cursor: Any,
        statements: Statements,
        watch: Watch | None,
        *,
        postgres: bool,
        writing: bool,
    ) -> None:
        self._cursor = cursor
        self._statements = statements
        self._watch = watch
        self.postgres = postgres
        self.writing = writing
        #: Whether readers of the event log know that this transaction writes to it.
        self.announced = False
        #: Whether it tells waiters that it may have freed something.
        self.notified = False

    def _execute(self, statement: sa.Executable, values: dict[str, Any]) -> Prepared:
        try:
            prepared = self._statements.prepared(statement, tuple(values))
            parameters = prepared.parameters(values)
        except (TypeError, ValueError) as error:
            raise DatabaseError(
                f"A value cannot be stored in the lease database: {error}."
            ) from error
        if self._watch is not None:
            self._watch(prepared.sql, parameters)
        self._cursor.execute(prepared.sql, parameters)
        return prepared

    def rows(self, statement: sa.Executable, /, **values: Any) -> list[Any]:
        """All rows of a query."""
        return self._execute(statement, values).rows(self._cursor)

    def first(self, statement: sa.Executable, /, **values: Any) -> Any:
        """The first row of a query, or None."""
        # All are fetched: SQLite does not commit while a statement is not at its end.
        found = self._execute(statement, values).rows(self._cursor)
        return found[0] if found else None

    def change(self, statement: sa.Executable, /, **values: Any) -> int:
        """Run an insert, an update or a delete; how many rows it hit."""
        self._execute(statement, values)
        return int(self._cursor.rowcount)

    def insert(self, statement: sa.Executable, /, **values: Any) -> int:
        """Insert one row with a statement that returns its ``id``; returns that."""
        return int(self.first(statement, **values)[0])

    def queue_for(self, *names: str) -> None:
        """Let no other transaction that names one of these run until this one ends.

        SQLite has one writer at a time anyway. Two names may share a lock by chance, which only
        makes their transactions follow each other. Callers name things in one order everywhere.
        """
        if self.postgres:
            numbers = [zlib.crc32(name.encode("utf-8")) - 2**31 for name in names]
            self.rows(_LOCK, space=_LOCK_SPACE, numbers=numbers)


def _position(cursor: Any) -> Position | None:
    cursor.execute(identity.POSITION)
    rows = cursor.fetchall()
    return identity.position_of(rows[0] if rows else None)


class Store:
    """An open lease database; thread-safe."""

    def __init__(self, url: sa.URL, engine: sa.Engine, file: DatabaseFile | None = None) -> None:
        self._engine = engine
        self._file = file
        self._seen: Position | None = None
        self._statements = Statements(engine.dialect)
        self._failure: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._turnstile: Turnstile | None = None
        if file is not None:
            with _turnstiles_guard:
                key = str(file.path.resolve())
                self._turnstile = _turnstiles.setdefault(key, Turnstile())
        self.name = urls.shown(url)
        #: Called with each statement and its values, and with ``COMMIT``, before the driver is:
        #: for tests that count them, and benchmarks that repeat them.
        self.watch: Watch | None = None
        self.postgres = file is None
        self.wakeups = Wakeups(engine, self.name)

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> Store:
        """Open the lease database; ``create`` makes an empty one ready instead of refusing it.

        Raises :class:`~jupyterhub_migspawner.errors.DatabaseError` when it cannot be reached,
        is no lease database, or has another schema than this code knows.
        """
        migrations.ready(url, create=create)
        parsed = urls.parse(url)
        path = urls.file_of(parsed)
        file = None if path is None else DatabaseFile(path)
        store = cls(parsed, make_engine(parsed, file), file)
        with store.transaction(write=False):
            return store

    @property
    def position(self) -> Position:
        """How far the database had come when this process last looked; asks nothing."""
        assert self._seen is not None  # since it was opened
        return self._seen

    def close(self) -> None:
        """Close all connections; a later call would open new ones. Waiters are woken no more."""
        self.wakeups.close()
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Transaction]:
        """One transaction: committed at the end of the block, rolled back by any exception.

        ``write=False`` on SQLite lets others write meanwhile. Raises
        :class:`~jupyterhub_migspawner.errors.DatabaseError`.
        """
        turnstile = self._turnstile if write else None
        entrance = turnstile.passing(WAIT_SECONDS) if turnstile else nullcontext(True)
        with entrance as entered:
            if not entered:
                raise DatabaseError(
                    f"The lease database {self.name} has been busy with other calls of this "
                    f"process for {WAIT_SECONDS} seconds; try again."
                )
            with self._connection() as connection:
                committing = False
                try:
                    cursor = connection.cursor()
                    if not self.postgres:
                        # A transaction that reads first and writes later cannot wait for another
                        # writer in SQLite, it fails; so writers take the lock at once.
                        if write:
                            begin_writing(cursor, WAIT_SECONDS)
                        else:
                            cursor.execute("BEGIN")
                    self._compare(connection, cursor)
                    transaction = Transaction(
                        cursor,
                        self._statements,
                        self.watch,
                        postgres=self.postgres,
                        writing=write,
                    )
                    yield transaction
                    # Whatever counts is an event, too.
                    reached = _position(cursor) if transaction.announced else None
                    if self.watch is not None:
                        self.watch("COMMIT", ())
                    committing = True
                    connection.commit()
                    self._note(reached)
                    if write and self._is_elsewhere(connection):
                        raise identity.replaced(self.name, "its file was replaced just now")
                    if write and self._file is not None:
                        self._file.trouble(None)
                except self._failure as error:
                    lost = self._is_lost(connection, error)
                    raise database_error(
                        self.name, error, committing=committing, lost=lost
                    ) from error

    @contextmanager
    def _connection(self) -> Iterator[sa.PoolProxiedConnection]:
        """A connection of the pool; what was not committed is rolled back when it goes back."""
        if self._file is not None:
            if self._seen is not None and not self._file.path.exists():
                raise identity.replaced(self.name, "its file was deleted")
            if why := self._file.trouble(self._seen):
                self._engine.dispose()
                raise identity.replaced(self.name, f"its file was written over: {why}")
        try:
            connection = self._engine.raw_connection()
        except (self._failure, exc.SQLAlchemyError) as error:
            raise database_error(self.name, error, committing=False) from error
        try:
            yield connection
        finally:
            connection.close()

    def _compare(self, connection: sa.PoolProxiedConnection, cursor: Any) -> None:
        """Raise unless this is the database that this process has used so far."""
        if self._is_elsewhere(connection):
            # Nothing was read or written yet, and the next connection is to the new file.
            raise Interrupted(f"The file of the lease database {self.name} was replaced just now.")
        before = self._seen
        try:
            found = _position(cursor)
        except self._failure as error:
            if not identity.has_no_table(error):
                raise
            found = None
        why = identity.difference(before, found) if before is not None else ""
        if found is None or why:
            raise identity.replaced(self.name, why or "it is empty")
        self._note(found)

    def _note(self, found: Position | None) -> None:
        """Remember how far the database has come. Another thread may know of more by now."""
        if found is not None and (self._seen is None or not identity.difference(self._seen, found)):
            self._seen = found

    def _is_elsewhere(self, connection: sa.PoolProxiedConnection) -> bool:
        """Whether the connection has another file open than the one that has the name now."""
        return self._file is not None and connection.info[FILES] != self._file.nodes()

    def _is_lost(self, connection: sa.PoolProxiedConnection, error: Exception) -> bool:
        """Whether the connection is gone; then the others of the pool are not trusted either."""
        bare = connection.dbapi_connection
        if bare is None or not self._engine.dialect.is_disconnect(error, bare, None):  # type: ignore[arg-type]
            return False
        connection.invalidate(error)
        self._engine.dispose()
        return True

    def run(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a writing transaction and return what it returns.

        Run again, a few times, when the transaction had no effect for a reason that passes: a
        deadlock, or a connection that had gone stale.
        """
        return self._run(work, write=True)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """As :meth:`run`, for work that only reads."""
        return self._run(work, write=False)

    def _run(self, work: Callable[[Transaction], T], *, write: bool) -> T:
        for _ in range(TRIES - 1):
            try:
                with self.transaction(write=write) as transaction:
                    return work(transaction)
            except Interrupted:
                continue
        with self.transaction(write=write) as transaction:
            return work(transaction)
