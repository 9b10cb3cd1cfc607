"""The agent of the hub's machine as a process beside the web server, and its supervision.

Relies on the service, which starts it (``python -m jupyterhub_migspawner.agent``), holds its
standard input open and starts it again when it ends. Promises that the node's work needs nothing of
the web server but that it lives: it has descriptors, memory and threads of its own. It ends when
its input ends, so with the service, however that ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from jupyterhub_migspawner.config.handover import SETTINGS, sealed_file
from jupyterhub_migspawner.hub.ports import CALLERS, SOCKETS
from jupyterhub_migspawner.outages import Outage

log = logging.getLogger("migspawner.service")

PATIENCE = 10.0
"""Seconds the agent is given to end."""

STEADY = 60.0
"""Seconds after which an agent that ended is started again at once."""

LONGEST_PAUSE = 30.0
"""Most seconds before an agent that ends again and again is started again."""

#: What is the web server's alone.
_NOT_PASSED_ON = frozenset({SOCKETS, CALLERS, SETTINGS})


class AgentProcess:
    """Keeps the agent running.

    ``config_file`` is the hub's; ``document`` is what the hub read, which the agent is given, or
    empty: then it reads the file. ``clock`` gives seconds.
    """

    def __init__(
        self, config_file: str, document: bytes = b"", *, clock: Callable[[], float] | None = None
    ) -> None:
        self._config_file = str(Path(config_file).absolute())
        self._document = document
        self._clock = clock
        self.pid = 0

    async def run(self, stop: asyncio.Event) -> bool:
        """Keep the agent running until ``stop`` is set; return False when a round did not end."""
        pause = 0.0
        outage = Outage()
        ended = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                begun = self._now()
                try:
                    process = await self._start()
                except OSError as error:
                    # No process, memory or descriptor is left on this machine just now.
                    pause = min(LONGEST_PAUSE, 2 * pause or 1.0)
                    if outage.failed(str(error)):
                        log.error(
                            "The agent of this node cannot be started (%s); it is tried again.",
                            error.strerror or error,
                        )
                    await asyncio.wait({ended}, timeout=pause)
                    continue
                outage.worked()
                self.pid = process.pid
                gone = asyncio.ensure_future(process.wait())
                await asyncio.wait({gone, ended}, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    return await self._end(process, gone)
                steady = self._now() - begun > STEADY
                pause = 0.0 if steady else min(LONGEST_PAUSE, 2 * pause or 1.0)
                log.error(
                    "The agent of this node ended (%s); it is started again %s.",
                    _described(gone.result()),
                    f"in {pause:.0f} s" if pause else "at once",
                )
                await asyncio.wait({ended}, timeout=pause)
            return True
        finally:
            ended.cancel()

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {k: v for k, v in os.environ.items() if k not in _NOT_PASSED_ON}
        # JupyterHub's own variables hold the service's token, under its old name as well, which an
        # agent has no use for.
        hubs = ("JUPYTERHUB_", "JPY_")
        environment = {k: v for k, v in environment.items() if not k.startswith(hubs)}
        given = sealed_file(self._document) if self._document else None
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "jupyterhub_migspawner.agent",
                "--config",
                self._config_file,
                *([] if given is None else ["--settings", str(given)]),
                stdin=asyncio.subprocess.PIPE,
                env=environment,
                pass_fds=() if given is None else (given,),
            )
        finally:
            if given is not None:
                os.close(given)

    async def _end(self, process: asyncio.subprocess.Process, gone: asyncio.Future[int]) -> bool:
        assert process.stdin is not None
        process.stdin.close()
        done, _ = await asyncio.wait({gone}, timeout=PATIENCE)
        return bool(done)

    def _now(self) -> float:
        return (self._clock or asyncio.get_running_loop().time)()


def _described(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
