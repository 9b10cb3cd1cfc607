"""Following the event log: what ``migspawner events --follow`` does between two events.

Relies on the broker for an order of events that never changes behind a reader. Promises that every
event is shown once, in that order, also those of the time in which the database did not answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.output import complain
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.model.events import EventQuery, EventRow

#: Seconds between two looks at a log in which nothing is new.
PAUSE = 1.0

_PAGE = 500


class Follower:
    """Shows the events after ``read_to`` that a query wants, as they happen."""

    def __init__(
        self,
        broker: Broker,
        query: EventQuery,
        read_to: int,
        show: Callable[[EventRow], None],
    ) -> None:
        self._broker = broker
        self._query = query
        self._read_to = read_to
        self._show = show
        self._away = False

    def run(self, pause: Callable[[float], object]) -> NoReturn:
        """Go on until something is raised; ``pause`` waits for that many seconds."""
        while True:
            if not self._read():
                pause(PAUSE)

    def _read(self) -> bool:
        """Show a page; whether there may be more of them already."""
        try:
            page = self._broker.event_page(self._read_to, _PAGE, self._query)
        except DatabaseError as error:
            if not self._away:
                complain(f"migspawner: {error} The events go on when it answers again.")
            self._away = True
            return False
        if self._away:
            complain("migspawner: The lease database answers again.")
            self._away = False
        for event in page.events:
            self._show(event)
        self._read_to = page.read_to
        return len(page.events) == _PAGE
