"""Event loop in a background thread, for requests to untrusted servers.

Relies on asyncio, and on tornado to know its connections. Promises that whatever is run there,
however it is kept busy by what it hears, leaves the caller's event loop to everybody else; and that
nothing of it is left once it is closed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from typing import Any, TypeVar

from tornado.ioloop import IOLoop

T = TypeVar("T")

END_SECONDS = 5.0
"""Seconds for what is still being done when all is let go of."""


class BackgroundLoop:
    """Runs coroutines beside the caller's event loop; ``name`` is the thread's."""

    def __init__(self, name: str) -> None:
        self._closed = False
        self._loop = asyncio.new_event_loop()
        # A daemon: nobody's last word holds up the end of the program.
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self._streams = self.make(IOLoop.current)

    async def run(self, doing: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there. Raises what it raises; who is cancelled here cancels it there.

        Once all is let go of, calls that still wait for their turn are cancelled.
        """
        if self._closed:
            doing.close()
            raise asyncio.CancelledError
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(doing, self._loop))

    def make(self, maker: Callable[[], T]) -> T:
        """Make something that belongs to that loop, such as a client. Raises what it raises."""

        async def made() -> T:
            return maker()

        return asyncio.run_coroutine_threadsafe(made(), self._loop).result()

    def close(self, last: Callable[[], None]) -> None:
        """Cancel all that is still being done, do the ``last`` of it there, and end the thread."""
        if self._closed:
            return
        self._closed = True

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for each in others:
                each.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            last()

        with suppress(Late):
            asyncio.run_coroutine_threadsafe(end(), self._loop).result(END_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(END_SECONDS)
        if not self._thread.is_alive():
            # tornado lets go of no connection when a request is cancelled.
            self._streams.close(all_fds=True)
