"""One transaction in the lease database: statements, locks, and what is sent together.

Relies on :mod:`.statements` for their text and values and on :mod:`.pipeline` for round trips.
Promises rows as named tuples with the types of their columns, alike from both databases.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db import identity, pipeline
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.db.statements import Prepared, Statements
from jupyterhub_migspawner.errors import DatabaseError

Watch = Callable[[str, Any], None]
Sent = tuple[str, Any]
Asked = tuple[sa.Executable, dict[str, Any]]

# Advisory locks live in one name space per database; this keeps ours apart from other programs'.
_LOCK_SPACE = 0x6D696773

# One call a row, in the order of the numbers given.
_LOCK = sa.text(
    "SELECT pg_advisory_xact_lock(:space, number) "
    "FROM unnest(CAST(:numbers AS integer[])) WITH ORDINALITY AS asked (number, place) "
    "ORDER BY place"
)


class Transaction:
    """What runs inside one transaction; handed out by :class:`.store.Store`.

    Rows are named tuples. Statements are kept compiled, by identity: build them once.

    On PostgreSQL what goes to the server and back is counted in round trips: the transaction begins
    with its first statement, what :meth:`send` is given goes with the next one or with the commit,
    and what is asked in :meth:`together` goes at once. SQLite runs in this process and has none.
    """

    __slots__ = (
        "_answers",
        "_begin",
        "_connection",
        "_newest_event",
        "_statements",
        "_unsent",
        "_watch",
        "announced",
        "begun_at",
        "cursor",
        "node",
        "notified",
        "postgres",
        "writing",
    )

    def __init__(
        self,
        connection: Any,
        statements: Statements,
        watch: Watch | None,
        begin: Callable[[], Callable[[Position | None], None]] | None,
        *,
        writing: bool,
    ) -> None:
        """Run statements on a driver's connection.

        ``begin`` is for PostgreSQL: it is called before anything is sent. What it returns gets the
        position of the database with the first answer, and raises if nothing else that was read may
        be believed. None for SQLite, where the transaction has begun.
        """
        self._connection = connection
        self.cursor = connection.cursor()
        self._statements = statements
        self._watch = watch
        self._begin = begin
        self._unsent: list[Sent] = []
        self._answers: list[tuple[sa.Executable, dict[str, Any], list[Any]]] = []
        #: The node that this process may write for; empty for all of them.
        self.node = ""
        self.postgres = begin is not None
        self.writing = writing
        #: Where the database was when the transaction began; SQLite only.
        self.begun_at: Position | None = None
        self._newest_event = 0
        #: Whether readers of the event log know that this transaction writes to it.
        self.announced = False
        #: Whether it tells waiters that it may have freed something.
        self.notified = False

    def _prepared(self, statement: sa.Executable, values: dict[str, Any]) -> tuple[Prepared, Any]:
        try:
            prepared = self._statements.prepared(statement, tuple(values))
            parameters = prepared.parameters(values)
        except (TypeError, ValueError) as error:
            raise DatabaseError(
                f"A value cannot be stored in the lease database: {error}."
            ) from error
        if self._watch is not None:
            self._watch(prepared.sql, parameters)
        return prepared, parameters

    def _execute(self, statement: sa.Executable, values: dict[str, Any]) -> tuple[Prepared, Any]:
        """Run a statement; return it and the cursor with its answer."""
        prepared, parameters = self._prepared(statement, values)
        if self._answers and not prepared.only_reads:
            # What was read before may not be true afterwards.
            self._answers.clear()
        if self._begin is None and not self._unsent:
            self.cursor.execute(prepared.sql, parameters)
            return prepared, self.cursor
        return prepared, self._trip([(prepared.sql, parameters)])[-1]

    def _trip(self, statements: list[Sent]) -> list[Any]:
        """Send statements after those still to be sent; return the cursors with the answers."""
        begin, self._begin = self._begin, None
        first: list[Sent] = [] if begin is None else [(pipeline.BEGIN, ()), (identity.POSITION, ())]
        before, self._unsent = first + self._unsent, []
        compare = None if begin is None else begin()
        cursors = pipeline.send(self._connection, before + statements)
        if compare is not None:
            compare(identity.position_of(cursors[1].fetchone()))
        return cursors[len(before) :]

    def flush(self) -> None:
        """Begin now, and send what :meth:`send` was given, instead of with the next statement."""
        if self._begin is not None or self._unsent:
            self._trip([])

    def ensure_begun(self) -> None:
        """Begin now if something was sent and nothing was asked.

        The commit is not sent in the same round trip: it has to be the right database first.
        """
        if self._begin is not None and self._unsent:
            self.flush()

    def commit(self) -> Position | None:
        """End the transaction; return how far the database is if it wrote to the event log."""
        if self._watch is not None:
            self._watch(pipeline.COMMIT, ())
        # Whatever counts is an event, too.
        if not self.postgres:
            self._connection.commit()
            begun = self.begun_at
            if begun is None or not self.announced:
                return None
            # There is no other writer meanwhile, so the position is known without a query. A new
            # lease has an event as well, which shows an older copy as surely as its number does.
            return Position(begun.identity, begun.generation, begun.lease, self._newest_event)
        if self._begin is not None:
            return None  # nothing was asked
        last: list[Sent] = [(identity.POSITION, ())] if self.announced else []
        cursors = self._trip([*last, (pipeline.COMMIT, ())])
        return identity.position_of(cursors[0].fetchone()) if last else None

    def rows(self, statement: sa.Executable, /, **values: Any) -> list[Any]:
        """Return all rows of a query."""
        if self._answers:
            for place, (read, given, found) in enumerate(self._answers):
                if read is statement and given == values:
                    del self._answers[place]
                    return found
        prepared, cursor = self._execute(statement, values)
        return prepared.rows(cursor)

    def first(self, statement: sa.Executable, /, **values: Any) -> Any:
        """Return the first row of a query, or None."""
        # All are fetched: SQLite does not commit while a statement is not at its end.
        found = self.rows(statement, **values)
        return found[0] if found else None

    def change(self, statement: sa.Executable, /, **values: Any) -> int:
        """Run an insert, an update or a delete; return how many rows it hit."""
        _, cursor = self._execute(statement, values)
        return int(cursor.rowcount)

    def send(self, statement: sa.Executable, /, **values: Any) -> None:
        """Run a statement whose answer nobody needs, with the next one or with the commit."""
        self._answers.clear()
        prepared, parameters = self._prepared(statement, values)
        if self.postgres:
            self._unsent.append((prepared.sql, parameters))
        else:
            self.cursor.execute(prepared.sql, parameters)

    def note_event(self) -> None:
        """Note that the statement that was sent last has added an event."""
        self.announced = True
        if not self.postgres:
            self._newest_event = self.cursor.lastrowid

    def insert(self, statement: sa.Executable, /, **values: Any) -> int:
        """Insert one row with a statement that returns its ``id``; return that."""
        return int(self.first(statement, **values)[0])

    @contextmanager
    def together(self) -> Iterator[Together]:
        """Run in one round trip, one after the other, what the block asks of the object it gets.

        There everything finds nothing. Asked again of this transaction, each statement has its
        answer, once, unless another one has changed or locked something before. SQLite runs them
        only then, so ask again in the same order where that matters.
        """
        together = Together(self)
        yield together
        if self.postgres:
            self._run(together.asked)

    def _run(self, asked: list[Asked]) -> None:
        prepared = [self._prepared(statement, values) for statement, values in asked]
        cursors = self._trip([(each.sql, parameters) for each, parameters in prepared])
        self._answers = [
            (statement, values, each.rows(cursor))
            for (statement, values), (each, _), cursor in zip(asked, prepared, cursors, strict=True)
        ]

    def forget_answers(self) -> None:
        """Ask again what :meth:`together` has the answers to."""
        self._answers.clear()

    def queue_for(self, *names: str) -> None:
        """Let no other transaction that names one of these run until this one ends.

        SQLite has one writer at a time anyway. Two names may share a lock by chance, which only
        makes their transactions follow each other. Callers name things in one order everywhere.
        """
        if self.postgres:
            numbers = [zlib.crc32(name.encode("utf-8")) - 2**31 for name in names]
            self.send(_LOCK, space=_LOCK_SPACE, numbers=numbers)


class Together(Transaction):
    """What :meth:`Transaction.together` gives: it notes queries and finds nothing."""

    __slots__ = ("asked",)

    def __init__(self, of: Transaction) -> None:
        """Note queries for the transaction ``of``."""
        self.postgres = of.postgres
        self.writing = of.writing
        self.asked: list[Asked] = []

    def rows(self, statement: sa.Executable, /, **values: Any) -> list[Any]:
        """Note a query."""
        self.asked.append((statement, values))
        return []

    def change(self, statement: sa.Executable, /, **values: Any) -> int:
        """Refuse: there is no answer yet."""
        raise TypeError("what goes together is asked by rows() and first()")

    send = change  # type: ignore[assignment]
    queue_for = change  # type: ignore[assignment]


def read_position(cursor: Any) -> Position | None:
    """Return how far the database has come, by a driver's cursor."""
    cursor.execute(identity.POSITION)
    rows = cursor.fetchall()
    return identity.position_of(rows[0] if rows else None)
