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
from jupyterhub_migspawner.agent.identity import is_gone, this_process
from jupyterhub_migspawner.agent.vacancy import Vacancy
from jupyterhub_migspawner.broker.agents import Superseded
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import backup_files
from jupyterhub_migspawner.errors import DatabaseError, GpuError, Refusal
from jupyterhub_migspawner.loop import Loop
from jupyterhub_migspawner.model.leases import RELEASING
from jupyterhub_migspawner.model.nodes import AgentProcess

log = logging.getLogger("migspawner.agent")

PATIENCE = 10.0
"""Seconds a round under way is given to end."""

SECOND_LOOK = 1.0
"""Seconds between the two looks of a hub that ends."""


def run_until_signalled(
    options: MigBroker,
    watch: Callable[[Callable[[], None]], None] | None = None,
    *,
    replaces: bool = False,
) -> None:
    """Run this node's agent until SIGTERM or SIGINT.

    ``watch`` is called once with a function that any thread may call to end the agent. When a round
    does not end in time, this does not return: the process ends with status 0, and the next one
    goes on where it was. ``replaces`` is that of :meth:`.Agents.begin`. Raises
    :exc:`.ConfigError`, :exc:`.DatabaseError`, and :exc:`.Refusal` or :exc:`.Superseded` while
    another agent reports for the node.
    """
    if not asyncio.run(_run(options, watch, replaces)):
        log.warning("A check of the cards did not finish; the agent ends without it.")
        logging.shutdown()
        # Its thread would keep the process.
        os._exit(0)


async def _run(
    options: MigBroker, watch: Callable[[Callable[[], None]], None] | None, replaces: bool
) -> bool:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if watch is not None:

        def end() -> None:
            loop.call_soon_threadsafe(stop.set)

        watch(end)
    log.info("The agent of node %s runs.", options.node)
    return await look_after_cards(options, stop, replaces=replaces)


async def look_after_cards(
    options: MigBroker, stop: asyncio.Event, *, replaces: bool = False
) -> bool:
    """Run this node's agent until ``stop`` is set; return False when a round did not end."""
    if options.may_create:
        options.may_create = not backup_files.was_lost(options.resolved_database_url())
    agent = make_agent(options)
    me = begin(options, replaces=replaces)
    cards = ThreadPoolExecutor(1, "cards")
    superseded: list[Superseded] = []

    async def look_at_cards() -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(cards, agent.tick)
        except Superseded as error:
            superseded.append(error)
            stop.set()

    loop = asyncio.ensure_future(
        Loop("look at the cards", options.tick_seconds, look_at_cards).run(stop)
    )
    await stop.wait()
    _, late = await asyncio.wait({loop}, timeout=PATIENCE)
    cards.shutdown(wait=False, cancel_futures=True)
    if not late:
        options.open_nvml().close()
        end(options, me)
    if superseded:
        raise superseded[0]
    return not late


def run_once(options: MigBroker, *, replaces: bool = False) -> bool:
    """Run one round of this node's agent; return whether the cards could be read.

    ``replaces`` is that of :meth:`.Agents.begin`. Raises :exc:`.ConfigError`,
    :exc:`.DatabaseError`, and :exc:`.Refusal` while another agent reports for the node.
    """
    agent = make_agent(options)
    me = begin(options, replaces=replaces)
    try:
        agent.tick()
        return agent.knows_cards
    finally:
        options.open_nvml().close()
        end(options, me)


def begin(options: MigBroker, *, replaces: bool = False) -> AgentProcess:
    """Begin to report for this node, as this process; see :meth:`.Agents.begin`."""
    me = this_process()

    def cards() -> list[str] | None:
        try:
            return [card.uuid for card in options.open_nvml().inventory().cards]
        except GpuError:
            return None

    options.open_broker().agents.begin(options.node, me, is_gone, cards=cards, replaces=replaces)
    return me


def end(options: MigBroker, me: AgentProcess) -> None:
    """Record that this process reports no more; while the database is away, its silence shows."""
    with suppress(DatabaseError):
        options.open_broker().agents.end(options.node, me)


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
