"""The node's agent as a process beside the web server.

Relies on the service, which starts it (``python -m jupyterhub_migspawner.service.node``), holds its
standard input open and starts it again when it ends. Promises that the node's work needs nothing of
the web server but that it lives: it has descriptors, memory and threads of its own. It ends when
its input ends, so with the service, however that ends.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from traitlets.config import Config

from jupyterhub_migspawner.agent import make_agent
from jupyterhub_migspawner.agent.vacancy import Vacancy
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.config.handover import SETTINGS, read_file, sealed_file
from jupyterhub_migspawner.db import backup_files, queries
from jupyterhub_migspawner.errors import MigspawnerError, Refusal
from jupyterhub_migspawner.hub.ports import CALLERS, SOCKETS
from jupyterhub_migspawner.model.leases import RELEASING
from jupyterhub_migspawner.outages import Outage
from jupyterhub_migspawner.service.http.connections import raise_file_limit
from jupyterhub_migspawner.service.http.logs import set_up_log
from jupyterhub_migspawner.service.settings import of_document
from jupyterhub_migspawner.service.workers.loop import Loop

log = logging.getLogger("migspawner.service")

PATIENCE = 10.0
"""Seconds a round under way is given to end."""

STEADY = 60.0
"""Seconds after which an agent that ended is started again at once."""

SECOND_LOOK = 1.0
"""Seconds between the two looks of a hub that ends."""

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
                "jupyterhub_migspawner.service.node",
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


async def look_after_cards(options: MigBroker, stop: asyncio.Event) -> bool:
    """Run this node's agent until ``stop`` is set; return False when a round did not end."""
    options.may_create = not backup_files.was_lost(options.resolved_database_url())
    agent = make_agent(options)
    cards = ThreadPoolExecutor(1, "cards")

    async def look_at_cards() -> None:
        await asyncio.get_running_loop().run_in_executor(cards, agent.tick)

    loop = asyncio.ensure_future(
        Loop("look at the cards", options.tick_seconds, look_at_cards).run(stop)
    )
    await stop.wait()
    _, late = await asyncio.wait({loop}, timeout=PATIENCE)
    cards.shutdown(wait=False, cancel_futures=True)
    if not late:
        options.open_nvml().close()
    return not late


def look_once(options: MigBroker, *, sleep: Callable[[float], object] = time.sleep) -> None:
    """Confirm what is being released on this node, as far as it is empty now; ends no process.

    Looks twice, since a server that was stopped a moment ago may still be going. ``sleep`` gets
    seconds. Raises :exc:`.ConfigError` and :exc:`.DatabaseError`.
    """
    options.may_create = False
    broker, nvml = options.open_broker(), options.open_nvml()
    vacancy = Vacancy(broker, nvml, node=options.node)
    try:
        for pause in (0.0, SECOND_LOOK):
            ending = broker.leases.find(node=options.node, states=(RELEASING,))
            if ending:
                sleep(pause)
            for lease in ending:
                # Another process may have moved it on meanwhile.
                with suppress(Refusal):
                    vacancy.look(lease)
    finally:
        nvml.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run this node's agent until standard input ends, or look once; return 1 if it cannot."""
    queries.load()
    parser = argparse.ArgumentParser(
        prog="python -m jupyterhub_migspawner.service.node",
        description="The node's agent. The slice broker's service starts it.",
    )
    parser.add_argument("--config", required=True, help="the hub's configuration file")
    parser.add_argument(
        "--settings",
        type=int,
        metavar="DESCRIPTOR",
        help="the open file with the hub's settings; without it the configuration file is read",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help=(
            "check once whether the slices that are being released are empty, and exit; used "
            "by a hub that ends"
        ),
    )
    arguments = parser.parse_args(argv)
    set_up_log()
    raise_file_limit()
    try:
        options = MigBroker(config=_config(arguments.config, arguments.settings))
        if arguments.once:
            look_once(options)
            return 0
        ended = asyncio.run(_main(options))
    except MigspawnerError as error:
        log.critical("The agent of this node cannot start: %s", error)
        return 1
    if not ended:
        log.warning("A check of the cards did not finish; the agent ends without it.")
        logging.shutdown()
        # Its thread would keep the process: the next start goes on where it was.
        os._exit(0)
    return 0


def _config(config_file: str, given: int | None) -> Config:
    if given is None:
        return load_config_file(config_file)
    document = read_file(given)
    os.close(given)
    return of_document(document)


async def _main(options: MigBroker) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    def wait_for_end() -> None:
        while os.read(0, 4096):
            continue
        loop.call_soon_threadsafe(stop.set)

    # A thread: input that is a file, or none, cannot be waited for by an event loop.
    threading.Thread(target=wait_for_end, name="migspawner-end", daemon=True).start()
    return await look_after_cards(options, stop)


if __name__ == "__main__":
    sys.exit(main())
