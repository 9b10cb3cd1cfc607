"""The REST API's sessions: when they end and why, and what keeps them."""

from __future__ import annotations

from jupyterhub_migspawner.broker import Broker, views
from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.models.base import Reason
from jupyterhub_migspawner.service.api.models.sessions import Protection
from jupyterhub_migspawner.service.api.operation import ADMIN, START, operation
from jupyterhub_migspawner.service.http.auth import Visitor
from jupyterhub_migspawner.service.http.problem import Problem

_DONE = "The updated session."


class Sessions(ApiHandler):
    """Running sessions."""

    path = "/sessions"

    @operation(
        "listSessions",
        paged=True,
        flags={"all": "All users' sessions. For hub admins and the scope custom:migspawner:admin."},
        refusals={403: "Only admins see all users' sessions."},
    )
    async def get(self) -> list[views.Session]:
        """List running sessions: whether they are in use, when they end, and why."""
        query = self.query
        if query["all"] and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins can see all users' sessions.")
        name = None if query["all"] else self.who.person.name
        part = query.part.and_one_more

        def read(broker: Broker) -> list[views.Session]:
            rows = [views.standing_view(x) for x in broker.sessions.standings(name, part)]
            rows += [
                views.stranded_view(lease)
                for lease in broker.leases.stranded(name)
                if part.before is None or lease.id < part.before
            ]
            return sorted(rows, key=lambda row: row["lease"])[-part.limit :]

        return self.part_of(await self.ask(read), lambda row: row, lambda row: row["lease"])


class ExtendSession(ApiHandler):
    """A session by its lease's id, to be kept for longer."""

    path = "/sessions/{id}/extend"

    @operation(
        "extendSession",
        done=_DONE,
        scopes=START,
        refusals={
            403: "It is another user's session, or the token may not start that server.",
            404: "There is no such lease.",
            409: "The session is over, or cannot be extended any further.",
        },
    )
    async def post(self, lease_id: int, body: Reason) -> views.Session:
        """Extend a session that is not in use.

        The scope has to hold for that server; before JupyterHub 6 it is servers.
        """
        visitor, reason = self.who, body.reason
        return views.standing_view(
            await self.ask(lambda broker: extend(broker, lease_id, visitor, reason))
        )


class ProtectSession(ApiHandler):
    """A session by its lease's id, to be kept whatever it does."""

    path = "/sessions/{id}/protect"

    @operation(
        "protectSession",
        done=_DONE,
        scopes=ADMIN,
        refusals={
            403: "Only admins can protect sessions.",
            404: "There is no such lease.",
            409: "The session is over.",
        },
    )
    async def post(self, lease_id: int, body: Protection) -> views.Session:
        """Protect a session from being ended for being idle, until a given time; for admins."""
        by = self.who.maker
        return views.standing_view(
            await self.ask(
                lambda broker: broker.sessions.protect(lease_id, by, body.until, body.reason)
            )
        )


class UnprotectSession(ApiHandler):
    """A session by its lease's id, to be protected no longer."""

    path = "/sessions/{id}/unprotect"

    @operation(
        "unprotectSession",
        done=_DONE,
        scopes=ADMIN,
        refusals={
            403: "Only admins can protect sessions.",
            404: "There is no such lease.",
            409: "The session is over.",
        },
    )
    async def post(self, lease_id: int, body: Reason) -> views.Session:
        """End a protection early; for admins."""
        by = self.who.maker
        return views.standing_view(
            await self.ask(lambda broker: broker.sessions.protect(lease_id, by, None, body.reason))
        )


def extend(broker: Broker, lease_id: int, visitor: Visitor, reason: str = "") -> Standing:
    """Keep a session for longer, where the visitor could as well have it started again.

    Raises :class:`~jupyterhub_migspawner.errors.Refusal`.
    """
    lease = broker.leases.get(lease_id)
    if not visitor.is_admin and lease.user == visitor.person.name:
        visitor.demand_start(lease.server, "extend a session")
    return broker.sessions.extend(lease_id, visitor.maker, reason)
