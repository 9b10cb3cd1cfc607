"""Rounds in which every session is looked at that may lie idle, told of its end, and ended.

Relies on :mod:`..policy.reclaim` for every verdict, on the readings that the nodes' agents write
down, and on each server's own answer about its kernels and terminals. Promises that whatever a
server says, slowly or at length, costs a bounded time and nobody else's turn; that no token but a
server's own is ever sent to it; and that right before a session ends its server is asked again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import ssl
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.reclaiming import Answer
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.leases.rows import LeaseRow
from jupyterhub_migspawner.policy.reclaim import IDLE, KERNELS
from jupyterhub_migspawner.service.hub import HubError
from jupyterhub_migspawner.service.loops import is_server_of
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")

IN_FLIGHT = 40
"""Servers that are asked at the same time."""

PATIENCE = 10.0
"""Seconds for one answer of a server."""

MOST_BYTES = 1024 * 1024
"""Bytes of one answer that are read."""

MOST_LISTED = 1000
"""Kernels or terminals of one server; more are no answer of a person's server."""

CHUNK = 100
"""Answers that are written down in one transaction."""

TELL_HUB = timedelta(minutes=5)
"""How often the hub is told that a session is in use, as servers themselves do; after five rounds,
where that is sooner."""

AT_REST = frozenset({"idle", "starting", "restarting", "autorestarting", "dead", "unknown"})
"""States of a kernel in which it computes nothing (jupyter_client, jupyter_server). In any other
one, known or not, it counts as busy."""


@dataclass(frozen=True)
class _Said:
    """What a server says of its kernels and terminals."""

    mark: str
    busy: bool
    words: str


class NotSaid(Exception):
    """A server did not answer, or not in a way that can be read; the text says how."""


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
        self._ssl = ssl_context
        self._turns = asyncio.Semaphore(in_flight)
        self._client = SimpleAsyncHTTPClient(
            force_instance=True, max_clients=2 * in_flight, max_body_size=MOST_BYTES
        )
        self._told: dict[int, datetime] = {}

    def close(self) -> None:
        """Let go of all connections."""
        self._client.close()

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
        lease = standing.lease
        try:
            if not standing.stay.url:
                raise NotSaid("it is not known where its server answers")
            async with self._turns:
                kernels = await self._list(standing, "api/kernels")
                terminals = await self._list(standing, "api/terminals")
            said = read(kernels, terminals)
        except NotSaid as trouble:
            return Answer(lease.id, KERNELS, trouble=str(trouble))
        return Answer(lease.id, KERNELS, mark=said.mark, busy=said.busy, said=said.words)

    async def _list(self, standing: Standing, path: str) -> list[Any]:
        """A list of the server's own API. That it was asked is no activity of anybody's."""
        stay = standing.stay
        request = HTTPRequest(
            f"{stay.url}{path}?no_track_activity=1",
            headers={"Authorization": f"token {stay.token}", "Accept": "application/json"},
            connect_timeout=PATIENCE,
            request_timeout=PATIENCE,
            follow_redirects=False,
            decompress_response=False,
            ssl_options=self._ssl if urlsplit(stay.url).scheme == "https" else None,
        )
        try:
            response = await asyncio.wait_for(
                self._client.fetch(request, raise_error=False), 2 * PATIENCE
            )
        except (HTTPClientError, OSError, ValueError, asyncio.TimeoutError) as error:
            raise NotSaid(f"its server does not answer ({type(error).__name__})") from error
        if response.code == 404 and path == "api/terminals":
            return []  # a server without terminals (jupyter_server, terminals_enabled)
        if response.code != 200:
            told = response.error if response.code == 599 else f"status {response.code}"
            raise NotSaid(f"its server does not say what runs there ({told})")
        try:
            found = json.loads(response.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or len(found) > MOST_LISTED:
            raise NotSaid("what its server says cannot be read")
        return found

    async def _end(self, standing: Standing) -> None:
        """End a session for being idle, unless its server now says otherwise."""
        lease = standing.lease
        await self._hear([standing])
        ended = await self._parts.ask(partial(Broker.end_idle, lease_id=lease.id))
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


def read(kernels: list[Any], terminals: list[Any]) -> _Said:
    """What a server's lists of kernels and terminals say. Raises :exc:`NotSaid`.

    Times in them are compared with those of before and with nothing else: whose clock they were
    told by does not matter. That somebody is connected is no sign of use.
    """
    states, marks = [], []
    for kernel in kernels:
        state, last = _text(kernel, "execution_state"), _text(kernel, "last_activity")
        states.append(state)
        marks.append(f"kernel {_text(kernel, 'id')} {state} {last}")
    for terminal in terminals:
        marks.append(f"terminal {_text(terminal, 'name')} {_text(terminal, 'last_activity')}")
    busy = [state for state in states if state not in AT_REST]
    words = f"{len(states)} kernel{'' if len(states) == 1 else 's'}, {len(busy)} busy"
    if terminals:
        words += f"; {len(terminals)} terminal{'' if len(terminals) == 1 else 's'}"
    digest = hashlib.sha256("\n".join(sorted(marks)).encode("utf-8", "replace")).hexdigest()
    return _Said(digest, bool(busy), words)


def _text(model: Any, name: str) -> str:
    value = model.get(name) if isinstance(model, dict) else None
    # Older terminado gives no time of a terminal's last activity.
    if value is None and name == "last_activity" and isinstance(model, dict):
        return ""
    if not isinstance(value, str):
        raise NotSaid("what its server says cannot be read")
    return value
