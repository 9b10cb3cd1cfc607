"""The REST API's drafts: what the visitor has begun to ask for and nobody else sees."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.models.base import Nothing
from jupyterhub_migspawner.service.api.models.drafts import NewDraft
from jupyterhub_migspawner.service.api.operation import operation

_UNKNOWN = "The person has no such draft."


class Drafts(ApiHandler):
    """The visitor's drafts."""

    path = "/drafts"

    @operation("listDrafts")
    async def get(self) -> list[views.Draft]:
        """List the user's own draft requests, which other users cannot see."""
        person = self.who.person
        found = await self.ask(lambda broker: broker.drafts.of(person))
        return [views.draft_view(draft) for draft in found]

    @operation(
        "makeDraft",
        status=201,
        done="The draft.",
        refusals={409: "The person has as many drafts as they may."},
    )
    async def post(self, body: NewDraft) -> views.Draft:
        """Save a draft of a request."""
        person, typed = self.who.person, body.model_dump()
        draft = await self.ask(lambda broker: broker.drafts.save(person, **typed))
        return views.draft_view(draft)


class OneDraft(ApiHandler):
    """A draft by its id."""

    path = "/drafts/{id}"

    @operation("changeDraft", done="The draft.", refusals={404: _UNKNOWN})
    async def put(self, draft_id: int, body: NewDraft) -> views.Draft:
        """Replace a draft."""
        person, typed = self.who.person, body.model_dump()
        draft = await self.ask(
            lambda broker: broker.drafts.save(person, draft_id=draft_id, **typed)
        )
        return views.draft_view(draft)

    @operation("dropDraft", done="The discarded draft.", refusals={404: _UNKNOWN})
    async def delete(self, draft_id: int, body: Nothing) -> views.Draft:
        """Discard a draft."""
        person = self.who.person
        draft = await self.ask(lambda broker: broker.drafts.drop(person, draft_id))
        return views.draft_view(draft)


class FileDraft(ApiHandler):
    """A draft becomes a request."""

    path = "/drafts/{id}/file"

    @operation(
        "fileDraft",
        status=201,
        done="The request.",
        refusals={
            403: "The person may not use the tier, or their quota allows none of it.",
            404: _UNKNOWN,
            409: "The tier needs no approval, or the person has a request or grant already.",
        },
    )
    async def post(self, draft_id: int, body: Nothing) -> views.Request:
        """File a draft as a request."""
        person = self.who.person
        request = await self.ask(lambda broker: broker.drafts.file(person, draft_id))
        return views.request_view(request)
