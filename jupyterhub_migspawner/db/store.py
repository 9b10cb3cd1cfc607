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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc

from jupyterhub_migspawner.db import identity, migrations, pipeline, urls
from jupyterhub_migspawner.db.database_file import DatabaseFile, Nodes
from jupyterhub_migspawner.db.engine import (
    FILES,
    WAIT_SECONDS,
    Interrupted,
    begin_writing,
    database_error,
    make_engine,
    set_busy_timeout,
)
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.db.row_security import FUNCTION
from jupyterhub_migspawner.db.statements import Statements
from jupyterhub_migspawner.db.transaction import Transaction, Watch, read_position
from jupyterhub_migspawner.db.turnstile import Turnstile
from jupyterhub_migspawner.db.wakeups import Wakeups
from jupyterhub_migspawner.errors import DatabaseError

T = TypeVar("T")

TRIES = 4
"""How often a transaction that had no effect is run before its error is raised."""

_NODE = sa.text(f"SELECT {FUNCTION}()")

# Several stores of one process on one file have to queue at the same turnstile.
_turnstiles: weakref.WeakValueDictionary[str, Turnstile] = weakref.WeakValueDictionary()
_turnstiles_guard = threading.Lock()


class Store:
    """An open lease database; thread-safe."""

    def __init__(self, url: sa.URL, engine: sa.Engine, file: DatabaseFile | None = None) -> None:
        self._engine = engine
        self._file = file
        self._seen: Position | None = None
        self._statements = Statements(engine.dialect)
        self._failure: type[Exception] = engine.dialect.loaded_dbapi.Error
        self._turnstile: Turnstile | None = None
        # The connection that writes to a file, while no thread uses it. It does not go back to the
        # pool: to borrow it each time costs as much as three statements, and only the thread that
        # has passed the turnstile writes.
        self._writers: list[sa.PoolProxiedConnection] = []
        if file is not None:
            with _turnstiles_guard:
                key = str(file.path.resolve())
                self._turnstile = _turnstiles.setdefault(key, Turnstile())
        self.name = urls.shown(url)
        #: Called with each statement and its values, and with ``COMMIT``, before the driver is:
        #: for tests that count them, and benchmarks that repeat them.
        self.watch: Watch | None = None
        self.postgres = file is None
        #: The node whose role this process has logged in with; empty for all rights.
        self.node = ""
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
        with store.transaction(write=False) as transaction:
            if store.postgres:
                store.node = transaction.first(_NODE)[0] or ""
                store._seen = store._visible(store._seen)
            else:
                transaction.flush()
            return store

    @property
    def position(self) -> Position:
        """How far the database had come when this process last looked; asks nothing."""
        assert self._seen is not None  # since it was opened
        return self._seen

    def close(self) -> None:
        """Close all connections; a later call would open new ones.

        Waiters are woken no more.
        """
        self.wakeups.close()
        self._drop_connections()

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Transaction]:
        """Open a transaction, committed at the end of the block and rolled back by any exception.

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
            with self._connection(write=write) as connection:
                committing = False
                try:
                    transaction = self._begun(connection, write=write)
                    yield transaction
                    transaction.ensure_begun()
                    committing = True
                    reached = transaction.commit()
                    self._note(reached)
                    if write and self._file is not None:
                        self._demand_written(self._file, connection)
                except self._failure as error:
                    if self.postgres and identity.has_no_identity(error):
                        raise identity.replaced(self.name, "it is empty") from error
                    if self.postgres and pipeline.is_of_statement(error):
                        committing = False
                    lost = self._is_lost(connection, error)
                    raise database_error(
                        self.name, error, committing=committing, lost=lost
                    ) from error

    def _begun(self, connection: sa.PoolProxiedConnection, *, write: bool) -> Transaction:
        """Begin a transaction; on PostgreSQL it begins with its first statement."""
        bare: Any = connection.driver_connection
        if self.postgres:
            # BEGIN is a statement among the first ones, and not one of the driver's.
            bare.autocommit = True
            begun = Transaction(bare, self._statements, self.watch, self._comparison, writing=write)
            begun.node = self.node
            return begun
        transaction = Transaction(bare, self._statements, self.watch, None, writing=write)
        cursor = transaction.cursor
        # A transaction that reads first and writes later cannot wait for another writer in SQLite,
        # it fails; so writers take the lock at once.
        # A writer's files were compared just before; they are again only after it had to wait.
        if write:
            look_again = begin_writing(cursor, WAIT_SECONDS)
        else:
            look_again = True
            cursor.execute("BEGIN")
        if look_again and self._file is not None and connection.info[FILES] != self._file.nodes():
            # Nothing was read or written yet, and the next connection is to the new file.
            connection.invalidate()
            raise Interrupted(f"The file of the lease database {self.name} was replaced just now.")
        compare = self._comparison()
        try:
            found = read_position(cursor)
        except self._failure as error:
            if not identity.has_no_table(error):
                raise
            found = None
        compare(found)
        transaction.begun_at = found
        return transaction

    @contextmanager
    def _connection(self, *, write: bool) -> Iterator[sa.PoolProxiedConnection]:
        """Take a connection; what is uncommitted is rolled back when it returns."""
        files = None if self._file is None else self._demand_unchanged(self._file)
        if not write or self._file is None:
            connection = self._pooled()
            try:
                yield connection
            finally:
                connection.close()
            return
        writers = self._writers
        kept = writers.pop() if writers else None
        if kept is not None and kept.info[FILES] != files:
            kept.invalidate()
            kept = None
        connection = kept or self._writer()
        try:
            yield connection
        finally:
            self._keep(connection, writers)

    def _pooled(self) -> sa.PoolProxiedConnection:
        try:
            return self._engine.raw_connection()
        except (self._failure, exc.SQLAlchemyError) as error:
            raise database_error(self.name, error, committing=False) from error

    def _writer(self) -> sa.PoolProxiedConnection:
        """Open the connection that writes to a file.

        On it SQLite itself waits for no lock: :func:`.engine.begin_writing` does, and a transaction
        that has begun to write needs no other lock.
        """
        connection = self._pooled()
        set_busy_timeout(connection.driver_connection, 0)  # type: ignore[arg-type]
        return connection

    def _keep(
        self, connection: sa.PoolProxiedConnection, writers: list[sa.PoolProxiedConnection]
    ) -> None:
        """Keep the connection that writes to a file for the next one, with nothing uncommitted."""
        if not connection.is_valid:
            return
        bare: Any = connection.driver_connection
        try:
            if bare.in_transaction:
                bare.rollback()
        except self._failure as error:
            connection.invalidate(error)
            return
        if writers is self._writers:
            writers.append(connection)
        else:
            connection.invalidate()  # all were dropped meanwhile

    def _drop_connections(self) -> None:
        """Close all idle connections now, and the others when they are returned."""
        writers, self._writers = self._writers, []
        while writers:
            writers.pop().invalidate()
        self._engine.dispose()

    def _demand_unchanged(self, file: DatabaseFile) -> Nodes | None:
        """Raise an error where a file is missing, or has become older or another one in place.

        Returns which files have the names now; None where that cannot be known, and connecting says
        why.
        """
        try:
            nodes, stamp = file.look()
        except (FileNotFoundError, NotADirectoryError):
            if self._seen is None:
                return None
            raise identity.replaced(self.name, "its file was deleted") from None
        except OSError:
            return None
        if why := file.problem(self._seen, stamp):
            self._drop_connections()
            raise identity.replaced(self.name, f"its file was written over: {why}")
        return *nodes, file.index()

    def _demand_written(self, file: DatabaseFile, connection: sa.PoolProxiedConnection) -> None:
        """Raise an error where what was committed is not in the file that has the name now."""
        try:
            # What was committed is in one of the two. The index is looked at before the next one.
            nodes, stamp = file.look()
        except OSError:
            nodes, stamp = (None, None), None
        if connection.info[FILES][:2] != nodes:
            raise identity.replaced(self.name, "its file was replaced just now")
        file.problem(None, stamp)

    def _comparison(self) -> Callable[[Position | None], None]:
        """Return what raises unless a position read from now on is of the database used so far.

        Other threads may get further meanwhile, hence from now on.
        """
        before = self._seen

        def compare(found: Position | None) -> None:
            found = self._visible(found)
            why = identity.difference(before, found) if before is not None else ""
            if found is None or why:
                raise identity.replaced(self.name, why or "it is empty")
            self._note(found)

        return compare

    def _visible(self, found: Position | None) -> Position | None:
        """Return the position, without what a node cannot know.

        It sees its own leases, of which the newest may move to another node. Each lease has events,
        whose numbers it sees.
        """
        return replace(found, lease=0) if found is not None and self.node else found

    def _note(self, found: Position | None) -> None:
        """Remember how far the database has come; another thread may know of more by now."""
        found = self._visible(found)
        if found is not None and (self._seen is None or not identity.difference(self._seen, found)):
            self._seen = found

    def _is_lost(self, connection: sa.PoolProxiedConnection, error: Exception) -> bool:
        """Tell whether the connection is gone; then drop the others of the pool, too."""
        bare = connection.dbapi_connection
        if bare is None or not self._engine.dialect.is_disconnect(error, bare, None):  # type: ignore[arg-type]
            return False
        connection.invalidate(error)
        self._drop_connections()
        return True

    def run(self, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a writing transaction and return what it returns.

        Run again, a few times, when the transaction had no effect for a reason that passes: a
        deadlock, or a connection that had gone stale.
        """
        return self._run(work, write=True)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Run work that only reads, as :meth:`run` does, and return what it returns."""
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
