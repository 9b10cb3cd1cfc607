"""The REST API's queue: the visitor's tickets, and everybody's for admins."""

from __future__ import annotations

from jupyterhub_migspawner.broker import Broker, views
from jupyterhub_migspawner.broker.statuses import TicketStatus
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.models.base import Reason
from jupyterhub_migspawner.service.api.models.queue import NewTicket
from jupyterhub_migspawner.service.api.operation import operation
from jupyterhub_migspawner.service.http.problem import Problem
from jupyterhub_migspawner.service.parts import Parts


class Queue(ApiHandler):
    """Tickets of the queue."""

    path = "/queue"

    @operation(
        "listTickets",
        paged=True,
        flags={"all": "All users' tickets. For hub admins and the scope custom:migspawner:admin."},
        refusals={403: "Only admins see all users' tickets."},
    )
    async def get(self) -> list[views.Ticket]:
        """List the person's own tickets in the waiting list."""
        query = self.query
        if query["all"] and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins see everybody's tickets.")
        name = None if query["all"] else self.who.person.name
        found = await self.ask(
            lambda broker: broker.queue.status(name, part=query.part.and_one_more)
        )
        return self.part_of(found, views.ticket_view, lambda status: status.row.id)

    @operation(
        "joinQueue",
        status=201,
        done="The updated ticket.",
        refusals={
            403: "The person may not use the tier, their quota allows none of it, or the token may "
            "not start that server.",
            404: "There is no such tier.",
            409: "Waiting would not help: the tier has no GPU, one is free, or the person has one.",
        },
        links={"leave": "leaveQueue"},
    )
    async def post(self, body: NewTicket) -> views.Ticket:
        """Join the waiting list for a tier, or change one's ticket."""
        visitor, person, server = self.who, self.who.person, body.server
        existing = await is_existing(self.parts, person.name, server)
        beside = await self.beside(person.name, server)

        def join(broker: Broker) -> TicketStatus:
            if body.start:
                visitor.demand_start(server, "have a server started")
            ticket = broker.queue.join(
                person,
                body.tier,
                server=server,
                start=body.start,
                existing=existing,
                upward=body.upward,
                other_servers=beside.other_servers,
                stopping=beside.stopping,
            )
            return standing(broker, ticket)

        return views.ticket_view(await self.ask(join))


class OneTicket(ApiHandler):
    """A ticket by its id."""

    path = "/queue/{id}"

    @operation(
        "leaveQueue",
        done="The cancelled ticket.",
        refusals={
            403: "It is another user's ticket.",
            404: "There is no such ticket.",
            409: "The ticket is over.",
        },
    )
    async def delete(self, ticket_id: int, body: Reason) -> views.Ticket:
        """Leave the waiting list: cancel one's own ticket and its offer; admins can cancel any."""
        by = self.who.maker
        ticket = await self.ask(lambda broker: broker.queue.leave(ticket_id, by, body.reason))
        return views.ticket_view(TicketStatus(ticket, 0, None, None))


async def is_existing(parts: Parts, user: str, server: str) -> bool:
    """Return whether the hub has that server, where it matters: its name may then be an old one.

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
    """Return a ticket as it is now, with its queue position where it waits."""
    for status in broker.queue.status(ticket.user):
        if status.row.id == ticket.id:
            return status
    return TicketStatus(ticket, 0, None, None)
