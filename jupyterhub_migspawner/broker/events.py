"""What has happened: the event log, read, followed and compacted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.checks import wanted_id, wanted_name
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.db import compaction, queries
from jupyterhub_migspawner.db.compaction import Compaction, EventCount
from jupyterhub_migspawner.model.events import EVERYTHING, EventPage, EventQuery, EventRow

MOST_EVENTS = 10_000
"""Most events of one answer."""


class Events:
    """Use cases about the event log."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def find(
        self, after_id: int = 0, limit: int = 1_000, query: EventQuery = EVERYTHING
    ) -> tuple[EventRow, ...]:
        """Return up to ``limit`` events that came after the one with that id, oldest first."""
        return self.page(after_id, limit, query).events

    def page(self, after_id: int, limit: int = 1_000, query: EventQuery = EVERYTHING) -> EventPage:
        """Return events as :meth:`find` does, for a reader that goes on.

        Nothing with a smaller id than the page's ``read_to`` comes later.
        """
        most = max(0, min(int(limit), MOST_EVENTS))
        begin = max(0, min(int(after_id), 2**63 - 1))
        wanted = _storable(query)
        return self._context.read(lambda tx: queries.events.after(tx, begin, most, wanted))

    def last(self, limit: int = 1_000, query: EventQuery = EVERYTHING) -> EventPage:
        """Return the newest events, oldest first; with a limit of 0 only where the log ends now."""
        most = max(0, min(int(limit), MOST_EVENTS))
        wanted = _storable(query)
        return self._context.read(lambda tx: queries.events.last(tx, most, wanted))

    def old(self, days: int) -> tuple[int, int]:
        """Count the events older than ``days`` that would become counts, and those that would stay.

        Those stay that belong to a live lease or an open request.
        """
        before = self._days_ago(days)
        return self._context.read(lambda tx: compaction.old(tx, before))

    def begin_compaction(self, days: int) -> Compaction:
        """Return what there is to compact of events older than ``days``, for :meth:`compact`."""
        before = self._days_ago(days)
        return self._context.read(lambda tx: compaction.begin(tx, before))

    def compact(self, so_far: Compaction) -> Compaction:
        """Turn some old events into counts; call it with its answer until it is done.

        Each call is short, so that others can write in between.
        """
        return self._context.run(lambda tx: compaction.go_on(tx, so_far))

    def counts(self) -> tuple[EventCount, ...]:
        """Return what is left of the events that were compacted, by month."""
        return self._context.read(compaction.counts)

    def heard(self, ring: Callable[[], object]) -> AbstractContextManager[None]:
        """Call ``ring`` after changes that may have freed something, while the context lasts.

        From another thread; it has to be quick. A hint: see :mod:`.leases.wakeups`.
        """
        return self._context.store.wakeups.heard(ring)

    def reader_position(self, reader: str) -> int:
        """Return the last event that a reader has passed on; a new one begins at the log's end."""
        found = self._context.read(lambda tx: compaction.position(tx, reader))
        if found is not None:
            return found
        return self.move_reader(reader, self.last(0).read_to)

    def move_reader(self, reader: str, event_id: int) -> int:
        """Record how far a reader has come; return it."""
        self._context.run(lambda tx: compaction.move(tx, reader, event_id))
        return event_id

    def _days_ago(self, days: int) -> datetime:
        return self._context.now() - timedelta(days=days)


def _storable(query: EventQuery) -> EventQuery:
    return replace(
        query,
        user=None if query.user is None else wanted_name(query.user),
        card_uuid=None if query.card_uuid is None else wanted_name(query.card_uuid),
        lease_id=None if query.lease_id is None else wanted_id(query.lease_id),
        request_id=None if query.request_id is None else wanted_id(query.request_id),
    )
