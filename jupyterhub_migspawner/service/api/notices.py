"""The REST API's notices: which ones the visitor wants."""

from __future__ import annotations

from jupyterhub_migspawner.policy.notices import TOPICS
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.http.body import Field

#: What one can do without; what is left out stays as it is.
CHOICES = {topic: Field("flag") for topic in TOPICS}


class Notices(ApiHandler):
    """Each topic, true where the visitor wants notices."""

    async def get(self) -> None:
        """List them."""
        self.flags()
        name = self.who.person.name
        self.reply(await self.ask(lambda broker: broker.notice_choices(name)))

    async def put(self) -> None:
        """Choose."""
        self.flags()
        name, sent = self.who.person.name, self.fields(CHOICES)
        self.reply(await self.ask(lambda broker: broker.choose_notices(name, sent)))
