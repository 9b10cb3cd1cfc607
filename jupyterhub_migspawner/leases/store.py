"""The lease database as one object: open it, run transactions in it.

Relies on :mod:`.engine` for connections and their errors and on :mod:`.migrations` for the schema.
Promises: a store that opened has exactly the schema this code knows; a transaction happens as a
whole or not at all; on SQLite threads write in order of arrival; a lost connection costs the calls
it hits, not the next one.
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

from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.leases import migrations, urls
from jupyterhub_migspawner.leases.engine import (
    WAIT_SECONDS,
    WRITING,
    Interrupted,
    database_error,
    make_engine,
)
from jupyterhub_migspawner.leases.turnstile import Turnstile

T = TypeVar("T")

TRIES = 4
"""How often a transaction that had no effect is run before its error is told."""

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
    """What runs inside one transaction; handed out by :class:`Store`."""

    __slots__ = ("_connection", "announced", "postgres")

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.postgres = connection.dialect.name == "postgresql"
        #: Whether readers of the event log know that this transaction writes to it.
        self.announced = False

    def rows(self, statement: sa.Executable, /, **values: Any) -> list[Any]:
        """All rows of a query."""
        return list(self._connection.execute(statement, values))

    def first(self, statement: sa.Executable, /, **values: Any) -> Any:
        """The first row of a query, or None."""
        return self._connection.execute(statement, values).first()

    def change(self, statement: sa.Executable, /, **values: Any) -> int:
        """Run an update or a delete; how many rows it hit."""
        return int(self._connection.execute(statement, values).rowcount)

    def insert(self, statement: sa.Insert, /, **values: Any) -> int:
        """Insert one row of a table with an ``id``; returns it."""
        key = self._connection.execute(statement, values).inserted_primary_key
        assert key is not None, "the table has no id"
        return int(key[0])

    def queue_for(self, *names: str) -> None:
        """Let no other transaction that names one of these run until this one ends.

        SQLite has one writer at a time anyway. Two names may share a lock by chance, which only
        makes their transactions follow each other. Callers name things in one order everywhere.
        """
        if self.postgres:
            numbers = [zlib.crc32(name.encode("utf-8")) - 2**31 for name in names]
            self._connection.execute(_LOCK, {"space": _LOCK_SPACE, "numbers": numbers})


class Store:
    """An open lease database; thread-safe."""

    def __init__(self, url: sa.URL, engine: sa.Engine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**{WRITING: True})
        self._turnstile: Turnstile | None = None
        file = urls.file_of(url)
        if file is not None:
            with _turnstiles_guard:
                key = str(file.resolve())
                self._turnstile = _turnstiles.setdefault(key, Turnstile())
        self.name = urls.shown(url)
        self.postgres = file is None

    @classmethod
    def open(cls, url: str, *, create: bool = False) -> Store:
        """Open the lease database; ``create`` makes an empty one ready instead of refusing it.

        Raises :class:`~jupyterhub_migspawner.errors.DatabaseError` when it cannot be reached,
        is no lease database, or has another schema than this code knows.
        """
        migrations.ready(url, create=create)
        parsed = urls.parse(url)
        return cls(parsed, make_engine(parsed))

    def close(self) -> None:
        """Close all connections; a later call would open new ones."""
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
            committing = False
            try:
                engine = self._writing if write else self._engine
                with engine.connect() as connection, connection.begin() as transaction:
                    yield Transaction(connection)
                    committing = True
                    transaction.commit()
            except exc.SQLAlchemyError as error:
                raise database_error(self.name, error, committing=committing) from error

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
