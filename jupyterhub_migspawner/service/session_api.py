"""The REST API's sessions: when they end and why, and what keeps them."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.allowances import maker
from jupyterhub_migspawner.service.body import Field
from jupyterhub_migspawner.service.problem import Problem
from jupyterhub_migspawner.service.rest import REASON, ApiHandler, read_id

#: What protects a session.
PROTECTION = {"until": Field("time", required=True), "reason": Field("text", required=True)}


class Sessions(ApiHandler):
    """The visitor's running sessions; everybody's for admins."""

    async def get(self) -> None:
        """List them."""
        every = self.flags("all")["all"]
        if every and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins see everybody's sessions.")
        name = None if every else self.who.person.name
        found = await self.ask(lambda broker: broker.standings(name))
        self.reply([views.standing_view(each) for each in found])


class ExtendSession(ApiHandler):
    """A session by its lease's id, to be kept for longer."""

    async def post(self, raw_id: str) -> None:
        """Extend it."""
        self.flags()
        lease_id, by = read_id("lease", raw_id), maker(self.who)
        reason = self.fields(REASON).get("reason", "")
        found = await self.ask(lambda broker: broker.extend(lease_id, by, reason))
        self.reply(views.standing_view(found))


class ProtectSession(ApiHandler):
    """A session by its lease's id, to be kept whatever it does."""

    async def post(self, raw_id: str) -> None:
        """Protect it."""
        self.flags()
        lease_id, by = read_id("lease", raw_id), maker(self.who)
        sent = self.fields(PROTECTION)
        until, reason = sent["until"], sent["reason"]
        found = await self.ask(lambda broker: broker.protect(lease_id, by, until, reason))
        self.reply(views.standing_view(found))


class UnprotectSession(ApiHandler):
    """A session by its lease's id, to be protected no longer."""

    async def post(self, raw_id: str) -> None:
        """End the protection."""
        self.flags()
        lease_id, by = read_id("lease", raw_id), maker(self.who)
        reason = self.fields(REASON).get("reason", "")
        found = await self.ask(lambda broker: broker.protect(lease_id, by, None, reason))
        self.reply(views.standing_view(found))
