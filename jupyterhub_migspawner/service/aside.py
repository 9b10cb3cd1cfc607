"""An event loop in a thread of its own, for talk with strangers.

Relies on asyncio alone. Promises that whatever is run there, however it is kept busy by what it
hears, leaves the caller's event loop to everybody else; and that it ends with its last user.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

END_SECONDS = 5.0
"""Seconds for what is still being done when all is let go of."""


class Aside:
    """Runs coroutines beside the caller's event loop; ``name`` is the thread's."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        # A daemon: nobody's last word holds up the end of the program.
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, doing: Coroutine[Any, Any, T]) -> T:
        """Do it there. Raises what it raises; who is cancelled here cancels it there."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(doing, self._loop))

    def make(self, maker: Callable[[], T]) -> T:
        """Make something that belongs to that loop, such as a client. Raises what it raises."""

        async def made() -> T:
            return maker()

        return asyncio.run_coroutine_threadsafe(made(), self._loop).result()

    def close(self, last: Callable[[], None]) -> None:
        """Cancel all that is still being done, do the ``last`` of it there, and end the thread."""
        if self._loop.is_closed():
            return

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for each in others:
                each.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            last()

        try:
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(END_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(END_SECONDS)
            if not self._thread.is_alive():
                self._loop.close()
