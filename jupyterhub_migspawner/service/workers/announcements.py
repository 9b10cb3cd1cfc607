"""Notices to people inside their own servers: their end, and answers to extension requests.

Relies on :class:`.Notebooks` to reach servers and on the verdict to know what there is to tell.
Promises that an extension request is granted or refused in the same way as on the page, once, and
answered; and that a server that cannot be reached costs its person nothing but the notice there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from textwrap import shorten
from typing import Any

from jupyterhub_migspawner.broker.statuses import Standing, Stranded
from jupyterhub_migspawner.broker.views import timestamp
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LOST
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import TIME
from jupyterhub_migspawner.service.clients.notebooks import Notebooks, NotSaid
from jupyterhub_migspawner.service.clients.tokens import Tokens
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")

MOST_WHY = 300
"""Characters; what a person has written may be longer than a notice."""

WHY = "requested inside the server"

Notice = dict[str, Any]


class Announcer:
    """Sends notices to servers, and reads their people's extension requests."""

    def __init__(self, parts: Parts, notebooks: Notebooks, tokens: Tokens) -> None:
        self._parts = parts
        self._tokens = tokens
        self._notebooks = notebooks
        self._said: dict[int, Notice | None] = {}

    async def round(self, standings: Collection[Standing], lost: Collection[Stranded] = ()) -> None:
        """Send all notices that are due. Raises :exc:`.DatabaseError`."""
        live = {each.lease.id for each in standings} | {each.lease.id for each in lost}
        self._said = {key: said for key, said in self._said.items() if key in live}
        news = [each for each in standings if each.verdict.near or self._said.get(each.lease.id)]
        await asyncio.gather(
            *(self.tell(each) for each in news), *(self._tell_loss(each) for each in lost)
        )

    async def tell(self, standing: Standing) -> None:
        """Send one notice, and grant an extension request. Raises :exc:`.DatabaseError`."""
        lease_id, notice = standing.lease.id, self._notice(standing)
        reach = self._tokens.reach(standing)
        if reach.problem or (notice is None and self._said.get(lease_id) is None):
            return
        try:
            extension_request = await self._notebooks.tell(reach, {"notice": notice})
            if extension_request:
                after, answer = await self._grant(standing, extension_request)
                notice = self._notice(after)
                await self._notebooks.tell(reach, {"notice": notice, "answer": answer})
        except NotSaid as error:
            log.debug("The server of lease %d did not get its notice: %s", lease_id, error)
        self._said[lease_id] = notice

    async def _tell_loss(self, lost: Stranded) -> None:
        """Tell a server that its card is gone, for as long as it runs."""
        lease = lost.lease
        reach = self._tokens.reach(lost)
        if reach.problem:
            return
        notice = {
            "rule": LOST,
            "why": shorten(lease.end_reason, MOST_WHY),
            "ends_at": timestamp(lease.ended_at),
            "extendable": False,
            **self._everywhere(),
        }
        with suppress(NotSaid):
            await self._notebooks.tell(reach, {"notice": notice})
        self._said[lease.id] = notice

    async def _grant(
        self, standing: Standing, extension_request: str
    ) -> tuple[Standing, dict[str, str]]:
        """Keep a session for longer as its person would on the page; return how it stands then."""
        lease = standing.lease
        answer = {"wish": extension_request, "refusal": "", "kept_until": ""}
        try:
            after = await self._parts.ask(
                lambda broker: broker.sessions.extend(lease.id, Person(lease.user), WHY)
            )
        except Refusal as refusal:
            return standing, {**answer, "refusal": str(refusal)}
        return after, {**answer, "kept_until": timestamp(after.verdict.ends_at) or ""}

    def _notice(self, standing: Standing) -> Notice | None:
        found = standing.verdict
        if not found.near or found.ends_at is None:
            return None
        return {
            "rule": found.rule,
            # Who has brought the end forward, and why; empty where nobody has.
            "why": shorten(standing.lease.end_reason, MOST_WHY) if found.rule == TIME else "",
            "ends_at": timestamp(found.ends_at),
            "extendable": standing.extendable,
            **self._everywhere(),
        }

    def _everywhere(self) -> Notice:
        return {
            "page": f"{self._parts.hub_host}{self._parts.prefix}",
            # Sent again in each round; nobody is left with the notice of a service that is gone.
            "holds_seconds": 3 * self._parts.settings.examine_seconds,
        }
