"""The REST API's sessions: when they end and why, and what keeps them."""

from __future__ import annotations

from jupyterhub_migspawner.broker import Broker, views
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.service.api.handler import REASON, ApiHandler, read_id
from jupyterhub_migspawner.service.http.auth import Visitor
from jupyterhub_migspawner.service.http.body import Field
from jupyterhub_migspawner.service.http.problem import Problem

#: What protects a session.
PROTECTION = {"until": Field("time", required=True), "reason": Field("text", required=True)}


class Sessions(ApiHandler):
    """The visitor's running sessions; everybody's for admins."""

    async def get(self) -> None:
        """List them."""
        flags, part = self.listing("all")
        every = flags["all"]
        if every and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins see everybody's sessions.")
        name = None if every else self.who.person.name

        def read(broker: Broker) -> list[views.Session]:
            rows = [views.standing_view(x) for x in broker.standings(name, part.and_one_more)]
            rows += [
                views.stranded_view(lease)
                for lease in broker.stranded(name)
                if part.before is None or lease.id < part.before
            ]
            return sorted(rows, key=lambda row: row["lease"])[-part.and_one_more.limit :]

        self.reply_part(await self.ask(read), lambda row: row, part, id_name="lease")


class ExtendSession(ApiHandler):
    """A session by its lease's id, to be kept for longer."""

    async def post(self, raw_id: str) -> None:
        """Extend it."""
        self.flags()
        lease_id, visitor = read_id("lease", raw_id), self.who
        reason = self.fields(REASON).get("reason", "")
        found = await self.ask(lambda broker: extend(broker, lease_id, visitor, reason))
        self.reply(views.standing_view(found))


class ProtectSession(ApiHandler):
    """A session by its lease's id, to be kept whatever it does."""

    async def post(self, raw_id: str) -> None:
        """Protect it."""
        self.flags()
        lease_id, by = read_id("lease", raw_id), self.who.maker
        sent = self.fields(PROTECTION)
        until, reason = sent["until"], sent["reason"]
        found = await self.ask(lambda broker: broker.protect(lease_id, by, until, reason))
        self.reply(views.standing_view(found))


class UnprotectSession(ApiHandler):
    """A session by its lease's id, to be protected no longer."""

    async def post(self, raw_id: str) -> None:
        """End the protection."""
        self.flags()
        lease_id, by = read_id("lease", raw_id), self.who.maker
        reason = self.fields(REASON).get("reason", "")
        found = await self.ask(lambda broker: broker.protect(lease_id, by, None, reason))
        self.reply(views.standing_view(found))


def extend(broker: Broker, lease_id: int, visitor: Visitor, reason: str = "") -> Standing:
    """Keep a session for longer, where the visitor could as well have it started again.

    Raises :class:`~jupyterhub_migspawner.errors.Refusal`.
    """
    lease = broker.lease(lease_id)
    if not visitor.is_admin and lease.user == visitor.person.name:
        visitor.demand_start(lease.server, "keep a session for longer")
    return broker.extend(lease_id, visitor.maker, reason)
