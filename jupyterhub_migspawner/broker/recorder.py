"""The recorder: events about leases, slices, tickets and requests, and how leases and tickets end.

Each event is written in the transaction of the change that it reports.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jupyterhub_migspawner.broker.views.json import timestamp
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.model.tickets import TicketRow
from jupyterhub_migspawner.policy import approval


def lease_event(
    tx: Transaction, lease: LeaseRow, at: datetime, actor: str, *, kind: str = "", **detail: Any
) -> None:
    """Record that a lease has come into its present state, or another ``kind`` about it."""
    queries.events.append(
        tx,
        at,
        actor,
        kind or f"lease.{lease.state}",
        user=lease.user,
        lease_id=lease.id,
        card_uuid=lease.card_uuid,
        request_id=lease.request_id,
        hub=lease.hub,
        server=lease.server,
        tier=lease.tier,
        profile=lease.profile,
        start=lease.start,
        **detail,
    )


def slice_event(
    tx: Transaction, at: datetime, actor: str, kind: str, row: SliceRow, **detail: Any
) -> None:
    """Record an event about one slice."""
    queries.events.append(
        tx,
        at,
        actor,
        kind,
        card_uuid=row.card_uuid,
        slice_id=row.id,
        profile=row.profile,
        start=row.start,
        **detail,
    )


def begin_release(
    tx: Transaction, lease: LeaseRow, reason: str, actor: str, now: datetime, **detail: Any
) -> LeaseRow | None:
    """Let a pending or active lease begin to end; None when it was not one any more."""
    after = queries.leases.release(tx, lease.id, now, reason)
    if after is not None:
        lease_event(tx, after, now, actor, why=reason, **detail)
    return after


def close_ticket(
    tx: Transaction, ticket: TicketRow, state: str, why: str, now: datetime, actor: str = ""
) -> bool:
    """End a ticket that waits or is offered something; False when it has ended already."""
    ended = {"state": state, "ended_at": now, "end_reason": why, "blocked": ""}
    if not queries.tickets.change(tx, ticket.id, ticket.state, **ended):
        return False
    ticket_event(tx, ticket, now, actor or ticket.user, f"ticket.{state}", why=why)
    return True


def ticket_event(
    tx: Transaction, ticket: TicketRow, now: datetime, actor: str, kind: str, **detail: Any
) -> None:
    """Record an event about a ticket."""
    values = {"hub": ticket.hub, "server": ticket.server, "tier": ticket.tier, **detail}
    queries.events.append(tx, now, actor, kind, user=ticket.user, ticket=ticket.id, **values)


def request_event(
    tx: Transaction, request_id: int, now: datetime, actor: str, why: str, kind: str = ""
) -> RequestRow:
    """Record that a request has come into its present state, or another ``kind`` about it.

    Returns the request as it is now.
    """
    request = queries.requests.by_id(tx, request_id)
    assert request is not None  # requests are not deleted
    state = "created" if request.state == approval.PENDING else request.state
    times = (
        ("wanted", request.starts_at),
        ("from", request.valid_from),
        ("until", request.valid_until),
    )
    told: dict[str, Any] = {name: timestamp(at) for name, at in times if at is not None}
    queries.events.append(
        tx,
        now,
        actor,
        kind or f"request.{state}",
        user=request.user,
        request_id=request.id,
        hub=request.hub,
        tier=request.tier,
        hours=request.hours,
        why=why,
        groups=list(request.groups),
        **told,
    )
    return request
