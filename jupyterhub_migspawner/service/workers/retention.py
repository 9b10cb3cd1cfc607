"""Once a day: old events become counts, a few at a time, so that starts need not wait for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.compaction import Compaction
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")

#: Seconds between two checks for something to do.
PAUSE = 60.0

#: Transactions of one round; the service cannot end in the middle of one.
_STEPS = 20

_DAY = timedelta(days=1)


class Compactor:
    """Keeps single events for ``days``, one :meth:`round` at a time.

    ``clock`` gives the present as aware UTC.
    """

    def __init__(self, parts: Parts, days: int, *, clock: Callable[[], datetime]) -> None:
        self._parts = parts
        self._days = days
        self._clock = clock
        self._next: datetime | None = None
        self._so_far: Compaction | None = None

    async def round(self) -> None:
        """Continue, or begin again when a day is over. Raises :exc:`.DatabaseError`."""
        if not self._days:
            return
        if self._so_far is None:
            now = self._clock()
            # One further away than that was noted before the clock was set back.
            if self._next is not None and self._next - _DAY <= now < self._next:
                return
            self._so_far = await self._parts.ask(
                lambda broker: broker.events.begin_compaction(self._days)
            )
            self._next = now + _DAY
        for _ in range(_STEPS):
            so_far = self._so_far
            if so_far.done:
                if so_far.number:
                    log.info("%d old events were replaced by counts.", so_far.number)
                self._so_far = None
                return
            self._so_far = await self._parts.ask(partial(_compact, so_far))


def _compact(so_far: Compaction, broker: Broker) -> Compaction:
    return broker.events.compact(so_far)
