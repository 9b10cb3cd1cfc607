"""The REST API's tiers: what the visitor may start."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler


class Tiers(ApiHandler):
    """What the visitor may start, and what is free of it now."""

    async def get(self) -> None:
        """List the tiers."""
        self.flags()
        person = self.who.person
        beside = await self.beside(person.name)
        offers = await self.ask(lambda broker: broker.tiers_for(person, **vars(beside)))
        self.reply([views.tier_view(offer) for offer in offers])
