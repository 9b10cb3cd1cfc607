"""Tickets in a transaction: find, block or cancel one, or let it wait again.

Relies on the caller holding the lock of the ticket's user where it changes one.
"""

from __future__ import annotations

from datetime import datetime

from jupyterhub_migspawner.broker.checks import wanted_id
from jupyterhub_migspawner.broker.context import BROKER
from jupyterhub_migspawner.broker.recorder import begin_release, close_ticket, ticket_event
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import HELD, PENDING, LeaseRow
from jupyterhub_migspawner.model.tickets import CANCELLED, WAITING, TicketRow


def known_ticket(tx: Transaction, ticket_id: int) -> TicketRow:
    """Return a ticket, open or not.

    Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``not-found``) when there is none of that
    number.
    """
    ticket = queries.tickets.by_id(tx, wanted_id(ticket_id))
    if ticket is None:
        raise missing_ticket(ticket_id)
    return ticket


def missing_ticket(ticket_id: int) -> Refusal:
    """Return the refusal for a ticket that does not exist, or belongs to another user."""
    return Refusal(f"There is no ticket {ticket_id}.", reason="not-found")


def held_for(tx: Transaction) -> dict[int, LeaseRow]:
    """Return what is held for tickets, by ticket."""
    return {
        lease.ticket_id: lease
        for lease in queries.leases.select(tx, states=(PENDING,))
        if lease.ticket_id is not None and lease.state in HELD
    }


def block_ticket(tx: Transaction, ticket: TicketRow, why: str, now: datetime) -> None:
    """Note what keeps a ticket from its turn; an empty text when nothing does any more."""
    if ticket.blocked != why:
        queries.tickets.change(tx, ticket.id, ticket.state, blocked=why)
        ticket_event(tx, ticket, now, BROKER, "ticket.blocked", why=why)


def wait_again(tx: Transaction, ticket: TicketRow, why: str, now: datetime) -> None:
    """Let a ticket whose offer is gone wait again, at its position."""
    queries.tickets.change(tx, ticket.id, ticket.state, state=WAITING, offer_until=None)
    ticket_event(tx, ticket, now, BROKER, "ticket.changed", why=why)


def cancel_ticket(tx: Transaction, ticket: TicketRow, why: str, actor: str, now: datetime) -> None:
    """End a ticket, and give back what is held for it."""
    lease = held_for(tx).get(ticket.id)
    if lease is not None:
        begin_release(tx, lease, f"its ticket has ended: {why}", actor, now)
    close_ticket(tx, ticket, CANCELLED, why, now, actor)
