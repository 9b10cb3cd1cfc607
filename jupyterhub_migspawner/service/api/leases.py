"""The REST API's leases: the visitor's own, and everybody's for admins."""

from __future__ import annotations

import logging
from functools import partial

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.service.api.handler import REASON, ApiHandler, read_id
from jupyterhub_migspawner.service.clients.hub import HubError
from jupyterhub_migspawner.service.http.problem import Problem
from jupyterhub_migspawner.service.workers.reconciliation import is_server_of

log = logging.getLogger("migspawner.service")


class Leases(ApiHandler):
    """The visitor's leases; everybody's for admins."""

    async def get(self) -> None:
        """List leases: live ones, with ``past`` those that ended too."""
        flags, part = self.listing("all", "past")
        if flags["all"] and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins see everybody's leases.")
        user = None if flags["all"] else self.who.person.name
        admin = self.who.is_admin
        leases = await self.ask(
            lambda broker: broker.leases(
                include_past=flags["past"], user=user, part=part.and_one_more
            )
        )
        self.reply_part(leases, partial(views.lease_view, admin=admin), part)


class OneLease(ApiHandler):
    """A lease by its id."""

    async def delete(self, raw_id: str) -> None:
        """Take a lease back and end its server: the slice is free once it is proven empty."""
        self.flags()
        if not self.who.is_admin:
            raise Problem(
                403,
                "not-allowed",
                "Only admins end leases by hand; to end your own session, stop its server.",
            )
        lease_id = read_id("lease", raw_id)
        actor = self.who.person.name
        reason = self.fields(REASON).get("reason") or f"released by {actor}"
        lease = await self.ask(lambda broker: broker.release_lease(lease_id, reason, actor))
        await self._stop_server_of(lease)
        self.reply(views.lease_view(lease), 202)

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
