"""The REST API's quotas: the visitor's own, and the exceptions that admins make."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.models.base import Reason
from jupyterhub_migspawner.service.api.models.quotas import NewException
from jupyterhub_migspawner.service.api.operation import ADMIN, operation
from jupyterhub_migspawner.service.http.problem import Problem


class MyQuota(ApiHandler):
    """What limits the visitor."""

    path = "/quota"

    @operation("myQuota")
    async def get(self) -> list[views.Limit]:
        """Return the person's limits, and how much of each is used."""
        person = self.who.person
        servers = await self.live_servers(person.name)
        number = None if servers is None else len(servers)
        stopping = [server.name for server in servers or () if server.pending == "stop"]
        limits = await self.ask(
            lambda broker: broker.quotas.of(person, servers=number, stopping=stopping)
        )
        return [views.quota_view(each) for each in limits]


class Exceptions(ApiHandler):
    """Exceptions from quotas."""

    path = "/exceptions"

    @operation(
        "listExceptions",
        paged=True,
        flags={
            "all": "All users' exceptions. For hub admins and the scope custom:migspawner:admin.",
            "past": "Include those that have ended.",
        },
        refusals={403: "Only admins see all users' exceptions."},
    )
    async def get(self) -> list[views.QuotaException]:
        """List the person's exceptions from quotas."""
        query = self.query
        if query["all"] and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins can see all users' exceptions.")
        user = None if query["all"] else self.who.person.name
        rows = await self.ask(
            lambda broker: broker.quotas.exceptions(
                user, include_past=query["past"], part=query.part.and_one_more
            )
        )
        return self.part_of(rows, views.exception_view, lambda row: row.id)

    @operation(
        "makeException",
        status=201,
        done="The new exception.",
        scopes=ADMIN,
        refusals={403: "Only admins make exceptions, and not for themselves."},
    )
    async def post(self, body: NewException) -> views.QuotaException:
        """Make an exception from a quota for another user.

        For hub admins and the scope custom:migspawner:admin.
        """
        by = self.who.maker
        row = await self.ask(
            lambda broker: broker.quotas.grant_exception(
                broker.settings.known_as(body.user),
                body.field,
                body.limit,
                body.until,
                body.reason,
                by,
            )
        )
        return views.exception_view(row)


class OneException(ApiHandler):
    """The early end of an exception."""

    path = "/exceptions/{id}/end"

    @operation(
        "endException",
        scopes=ADMIN,
        refusals={
            403: "Only admins end exceptions.",
            404: "There is no such exception.",
            409: "The exception is over.",
        },
    )
    async def post(self, exception_id: int, body: Reason) -> views.QuotaException:
        """End an exception early. For hub admins and the scope custom:migspawner:admin."""
        by = self.who.maker
        row = await self.ask(
            lambda broker: broker.quotas.end_exception(exception_id, body.reason, by)
        )
        return views.exception_view(row)
