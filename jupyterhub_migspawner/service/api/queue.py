"""The REST API's waiting list: the visitor's places in it, and everybody's for admins."""

from __future__ import annotations

from jupyterhub_migspawner.broker import Broker, views
from jupyterhub_migspawner.broker.statuses import TicketStatus
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.service.api.handler import REASON, ApiHandler, read_id
from jupyterhub_migspawner.service.http.body import Field
from jupyterhub_migspawner.service.http.problem import Problem
from jupyterhub_migspawner.service.parts import Parts

#: What a ticket is made of; whose it is is never part of it.
NEW_TICKET = {
    "tier": Field("name", required=True),
    "server": Field("server"),
    "start": Field("flag"),
    "upward": Field("flag"),
}


class Queue(ApiHandler):
    """Tickets of the queue."""

    async def get(self) -> None:
        """List the visitor's places; everybody's for admins."""
        flags, part = self.listing("all")
        if flags["all"] and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins see everybody's places.")
        name = None if flags["all"] else self.who.person.name
        found = await self.ask(lambda broker: broker.queue(name, part=part.and_one_more))
        self.reply_part(found, views.ticket_view, part)

    async def post(self) -> None:
        """Join the queue, or change what a ticket is for."""
        self.flags()
        asked = self.fields(NEW_TICKET)
        visitor, person = self.who, self.who.person
        existing = await is_existing(self.parts, person.name, asked.get("server", ""))

        server, start = asked.get("server", ""), asked.get("start", False)
        beside = await self.beside(person.name, server)

        def join(broker: Broker) -> TicketStatus:
            if start:
                visitor.demand_start(server, "have a server started")
            ticket = broker.join(
                person,
                asked["tier"],
                server=server,
                start=start,
                existing=existing,
                upward=asked.get("upward", False),
                other_servers=beside.other_servers,
                stopping=beside.stopping,
            )
            return standing(broker, ticket)

        self.reply(views.ticket_view(await self.ask(join)), 201)


class OneTicket(ApiHandler):
    """A place by its ticket's id."""

    async def delete(self, raw_id: str) -> None:
        """Give up this place, and what is held for it."""
        self.flags()
        ticket_id = read_id("ticket", raw_id)
        reason = self.fields(REASON).get("reason", "")
        by = self.who.maker
        ticket = await self.ask(lambda broker: broker.leave(ticket_id, by, reason))
        self.reply(views.ticket_view(TicketStatus(ticket, 0, None, None)))


async def is_existing(parts: Parts, user: str, server: str) -> bool:
    """Whether the hub has that server already, where it matters: its name may then be an old one.

    Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``conflict``) where the hub would not
    start one more, and :exc:`.HubError` when the hub does not say so.
    """
    names = parts.settings.server_names
    if not server or names.why_not(server, existing=True):
        return False
    wrong = bool(names.why_not(server))
    if not wrong and not names.most:
        return False
    known = await parts.hub.server_names(user)
    why_not = "" if wrong else names.one_too_many(server, known)
    if why_not:
        raise Refusal(why_not, reason="conflict")
    return server in known


def standing(broker: Broker, ticket: TicketRow) -> TicketStatus:
    """A ticket as it stands, with its place where it waits."""
    for status in broker.queue(ticket.user):
        if status.row.id == ticket.id:
            return status
    return TicketStatus(ticket, 0, None, None)
