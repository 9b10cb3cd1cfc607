"""The REST API's notices: which ones the visitor gets."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.models.notices import NewNoticeChoices
from jupyterhub_migspawner.service.api.operation import operation


class Notices(ApiHandler):
    """Each topic, true where the visitor gets notices."""

    path = "/notices"

    @operation("listNoticeChoices", done="Each topic; true if the person gets its notices.")
    async def get(self) -> views.NoticeChoices:
        """Return which notices the person gets."""
        name = self.who.person.name
        return views.notices_view(await self.ask(lambda broker: broker.notices.choices(name)))

    @operation("chooseNotices", done="The updated topics.")
    async def put(self, body: NewNoticeChoices) -> views.NoticeChoices:
        """Choose which notices to get; omitted topics do not change."""
        name, chosen = self.who.person.name, body.model_dump(exclude_unset=True)
        return views.notices_view(
            await self.ask(lambda broker: broker.notices.choose(name, chosen))
        )
