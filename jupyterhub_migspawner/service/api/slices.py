"""The REST API's slices; whose other people's leases are is for admins only."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.operation import operation


class Slices(ApiHandler):
    """Every slice."""

    path = "/slices"

    @operation("listSlices")
    async def get(self) -> list[views.Slice]:
        """List every slice and its state; for admins also its lease."""
        viewer = self.who.maker
        slices = await self.ask(lambda broker: broker.slices.find())
        return [views.slice_view(status, viewer) for status in slices]
