"""Alarms about other local users' processes at ports where a server or the hub should listen.

Relies on :mod:`.peers` to find them. Promises an event, and so a notice to the admins, and a line
of the log for each such user and port, once within an hour; and to hold up nothing: the event is
written in a thread, and what cannot be written is logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.clients import WrongPeer
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.service.clients.tokens import Reach
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")

AGAIN_SECONDS = 3600.0
"""Seconds after which an alarm is raised again."""

MOST_KEPT = 1000
"""Alarms that are remembered."""


class Alarms:
    """Raises alarms; may be called from any thread. ``monotonic`` gives seconds."""

    def __init__(
        self, parts: Parts, node: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts = parts
        self._node = node
        self._monotonic = monotonic
        self._raised: dict[tuple[str, int], float] = {}
        self._guard = threading.Lock()

    def at_server(self, reach: Reach, error: WrongPeer) -> None:
        """Report that another user's process has the port of a session's server."""
        where = f"The server of session {reach.lease_id}"
        self._raise(f"{where}: {error}.", reach.url, error, reach.lease_id, reach.user)

    def at_hub(self, error: WrongPeer) -> None:
        """Report that another user's process has the hub's port."""
        self._raise(f"The hub's REST API: {error}.", "hub", error, None, "")

    def _raise(
        self, why: str, where: str, error: WrongPeer, lease_id: int | None, user: str
    ) -> None:
        uid = error.uid
        if uid is None or not self._is_new((where, uid)):
            return
        log.error("%s Nothing was sent to it. Processes: %s", why, sorted(error.pids) or "unknown")

        def note(broker: Broker) -> None:
            broker.notices.note_port_taken(
                node=self._node,
                why=why,
                uid=uid,
                pids=tuple(sorted(error.pids)),
                lease_id=lease_id,
                user=user,
            )

        self._parts.database.submit(self._write, note)

    def _is_new(self, key: tuple[str, int]) -> bool:
        now = self._monotonic()
        with self._guard:
            before = self._raised.get(key)
            if before is not None and now - before < AGAIN_SECONDS:
                return False
            if len(self._raised) >= MOST_KEPT:
                self._raised.clear()
            self._raised[key] = now
            return True

    def _write(self, note: Callable[[Broker], None]) -> None:
        try:
            note(self._parts.broker)
        except MigspawnerError as error:
            log.warning("The event that a port was taken could not be recorded: %s", error)
