"""Rounds in which every session is looked at that may lie idle, warned of its end, and ended.

Relies on :mod:`...policy.reclaim` for every verdict, on the readings that the nodes' agents write
down, and on each server's own answer about its kernels and terminals (:mod:`..clients.notebooks`).
Promises that right before a session ends its server is asked again, and its person's last extension
request is read; and that servers which were silent before, and a slow hub that gets reports of use,
hold up a round for a while only.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import ssl
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.clients import WrongPeer
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.reclaim import IDLE, KERNELS
from jupyterhub_migspawner.service.clients.hub import HubAway, HubError
from jupyterhub_migspawner.service.clients.notebooks import IN_FLIGHT, Notebooks, NotSaid
from jupyterhub_migspawner.service.clients.tokens import Reach, Tokens
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.turns import in_turns
from jupyterhub_migspawner.service.workers.announcements import Announcer
from jupyterhub_migspawner.service.workers.reconciliation import is_server_of

log = logging.getLogger("migspawner.service")

SILENT_SECONDS = 20.0
"""Seconds of a round in which servers that did not answer last time get their turn."""

CHUNK = 100
"""Answers that are written down in one transaction."""

AT_ONCE = 10
"""What is asked of the hub at the same time: a server that it stops may take it ten seconds."""

HUB_SECONDS = 30.0
"""Seconds of a round for reports of use to the hub; sessions that were left out come first in the
next one."""

TELL_HUB = timedelta(minutes=5)
"""How often the hub gets a report that a session is in use, as servers themselves do; after five
rounds, where that is sooner."""


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
        wrong_peer: Callable[[Reach, WrongPeer], None] = lambda reach, error: None,
    ) -> None:
        self._parts = parts
        self._clock = clock or parts.broker.now
        self._notebooks = Notebooks(ssl_context, in_flight, wrong_peer=wrong_peer)
        self._tokens = Tokens(parts)
        self._announcer = Announcer(parts, self._notebooks, self._tokens)
        self._told: dict[int, datetime] = {}
        self._in_flight = in_flight
        self._silent: dict[int, int] = {}
        self._count = itertools.count()
        self._steps = parts.broker.clock.steps

    def close(self) -> None:
        """Let go of all connections."""
        self._notebooks.close()

    async def round(self) -> None:
        """Look at every session once. Raises :exc:`.DatabaseError` and :exc:`.HubError`."""
        ask = self._parts.ask
        every = await ask(lambda broker: broker.sessions.standings())
        await self._tokens.refresh(every)
        found = [each for each in every if _matters(each)]
        silent = [each for each in found if each.lease.id in self._silent]
        self._silent = {each.lease.id: self._silent[each.lease.id] for each in silent}
        silent.sort(key=lambda each: self._silent[each.lease.id])
        await self._hear([each for each in found if each.lease.id not in self._silent])
        await ask(lambda broker: broker.doubts.note())
        standings = await ask(lambda broker: broker.sessions.standings())
        warned = [each.lease.id for each in standings if each.verdict.warn]
        await ask(lambda broker: broker.sessions.warn_idle(lease_ids=warned))
        now = self._clock()
        over = [each for each in standings if each.verdict.rule == IDLE and each.verdict.over(now)]
        await _several(self._end, over)
        await ask(lambda broker: broker.readings.forget_ended())
        lost = await ask(lambda broker: broker.sessions.stranded())
        await self._announcer.round(await ask(lambda broker: broker.sessions.standings()), lost)
        await self._tell_hub(standings)
        # Last of all and not for long: however many hang, as behind a cut cable, what the others
        # say is fresh when it is decided by.
        await self._note(silent, asyncio.get_running_loop().time() + SILENT_SECONDS)

    async def _hear(self, standings: Collection[Standing]) -> None:
        """Ask these servers, and write down what they say as they say it."""
        await self._note(standings, None)

    async def _note(self, standings: Collection[Standing], until: float | None) -> None:
        """Ask these servers, in this order, and write down what they say as they say it.

        Whose turn has not come by ``until``, a time of the event loop, is not asked now.
        """
        clock, turns = asyncio.get_running_loop().time, asyncio.Semaphore(self._in_flight)

        async def ask(each: Standing) -> Answer | None:
            async with turns:
                return await self._answer(each) if until is None or clock() < until else None

        asked: list[asyncio.Future[Answer | None]] = []
        heard: list[Answer] = []
        try:
            async for standing in in_turns(standings):
                asked.append(asyncio.ensure_future(ask(standing)))
            for each in asyncio.as_completed(asked):
                answer = await each
                if answer is not None:
                    heard.append(answer)
                if len(heard) >= CHUNK:
                    await self._parts.ask(lambda broker: broker.readings.note(answers=tuple(heard)))
                    heard.clear()
            if heard:
                await self._parts.ask(lambda broker: broker.readings.note(answers=tuple(heard)))
        finally:
            for task in asked:
                task.cancel()

    async def _answer(self, standing: Standing) -> Answer:
        lease_id = standing.lease.id
        try:
            said = await self._notebooks.runs(self._tokens.reach(standing))
        except NotSaid as error:
            self._silent[lease_id] = next(self._count)
            return Answer(lease_id, KERNELS, problem=str(error))
        self._silent.pop(lease_id, None)
        return Answer(
            lease_id, KERNELS, fingerprint=said.fingerprint, busy=said.busy, said=said.words
        )

    async def _end(self, standing: Standing) -> None:
        """End a session for being idle, unless its server now says otherwise."""
        lease = standing.lease
        await self._announcer.tell(standing)
        # Last of all: what it says has to be fresh when the end is decided.
        await self._hear([standing])
        ended = await self._parts.ask(lambda broker: broker.sessions.end_over(lease_id=lease.id))
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
        """Report use to the hub that it cannot see, so that its own culler does not end it.

        With the server's own token, which allows just that (JupyterHub, role ``server``).
        """
        live = {each.lease.id for each in standings}
        if self._steps != self._parts.broker.clock.steps:
            # The clock was set: what was noted by the old one says nothing.
            self._steps = self._parts.broker.clock.steps
            self._told.clear()
        self._told = {key: at for key, at in self._told.items() if key in live}
        away = False

        async def tell(each: Standing) -> None:
            nonlocal away
            if away:
                return  # the others will be reported in a later round
            lease, reach = each.lease, self._tokens.reach(each)
            try:
                if not reach.problem:
                    await self._parts.hub.note_activity(
                        lease.user, lease.server, each.used, reach.token
                    )
            except HubAway as error:
                away = True
                log.info("The hub got no report that lease %d is in use: %s", lease.id, error)
                return
            except HubError as error:
                log.info("The hub got no report that lease %d is in use: %s", lease.id, error)
            self._told[lease.id] = self._clock()

        news = sorted((each for each in standings if self._is_news(each)), key=self._told_at)
        try:
            await asyncio.wait_for(_several(tell, news), HUB_SECONDS)
        except asyncio.TimeoutError:
            log.info("The hub is too slow for reports of all use in this round.")

    def _told_at(self, standing: Standing) -> datetime:
        return self._told.get(standing.lease.id, standing.lease.since)

    def _is_news(self, standing: Standing) -> bool:
        """Return whether the session was used since the last report to the hub, some time ago."""
        told = self._told_at(standing)
        rounds = timedelta(seconds=5 * self._parts.settings.examine_seconds)
        if not _matters(standing) or standing.used <= told:
            return False
        due = self._clock() - told >= min(TELL_HUB, rounds)
        return due and not self._tokens.reach(standing).problem


async def _several(
    do: Callable[[Standing], Awaitable[None]], standings: Collection[Standing]
) -> None:
    """Call ``do`` for each of them, some at a time."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(standing: Standing) -> None:
        async with turns:
            await do(standing)

    await asyncio.gather(*(one(each) for each in standings))


def _matters(standing: Standing) -> bool:
    """Return whether the session can end for being idle at all; no other is asked."""
    return standing.verdict.idle_since is not None or bool(standing.verdict.unknown)
