"""The REST API's leases: the visitor's own; everybody's for admins."""

from __future__ import annotations

import logging
from functools import partial

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.models.base import Reason
from jupyterhub_migspawner.service.api.operation import ADMIN, operation
from jupyterhub_migspawner.service.clients.hub import HubError
from jupyterhub_migspawner.service.http.problem import Problem
from jupyterhub_migspawner.service.workers.reconciliation import is_server_of

log = logging.getLogger("migspawner.service")


class Leases(ApiHandler):
    """Leases, live and past."""

    path = "/leases"

    @operation(
        "listLeases",
        paged=True,
        flags={
            "all": "All users' leases. For hub admins and the scope custom:migspawner:admin.",
            "past": "Include those that have ended.",
        },
        refusals={403: "Only admins see all users' leases."},
    )
    async def get(self) -> list[views.Lease]:
        """List the person's own leases."""
        query, admin = self.query, self.who.is_admin
        if query["all"] and not admin:
            raise Problem(403, "not-allowed", "Only admins can see all users' leases.")
        user = None if query["all"] else self.who.person.name
        leases = await self.ask(
            lambda broker: broker.leases.find(
                include_past=query["past"], user=user, part=query.part.and_one_more
            )
        )
        return self.part_of(leases, partial(views.lease_view, admin=admin), lambda lease: lease.id)


class OneLease(ApiHandler):
    """A lease by its id."""

    path = "/leases/{id}"

    @operation(
        "releaseLease",
        status=202,
        done="The lease is being released.",
        scopes=ADMIN,
        refusals={
            403: "Only admins release leases.",
            404: "There is no such lease.",
            409: "It has ended or is being released already.",
        },
    )
    async def delete(self, lease_id: int, body: Reason) -> views.Lease:
        """Release a lease. For hub admins and the scope custom:migspawner:admin.

        Its server is stopped; the slice is free once it is proven empty.
        """
        if not self.who.is_admin:
            raise Problem(
                403,
                "not-allowed",
                "Only admins can release leases; to end your own session, stop its server.",
            )
        actor = self.who.person.name
        reason = body.reason or f"released by {actor}"
        lease = await self.ask(lambda broker: broker.leases.release(lease_id, reason, actor))
        await self._stop_server_of(lease)
        return views.lease_view(lease)

    async def _stop_server_of(self, lease: LeaseRow) -> None:
        """Let the hub stop the server in its own way, before what it leaves behind is ended.

        Should the hub not do it, the lease is being released all the same.
        """
        hub = self.parts.hub
        try:
            for server in await hub.servers_of(lease.user) or ():
                if server.name == lease.server and is_server_of(lease, server):
                    await hub.stop_server(server.user, server.name)
        except HubError as error:
            log.warning("The server of lease %d is not stopped by the hub: %s", lease.id, error)
