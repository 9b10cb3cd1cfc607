"""The node's agent as a process: round after round until it is to end, or one look.

Relies on the settings of a :class:`.MigBroker`. Promises that what blocks runs in a separate
thread, that a round under way is finished before the end, and that the driver is let go of then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from jupyterhub_migspawner.agent.factory import make_agent
from jupyterhub_migspawner.agent.vacancy import Vacancy
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import backup_files
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.loop import Loop
from jupyterhub_migspawner.model.leases import RELEASING

log = logging.getLogger("migspawner.agent")

PATIENCE = 10.0
"""Seconds a round under way is given to end."""

SECOND_LOOK = 1.0
"""Seconds between the two looks of a hub that ends."""


def run_until_signalled(
    options: MigBroker, watch: Callable[[Callable[[], None]], None] | None = None
) -> None:
    """Run this node's agent until SIGTERM or SIGINT.

    ``watch`` is called once with a function that any thread may call to end the agent. When a round
    does not end in time, this does not return: the process ends with status 0, and the next one
    goes on where it was. Raises :exc:`.ConfigError` and :exc:`.DatabaseError`.
    """
    if not asyncio.run(_run(options, watch)):
        log.warning("A check of the cards did not finish; the agent ends without it.")
        logging.shutdown()
        # Its thread would keep the process.
        os._exit(0)


async def _run(options: MigBroker, watch: Callable[[Callable[[], None]], None] | None) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if watch is not None:

        def end() -> None:
            loop.call_soon_threadsafe(stop.set)

        watch(end)
    log.info("The agent of node %s runs.", options.node)
    return await look_after_cards(options, stop)


async def look_after_cards(options: MigBroker, stop: asyncio.Event) -> bool:
    """Run this node's agent until ``stop`` is set; return False when a round did not end."""
    if options.may_create:
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


def run_once(options: MigBroker) -> bool:
    """Run one round of this node's agent; return whether the cards could be read.

    Raises :exc:`.ConfigError` and :exc:`.DatabaseError`.
    """
    agent = make_agent(options)
    try:
        agent.tick()
        return agent.knows_cards
    finally:
        options.open_nvml().close()


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
