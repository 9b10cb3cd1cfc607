"""The page of notices: which ones the visitor gets, and which they can turn off."""

from __future__ import annotations

from jupyterhub_migspawner.policy.notices import TOPICS, USERS
from jupyterhub_migspawner.service.pages.page import Page


class MyNotices(Page):
    """A box for each topic."""

    async def get(self) -> None:
        """Show the page."""
        assert self.visitor is not None
        name = self.visitor.person.name
        choices = await self.ask(lambda broker: broker.notices.choices(name))
        self.show(
            "notices.html",
            topics=[(topic, title, choices[topic]) for topic, title in TOPICS.items()],
            reachable=self.parts.settings.notices.tell(USERS),
            confirmation="Your choice is saved." if self.get_query_argument("kept", "") else "",
        )

    async def post(self) -> None:
        """Store the choice: a box that is not ticked is a topic that one does without."""
        assert self.visitor is not None
        name = self.visitor.person.name
        choices = {topic: bool(self.get_body_argument(topic, "")) for topic in TOPICS}
        await self.ask(lambda broker: broker.notices.choose(name, choices))
        self.redirect(f"{self.parts.prefix}notices?kept=1", status=303)
