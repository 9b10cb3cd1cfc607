"""The REST API's drafts: what the visitor has begun to ask for and nobody else sees."""

from __future__ import annotations

from typing import Any

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler, read_id
from jupyterhub_migspawner.service.http.body import Field

#: What a draft is made of, all of it as it was typed.
DRAFT = {
    "tier": Field("server"),
    "hours": Field("server"),
    "starts_at": Field("server"),
    "reason": Field("text"),
}


class Drafts(ApiHandler):
    """The visitor's drafts."""

    async def get(self) -> None:
        """List them."""
        self.flags()
        person = self.who.person
        found = await self.ask(lambda broker: broker.drafts(person))
        self.reply([views.draft_view(draft) for draft in found])

    async def post(self) -> None:
        """Begin one."""
        self.flags()
        person, sent = self.who.person, self.fields(DRAFT)
        draft = await self.ask(lambda broker: broker.save_draft(person, **sent))
        self.reply(views.draft_view(draft), 201)


class OneDraft(ApiHandler):
    """A draft by its id."""

    async def put(self, raw_id: str) -> None:
        """Replace it; what is left out becomes empty."""
        self.flags()
        draft_id, person = read_id("draft", raw_id), self.who.person
        sent: dict[str, Any] = self.fields(DRAFT)
        draft = await self.ask(lambda broker: broker.save_draft(person, draft_id=draft_id, **sent))
        self.reply(views.draft_view(draft))

    async def delete(self, raw_id: str) -> None:
        """Throw it away."""
        self.flags()
        draft_id, person = read_id("draft", raw_id), self.who.person
        self.fields({})
        draft = await self.ask(lambda broker: broker.drop_draft(person, draft_id))
        self.reply(views.draft_view(draft))


class FileDraft(ApiHandler):
    """A draft becomes a request."""

    async def post(self, raw_id: str) -> None:
        """File it."""
        self.flags()
        draft_id, person = read_id("draft", raw_id), self.who.person
        self.fields({})
        request = await self.ask(lambda broker: broker.file_draft(person, draft_id))
        self.reply(views.request_view(request), 201)
