"""The page of the waiting list: one's tickets, what is held, and a form to join.

As the pages of requests: plain forms, each a POST that ends in a redirect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from jupyterhub_migspawner.broker import Broker, TierStatus
from jupyterhub_migspawner.broker.statuses import TicketStatus
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy.queue import wait_in_words
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.wording import listed
from jupyterhub_migspawner.service.api.handler import read_id
from jupyterhub_migspawner.service.api.queue import is_existing
from jupyterhub_migspawner.service.clients.hub import Beside
from jupyterhub_migspawner.service.pages.forms import RequestPage
from jupyterhub_migspawner.service.pages.status import moment

#: Past places on the page.
MOST_SHOWN = 10

ENDED = ("taken", "lapsed", "cancelled")


class MyQueue(RequestPage):
    """Where the visitor waits, and for what."""

    async def get(self) -> None:
        """Show the page; ``tier`` in the address picks one in the form."""
        await self.page({"tier": self.get_query_argument("tier", "")})

    async def post(self) -> None:
        """Join the queue."""
        assert self.visitor is not None
        visitor = self.visitor
        typed = {name: self.field(name) for name in ("tier", "server", "start", "upward")}
        try:
            existing = await is_existing(self.parts, visitor.person.name, typed["server"])
        except Refusal as refusal:
            self.refuse(refusal)
            await self.page(typed, str(refusal))
            return

        beside = await self.beside(visitor.person.name, typed["server"])

        def join(broker: Broker) -> TicketRow:
            if typed["start"]:
                visitor.demand_start(typed["server"], "have a server started")
            return broker.queue.join(
                visitor.person,
                typed["tier"],
                server=typed["server"],
                start=bool(typed["start"]),
                upward=bool(typed["upward"]),
                existing=existing,
                other_servers=beside.other_servers,
                stopping=beside.stopping,
            )

        problem = await self.change(join, "joined", "queue")
        if problem:
            await self.page(typed, problem)

    async def page(self, typed: Mapping[str, str], problem: str = "") -> None:
        """Show what there is, with the form as it was typed."""
        assert self.visitor is not None
        person = self.visitor.person
        servers = await self.live_servers(person.name)
        running = None if servers is None else frozenset(server.name for server in servers)
        beside = Beside() if servers is None else Beside.of_next(servers)

        def read(
            broker: Broker,
        ) -> tuple[tuple[TicketStatus, ...], tuple[TicketRow, ...], tuple[TierStatus, ...]]:
            past = broker.queue.tickets(
                person.name, hub=broker.hub, states=ENDED, part=Part(MOST_SHOWN)
            )
            offers = broker.tiers.of(person, **vars(beside))
            return broker.queue.status(person.name), past, offers

        places, past, offers = await self.ask(read)
        confirmation = self.confirmation(
            {
                "joined": (
                    "You are on the waiting list, with ticket {id}.",
                    lambda id_: any(each.row.id == id_ for each in places),
                ),
                "left": (
                    "Ticket {id} is cancelled.",
                    lambda id_: any(each.id == id_ for each in past),
                ),
            }
        )
        settings = self.parts.settings
        self.show(
            "queue.html",
            places=[
                {
                    **self._shown(status, settings, running),
                    "gone": all(o.tier.name != status.row.tier or not o.open for o in offers),
                }
                for status in places
            ],
            past=[shown_past(row, settings) for row in reversed(past)],
            offers=[offer for offer in offers if offer.may_wait],
            minutes=settings.offer_minutes,
            typed=typed,
            problem=problem,
            confirmation="" if problem else confirmation,
        )

    def _shown(
        self, status: TicketStatus, settings: Settings, running: frozenset[str] | None
    ) -> dict[str, Any]:
        row = status.row
        lease = status.lease
        start_url = ""
        if lease is not None:
            path = "/".join(quote(part, safe="@~") for part in (row.user, row.server) if part)
            start_url = f"{self.parts.hub_host}{self.parts.hub_prefix}spawn/{path}?" + urlencode(
                {"tier": lease.tier}
            )
        return {
            "id": row.id,
            "state": row.state,
            "tier": settings.title_of(row.tier),
            "others": listed([settings.title_of(name) for name in row.tiers[1:]], "or"),
            "server": row.server,
            "start": row.start,
            "since": moment(row.created_at),
            "place": status.place,
            "wait": "" if status.expectation is None else wait_in_words(status.expectation),
            "blocked": row.blocked,
            "held": settings.title_of(lease.tier) if lease is not None else "",
            "until": moment(lease.deadline) if lease is not None and lease.deadline else None,
            "start_url": start_url,
            "in_the_way": running is not None and row.server in running,
        }


class LeaveMine(MyQueue):
    """The end of a wait."""

    async def get(self, raw_id: str) -> None:  # type: ignore[override]
        """Redirect to the list: there is nothing to see here."""
        self.redirect(f"{self.parts.prefix}queue")

    async def post(self, raw_id: str) -> None:  # type: ignore[override]
        """Leave the waiting list."""
        assert self.visitor is not None
        ticket_id, by = read_id("ticket", raw_id), self.visitor.person
        problem = await self.change(
            lambda broker: broker.queue.leave(ticket_id, by), "left", "queue"
        )
        if problem:
            await self.page({}, problem)


def shown_past(row: TicketRow, settings: Settings) -> dict[str, Any]:
    """Return a ticket that is over, as the page shows it."""
    return {
        "id": row.id,
        "tier": settings.title_of(row.tier),
        "state": row.state,
        "why": row.end_reason,
        "ended": moment(row.ended_at) if row.ended_at else None,
    }
