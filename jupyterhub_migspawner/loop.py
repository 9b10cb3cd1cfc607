"""Run one thing again and again, in the service and in the agent.

Promises that one round never overlaps the next, and that a round which fails is skipped and the
next one tries again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.outages import Outage
from jupyterhub_migspawner.policy.wording import plural

log = logging.getLogger("migspawner.loop")


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

    def after(self, first: Callable[[], Awaitable[None]]) -> Loop:
        """Return the same loop, which does ``first`` before each round, or no round."""

        async def both() -> None:
            await first()
            await self._round()

        return Loop(self.name, self.seconds, both, monotonic=self._monotonic)
