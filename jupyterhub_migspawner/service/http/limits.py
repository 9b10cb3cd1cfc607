"""Turns at the lease database: no visitor takes all of its threads.

Relies on one event loop. Promises that a visitor has at most a few calls under way, however many
requests they send at once; their others wait for their own, and nobody else's wait for them. Only
so many requests of theirs are answered at the same time: each holds one of the connections.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jupyterhub_migspawner.errors import Refusal

MOST_OF_ONE = 2
"""Calls of one visitor that are under way at the same time."""

MOST_REQUESTS = 40
"""Requests of one visitor that are being answered at the same time; more are refused."""


class Turns:
    """Turns by visitor; ``most`` are under way at the same time for each of them."""

    def __init__(self, most: int = MOST_OF_ONE) -> None:
        self._most = most
        self._turns: dict[str, tuple[asyncio.Semaphore, int]] = {}
        self._requests: Counter[str] = Counter()

    def begin(self, visitor: str) -> None:
        """Count a request of this visitor, until :meth:`end`.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``too-many``) and counts nothing
        where there are too many.
        """
        if self._requests[visitor] >= MOST_REQUESTS:
            raise Refusal(
                f"{MOST_REQUESTS} other requests of yours are in progress. Send fewer at the "
                "same time, and try again in a few seconds.",
                reason="too-many",
                retry_after=5,
            )
        self._requests[visitor] += 1

    def end(self, visitor: str) -> None:
        """Count a request of :meth:`begin` as answered."""
        self._requests[visitor] -= 1
        if not self._requests[visitor]:
            del self._requests[visitor]

    @asynccontextmanager
    async def of(self, visitor: str) -> AsyncIterator[None]:
        """Wait for this visitor's turn, and hold it."""
        turns, users = self._turns.get(visitor) or (asyncio.Semaphore(self._most), 0)
        self._turns[visitor] = turns, users + 1
        try:
            async with turns:
                yield
        finally:
            users = self._turns[visitor][1] - 1
            if users:
                self._turns[visitor] = turns, users
            else:
                del self._turns[visitor]
