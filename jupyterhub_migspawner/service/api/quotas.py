"""The REST API's quotas: the visitor's own, and the exceptions that admins make."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import REASON, ApiHandler, read_id
from jupyterhub_migspawner.service.http.body import Field
from jupyterhub_migspawner.service.http.problem import Problem

#: What an exception is made of; who makes it is never part of it.
NEW_EXCEPTION = {
    "user": Field("name", required=True),
    "field": Field("name", required=True),
    "limit": Field("amount", required=True),
    "until": Field("time", required=True),
    "reason": Field("text", required=True),
}


class MyQuota(ApiHandler):
    """What limits the visitor, and how much of it is used."""

    async def get(self) -> None:
        """List the limits that count for the visitor."""
        self.flags()
        person = self.who.person
        servers = await self.live_servers(person.name)
        number = None if servers is None else len(servers)
        stopping = [server.name for server in servers or () if server.pending == "stop"]
        standing = await self.ask(
            lambda broker: broker.quota_of(person, servers=number, stopping=stopping)
        )
        self.reply([views.quota_view(each) for each in standing])


class Exceptions(ApiHandler):
    """Exceptions from quotas."""

    async def get(self) -> None:
        """List the visitor's exceptions; everybody's for admins."""
        flags, part = self.listing("all", "past")
        if flags["all"] and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins see everybody's exceptions.")
        user = None if flags["all"] else self.who.person.name
        rows = await self.ask(
            lambda broker: broker.exceptions(
                user, include_past=flags["past"], part=part.and_one_more
            )
        )
        self.reply_part(rows, views.exception_view, part)

    async def post(self) -> None:
        """Make an exception."""
        self.flags()
        asked = self.fields(NEW_EXCEPTION)
        by = self.who.maker
        row = await self.ask(
            lambda broker: broker.grant_exception(
                broker.settings.known_as(asked["user"]),
                asked["field"],
                asked["limit"],
                asked["until"],
                asked["reason"],
                by,
            )
        )
        self.reply(views.exception_view(row), 201)


class OneException(ApiHandler):
    """The early end of an exception."""

    async def post(self, raw_id: str) -> None:
        """End it."""
        self.flags()
        exception_id = read_id("exception", raw_id)
        reason = self.fields(REASON).get("reason", "")
        by = self.who.maker
        row = await self.ask(lambda broker: broker.end_exception(exception_id, reason, by))
        self.reply(views.exception_view(row))
