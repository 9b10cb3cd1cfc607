"""What pages with forms share.

Plain forms, each a POST to its own address that ends in a redirect, so that reloading sends nothing
twice. What is refused comes back on the same page in a sentence, with everything that was typed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.requests import DraftRow, RequestRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.service.pages.page import Page

#: Characters of a field that are looked at; the broker says what is too long.
MOST_CHARACTERS = 10_000


Changed = TypeVar("Changed", RequestRow, TicketRow, DraftRow)


class RequestPage(Page):
    """What the pages of requests share."""

    def field(self, name: str) -> str:
        """Return a field of the form as it was typed, or an empty text."""
        return str(self.get_body_argument(name, "", strip=False))[:MOST_CHARACTERS]

    async def change(
        self,
        use: Callable[[Broker], Changed],
        done: str | Callable[[Changed], str],
        back: str,
    ) -> str:
        """Make a change, then go back with a word of what was done; else return why not."""
        try:
            changed = await self.ask(use)
        except Refusal as refusal:
            self.refuse(refusal)
            return str(refusal)
        word = done if isinstance(done, str) else done(changed)
        self.redirect(f"{self.parts.prefix}{back}?{word}={changed.id}", status=303)
        return ""

    def before(self) -> int | None:
        """Return where the part of a list begins that the address asks for; None for the newest."""
        found = self.get_query_argument("before", "")
        return int(found) if found.isascii() and found.isdigit() and len(found) <= 18 else None

    def confirmation(self, words: Mapping[str, tuple[str, Callable[[int], bool]]]) -> str:
        """Return what was just done, as the address says.

        ``words`` has a sentence for each word and when it is true. Anybody can write an address, so
        there is no message about a number for which it is not true.
        """
        for word, (sentence, holds) in words.items():
            found = self.get_query_argument(word, "")
            if found.isascii() and found.isdigit() and len(found) <= 18 and holds(int(found)):
                return sentence.format(id=int(found))
        return ""
