"""The REST API's waiting list: the visitor's places in it, and everybody's for admins."""

from __future__ import annotations

from jupyterhub_migspawner.broker import Broker, views
from jupyterhub_migspawner.broker.statuses import TicketStatus
from jupyterhub_migspawner.leases.rows import TicketRow
from jupyterhub_migspawner.service.allowances import maker
from jupyterhub_migspawner.service.body import Field
from jupyterhub_migspawner.service.problem import Problem
from jupyterhub_migspawner.service.rest import REASON, ApiHandler, read_id

#: What a place in the waiting list is made of; whose it is is never part of it.
NEW_TICKET = {
    "tier": Field("name", required=True),
    "server": Field("server"),
    "start": Field("flag"),
    "upward": Field("flag"),
}


class Queue(ApiHandler):
    """Places in the waiting list."""

    async def get(self) -> None:
        """List the visitor's places; everybody's for admins."""
        if self.flags("all")["all"]:
            if not self.who.is_admin:
                raise Problem(403, "not-allowed", "Only admins see everybody's places.")
            found = await self.ask(lambda broker: broker.queue())
        else:
            name = self.who.person.name
            found = await self.ask(lambda broker: broker.queue(name))
        self.reply([views.ticket_view(status) for status in found])

    async def post(self) -> None:
        """Take a place, or change what it is for."""
        self.flags()
        asked = self.fields(NEW_TICKET)
        person = self.who.person

        def join(broker: Broker) -> TicketStatus:
            ticket = broker.join(
                person,
                asked["tier"],
                server=asked.get("server", ""),
                start=asked.get("start", False),
                upward=asked.get("upward", False),
            )
            return standing(broker, ticket)

        self.reply(views.ticket_view(await self.ask(join)), 201)


class OneTicket(ApiHandler):
    """A place by its ticket's id."""

    async def delete(self, raw_id: str) -> None:
        """Give it up, and with it what is held for it."""
        self.flags()
        ticket_id = read_id("ticket", raw_id)
        reason = self.fields(REASON).get("reason", "")
        by = maker(self.who)
        ticket = await self.ask(lambda broker: broker.leave(ticket_id, by, reason))
        self.reply(views.ticket_view(TicketStatus(ticket, 0, None, None)))


def standing(broker: Broker, ticket: TicketRow) -> TicketStatus:
    """A ticket as it stands, with its place where it waits."""
    for status in broker.queue(ticket.user):
        if status.row.id == ticket.id:
            return status
    return TicketStatus(ticket, 0, None, None)
