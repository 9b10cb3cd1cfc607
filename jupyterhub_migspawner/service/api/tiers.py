"""The REST API's tiers: what the visitor may start, and what is free of it now."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.operation import operation


class Tiers(ApiHandler):
    """The tiers."""

    path = "/tiers"

    @operation("listTiers")
    async def get(self) -> list[views.Tier]:
        """List the tiers that the signed-in person sees, and how much of each is free."""
        person = self.who.person
        beside = await self.beside(person.name)
        offers = await self.ask(lambda broker: broker.tiers.of(person, **vars(beside)))
        return [views.tier_view(offer) for offer in offers]
