"""Run a worker's round again and again.

Promises that one round never overlaps the next, and that a round which fails is skipped and the
next one tries again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from jupyterhub_migspawner.broker.clock import length
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.outages import Outage
from jupyterhub_migspawner.policy.wording import plural
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")


class Loop:
    """Runs one thing again and again, ``seconds`` after it last ended, whatever becomes of it."""

    def __init__(
        self,
        name: str,
        seconds: float,
        round_: Callable[[], Awaitable[None]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.seconds = seconds
        self._round = round_
        self._monotonic = monotonic
        self._outage = Outage(monotonic=monotonic)

    async def run(self, stop: asyncio.Event) -> None:
        """Run rounds until ``stop`` is set; a round under way is finished first."""
        while not stop.is_set():
            await self.once()
            try:
                await asyncio.wait_for(stop.wait(), self.seconds)
            except asyncio.TimeoutError:
                continue

    async def once(self) -> None:
        """Run one round. An outage is logged when it begins, changes and is over, not each time."""
        try:
            await self._round()
        except MigspawnerError as error:
            if self._outage.failed(str(error)):
                log.warning("The %s is skipped for now: %s", self.name, error)
        except Exception as error:
            if self._outage.failed(repr(error)):
                log.exception("The %s failed with an unexpected error; it continues.", self.name)
        else:
            failures = self._outage.worked()
            if failures:
                log.info("The %s works again, after %s.", self.name, plural(failures, "failure"))

    def in_time(self, parts: Parts) -> Loop:
        """Return the same loop, with a look before each round whether the clock was set.

        No round decides by a clock that jumped, and none is made while nobody knows.
        """

        async def timed() -> None:
            step = await parts.ask(lambda broker: broker.clock.watch())
            if step:
                log.warning(
                    "The clock was set %s by %s; sessions, grants and offers keep their "
                    "remaining time.",
                    "forward" if step > timedelta(0) else "back",
                    length(step),
                )
            await self._round()

        return Loop(self.name, self.seconds, timed, monotonic=self._monotonic)
