"""Several statements in one round trip to PostgreSQL.

libpq's pipeline mode sends statements without waiting for the answer to the one before. They are
still run one after the other, and at READ COMMITTED each sees what was committed before it, so that
a statement may wait for a lock and the next one read what its holder has written.

The first statement that fails ends the round trip: those after it are not run.
(https://www.postgresql.org/docs/current/libpq-pipeline-mode.html)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
COMMIT = "COMMIT"
"""Sent by us, so that they share a round trip with the statements beside them."""

# Server errors that a statement has, as opposed to a connection (PostgreSQL, appendix A).
_OF_STATEMENTS = ("22", "23", "25", "40", "42", "55")


def send(connection: Any, statements: Sequence[tuple[str, Any]]) -> list[Any]:
    """Run statements, given as text and values, in one round trip.

    ``connection`` is psycopg's, in autocommit mode. Returns a cursor with the answer for each
    statement. Raises the driver's error of the first that failed.
    """
    cursors = [connection.cursor() for _ in statements]
    failure: BaseException | None = None
    try:
        with connection.pipeline():
            try:
                for cursor, (sql, values) in zip(cursors, statements, strict=True):
                    # The others are prepared by the driver when they come again and again.
                    cursor.execute(sql, values, prepare=False if sql in (BEGIN, COMMIT) else None)
            except connection.Error as error:
                # Not through the block's end, which would log what this led to as a warning.
                failure = error
    except connection.Error as error:
        failure = failure or error
    if failure is not None:
        with suppress(connection.Error):
            if connection.pgconn.pipeline_status:
                # It did not come out of pipeline mode, as when the server ends the session in the
                # middle: nothing can be done with it any more.
                connection.close()
        raise _first(failure)
    return cursors


def is_of_statement(error: Exception) -> bool:
    """Tell whether an error is of a statement, so that nothing was committed after it."""
    return str(getattr(error, "sqlstate", None) or "")[:2] in _OF_STATEMENTS


def _first(error: BaseException) -> BaseException:
    """Return the server's error that made a pipeline fail, where there is one.

    The driver raises what that led to, which has no state of its own ("pipeline aborted").
    """
    found: BaseException | None = error
    while found is not None and not getattr(found, "sqlstate", None):
        found = found.__context__
    return found or error
