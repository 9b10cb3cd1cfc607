"""Events of the log, passed on as structured events of Jupyter.

Relies on ``jupyter_events``, which the hub brings along, and on the admin's
``c.EventLogger.handlers``, which the hub's own events use too; on the broker for an order of events
that never changes behind a reader. Promises that every event since the first start with handlers is
given to them at least once, in order, also those of the time in which the service was away; after a
crash some are given again, with the same ``id``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING

import yaml
from traitlets import TraitError
from traitlets.config import Config

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.views import event_view
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.model.events import FAMILIES, EventPage, EventRow
from jupyterhub_migspawner.service.parts import Parts

if TYPE_CHECKING:
    from jupyter_events import EventLogger

log = logging.getLogger("migspawner.service")

#: Seconds between two looks for new events.
PAUSE = 1.0

_PAGE = 200

#: Pages of one round; the service cannot end in the middle of one.
_PAGES = 10


def schema_id(family: str) -> str:
    """Return the ``$id`` of the schema for a family of kinds."""
    return f"urn:jupyterhub-migspawner:{family}"


def event_logger(config: Config) -> EventLogger | None:
    """Return the logger with the admin's handlers and our schemas; None without handlers.

    Raises :exc:`.ConfigError` when the handlers are none.
    """
    if not config.get("EventLogger", {}).get("handlers"):
        return None
    # Loaded only here: its schema checker takes longer than all else at the service's start.
    from jupyter_events import EventLogger

    try:
        logger = EventLogger(config=config)
    except TraitError as error:
        raise ConfigError(
            f"EventLogger.handlers cannot be used: {error} Expected a list of handlers of "
            "Python's logging."
        ) from None
    for family in FAMILIES:
        text = files("jupyterhub_migspawner.service").joinpath(f"event-schemas/{family}.yaml")
        logger.register_event_schema(yaml.safe_load(text.read_text("utf-8")))
    return logger


def emit(logger: EventLogger, event: EventRow) -> None:
    """Give one event to the handlers, dated when it happened."""
    logger.emit(
        schema_id=schema_id(event.kind.split(".")[0]),
        data=dict(event_view(event)),
        # The logger puts a Z behind the time, whatever its zone says.
        timestamp_override=event.at.replace(tzinfo=None),
    )


class Emitter:
    """Passes the log on, one :meth:`round` at a time.

    ``reader`` is the name under which the lease database keeps how far it has come.
    """

    def __init__(self, parts: Parts, logger: EventLogger, reader: str) -> None:
        self._parts = parts
        self._logger = logger
        self._reader = reader
        self._read_to: int | None = None

    async def round(self) -> None:
        """Pass on what is new. Raises :exc:`.DatabaseError`; the next round goes on from there."""
        ask = self._parts.ask
        read_to = self._read_to
        if read_to is None:
            read_to = await ask(lambda broker: broker.events.reader_position(self._reader))
        for _ in range(_PAGES):
            page = await ask(partial(_page, read_to))
            if page.events:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._parts.database, self._emit, page.events)
                await ask(partial(_move, self._reader, page.read_to))
            self._read_to = read_to = page.read_to
            if len(page.events) < _PAGE:
                return

    def _emit(self, events: Sequence[EventRow]) -> None:
        for event in events:
            try:
                emit(self._logger, event)
            except Exception:
                # One that a handler or its own schema refuses must not hold up all after it.
                log.exception("Event %d (%s) could not be passed on.", event.id, event.kind)


def _page(read_to: int, broker: Broker) -> EventPage:
    return broker.events.page(read_to, _PAGE)


def _move(reader: str, read_to: int, broker: Broker) -> int:
    return broker.events.move_reader(reader, read_to)
