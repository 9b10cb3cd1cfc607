"""The REST API's slices."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler


class Slices(ApiHandler):
    """Every slice; whose other people's leases are is for admins only."""

    async def get(self) -> None:
        """List the slices."""
        self.flags()
        viewer = self.who.maker
        slices = await self.ask(lambda broker: broker.slices())
        self.reply([views.slice_view(status, viewer) for status in slices])
