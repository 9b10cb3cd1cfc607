"""Rounds in which every session is looked at that may lie idle, told of its end, and ended.

Relies on :mod:`..policy.reclaim` for every verdict, on the readings that the nodes' agents write
down, and on each server's own answer about its kernels and terminals (:mod:`.notebooks`). Promises
that right before a session ends its server is asked again, and its person's last wish heard.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.reclaiming import Answer
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.leases.rows import LeaseRow
from jupyterhub_migspawner.policy.reclaim import IDLE, KERNELS
from jupyterhub_migspawner.service.hub import HubError
from jupyterhub_migspawner.service.loops import is_server_of
from jupyterhub_migspawner.service.notebooks import IN_FLIGHT, Notebooks, NotSaid
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.telling import Teller

log = logging.getLogger("migspawner.service")

CHUNK = 100
"""Answers that are written down in one transaction."""

TELL_HUB = timedelta(minutes=5)
"""How often the hub is told that a session is in use, as servers themselves do; after five rounds,
where that is sooner."""


class Examiner:
    """Examines this hub's sessions, one :meth:`round` at a time.

    ``clock`` gives the present as aware UTC; the broker's own unless given.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        clock: Callable[[], datetime] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self._parts = parts
        self._clock = clock or parts.broker.clock
        self._notebooks = Notebooks(ssl_context, in_flight)
        self._teller = Teller(parts, self._notebooks)
        self._told: dict[int, datetime] = {}

    def close(self) -> None:
        """Let go of all connections."""
        self._notebooks.close()

    async def round(self) -> None:
        """Look at every session once. Raises :exc:`.DatabaseError` and :exc:`.HubError`."""
        ask = self._parts.ask
        found = [each for each in await ask(lambda broker: broker.standings()) if _matters(each)]
        await self._hear(found)
        standings = await ask(lambda broker: broker.standings())
        warned = [each.lease.id for each in standings if each.verdict.warn]
        await ask(partial(Broker.warn_idle, lease_ids=warned))
        now = self._clock()
        for each in standings:
            if each.verdict.rule == IDLE and each.verdict.over(now):
                await self._end(each)
        await ask(lambda broker: broker.note_unknown())
        await ask(lambda broker: broker.forget_sessions())
        await self._teller.round(await ask(lambda broker: broker.standings()))
        await self._tell_hub(standings)

    async def _hear(self, standings: Collection[Standing]) -> None:
        """Ask every server, and write down what they say as they say it."""
        asked = [asyncio.ensure_future(self._answer(each)) for each in standings]
        heard: list[Answer] = []
        try:
            for each in asyncio.as_completed(asked):
                heard.append(await each)
                if len(heard) >= CHUNK:
                    await self._parts.ask(partial(Broker.note_answers, answers=tuple(heard)))
                    heard.clear()
            await self._parts.ask(partial(Broker.note_answers, answers=tuple(heard)))
        finally:
            for each in asked:
                each.cancel()

    async def _answer(self, standing: Standing) -> Answer:
        try:
            said = await self._notebooks.runs(standing.stay)
        except NotSaid as trouble:
            return Answer(standing.lease.id, KERNELS, trouble=str(trouble))
        return Answer(standing.lease.id, KERNELS, mark=said.mark, busy=said.busy, said=said.words)

    async def _end(self, standing: Standing) -> None:
        """End a session for being idle, unless its server now says otherwise."""
        lease = standing.lease
        await self._hear([standing])
        await self._teller.tell(standing)
        ended = await self._parts.ask(partial(Broker.end_over, lease_id=lease.id))
        if ended is None:
            return
        log.info("Lease %d of %r ends: %s.", lease.id, lease.user, ended.end_reason)
        await self._stop(ended)

    async def _stop(self, lease: LeaseRow) -> None:
        """Let the hub stop the server in its own way; should it not, the reconciliation does."""
        hub = self._parts.hub
        try:
            for server in await hub.servers_of(lease.user) or ():
                if server.name == lease.server and is_server_of(lease, server):
                    await hub.stop_server(lease.user, lease.server)
        except HubError as error:
            log.warning("The server of lease %d is not stopped yet: %s", lease.id, error)

    async def _tell_hub(self, standings: Collection[Standing]) -> None:
        """Tell the hub of use that it cannot see, so that its own culler lets work alone.

        With the server's own token, which allows just that (JupyterHub, role ``server``).
        """
        live = {each.lease.id for each in standings}
        self._told = {key: at for key, at in self._told.items() if key in live}
        for each in standings:
            used, lease = each.verdict.idle_since, each.lease
            if used is None or not each.stay.token or used <= self._told.get(lease.id, lease.since):
                continue
            rounds = timedelta(seconds=5 * self._parts.settings.examine_seconds)
            if self._clock() - self._told.get(lease.id, lease.since) < min(TELL_HUB, rounds):
                continue
            try:
                await self._parts.hub.note_activity(lease.user, lease.server, used, each.stay.token)
            except HubError as error:
                log.info("The hub is not told that lease %d is in use: %s", lease.id, error)
            self._told[lease.id] = self._clock()


def _matters(standing: Standing) -> bool:
    """Whether the session can end for being idle at all; no other is asked."""
    return standing.verdict.idle_since is not None or bool(standing.verdict.unknown)
