"""Drafts of requests: saved and dropped on the page of requests."""

from __future__ import annotations

from jupyterhub_migspawner.service.api.handler import read_id
from jupyterhub_migspawner.service.pages.requests import TYPED, MyRequests


class KeepDraft(MyRequests):
    """What was typed is kept as a draft."""

    async def get(self) -> None:
        """Redirect to the list: there is nothing to see here."""
        self.redirect(f"{self.parts.prefix}requests")

    async def post(self) -> None:
        """Save what was typed."""
        assert self.visitor is not None
        person = self.visitor.person
        typed = {name: self.field(name) for name in TYPED}
        raw = self.field("draft")
        draft_id = read_id("draft", raw) if raw else None
        problem = await self.change(
            lambda broker: broker.drafts.save(person, draft_id=draft_id, **typed),
            "kept",
            "requests",
        )
        if problem:
            await self.page({**typed, "draft": raw}, problem)


class DropDraft(MyRequests):
    """A draft is thrown away."""

    async def get(self, raw_id: str) -> None:  # type: ignore[override]
        """Redirect to the list: there is nothing to see here."""
        self.redirect(f"{self.parts.prefix}requests")

    async def post(self, raw_id: str) -> None:  # type: ignore[override]
        """Discard the draft."""
        assert self.visitor is not None
        draft_id, person = read_id("draft", raw_id), self.visitor.person
        problem = await self.change(
            lambda broker: broker.drafts.drop(person, draft_id), "dropped", "requests"
        )
        if problem:
            await self.page({}, problem)
