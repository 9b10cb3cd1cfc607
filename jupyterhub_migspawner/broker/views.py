"""Rows as JSON-ready dicts, for the command line and the REST API alike.

Keys are stable; times are UTC as ``2026-11-22T17:53:16Z``. A viewer who is not a hub admin does not
learn who else holds what: other people's leases show as a state only.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from jupyterhub_migspawner.broker.statuses import (
    QuotaStatus,
    SliceStatus,
    Standing,
    TicketStatus,
    TierOffer,
)
from jupyterhub_migspawner.leases.rows import (
    CardRow,
    DraftRow,
    EventRow,
    LeaseRow,
    NodeRow,
    QuotaExceptionRow,
    RequestRow,
)
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.queue import Expectation

Json = dict[str, Any]


def timestamp(at: datetime | None) -> str | None:
    """A time in UTC to the second, or None."""
    if at is None:
        return None
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def slice_view(status: SliceStatus, viewer: Person | None = None) -> Json:
    """A slice; ``viewer`` None or an admin sees who holds it.

    ``lease`` is the first of ``leases``, which are several where a tier shares the slice, and say
    which seat is whose.
    """
    row = status.row
    leases = [
        lease
        for lease in status.leases
        if viewer is None or viewer.admin or viewer.name == lease.user
    ]
    return {
        "id": row.id,
        "uuid": row.uuid,
        "node": row.node,
        "card_uuid": row.card_uuid,
        "card_index": row.card_index,
        "profile": row.profile,
        "start": row.start,
        "size": row.size,
        "memory_mib": row.memory_mib,
        "state": status.state,
        "why": status.why,
        "lease": _lease_of_slice(leases[0]) if leases else None,
        "leases": [{**_lease_of_slice(lease), "seat": lease.seat} for lease in leases],
    }


def _lease_of_slice(lease: LeaseRow) -> Json:
    return {
        "id": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "since": timestamp(lease.since),
    }


def lease_view(lease: LeaseRow) -> Json:
    """A lease, live or past."""
    return {
        "id": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "state": lease.state,
        "profile": lease.profile,
        "memory_mib": lease.memory_mib,
        "node": lease.node,
        "card_uuid": lease.card_uuid,
        "slice_uuid": lease.slice_uuid,
        "seat": lease.seat,
        "since": timestamp(lease.since),
        "ends_at": timestamp(lease.ends_at),
        "ended_at": timestamp(lease.ended_at),
        "end_reason": lease.end_reason,
        "waiting_for": lease.waiting_for,
        "request_id": lease.request_id,
        "hub": lease.hub,
        "ticket": lease.ticket_id,
    }


def standing_view(standing: Standing) -> Json:
    """A running session: whether it is in use, when it ends, and what keeps it."""
    lease, stay, found = standing.lease, standing.stay, standing.verdict
    return {
        "lease": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "since": timestamp(lease.since),
        "idle_since": timestamp(found.idle_since),
        "ends_at": timestamp(found.ends_at),
        "rule": found.rule or None,
        "why": found.why,
        "unknown": list(found.unknown),
        "unknown_since": timestamp(found.unknown_since),
        "extended_until": timestamp(stay.extended_until),
        "protected_until": timestamp(stay.protected_until),
        "protected_by": stay.protected_by,
        "protected_why": stay.protected_why,
        "signals": [
            {
                "source": row.source,
                "seen_at": timestamp(row.seen_at),
                "active_at": timestamp(row.active_at),
                "said": row.said,
                "trouble": row.trouble,
            }
            for row in standing.readings
        ],
    }


def request_view(request: RequestRow) -> Json:
    """A request or grant."""
    return {
        "id": request.id,
        "user": request.user,
        "tier": request.tier,
        "hours": request.hours,
        "reason": request.reason,
        "state": request.state,
        "created_at": timestamp(request.created_at),
        "decided_by": request.decided_by,
        "decided_at": timestamp(request.decided_at),
        "decision_reason": request.decision_reason,
        "valid_until": timestamp(request.valid_until),
        "hub": request.hub,
        "groups": list(request.groups),
        "starts_at": timestamp(request.starts_at),
        "valid_from": timestamp(request.valid_from),
        "first_by": request.first_by,
        "uses": request.uses,
    }


def ticket_view(status: TicketStatus) -> Json:
    """A place in the waiting list; waits in seconds."""
    row, expectation = status.row, status.expectation
    return {
        "id": row.id,
        "user": row.user,
        "server": row.server,
        "tier": row.tier,
        "tiers": list(row.tiers),
        "start": row.start,
        "state": row.state,
        "since": timestamp(row.created_at),
        "place": status.place or None,
        "wait": None if expectation is None else _wait_view(expectation),
        "blocked": row.blocked,
        "offered_tier": status.lease.tier if status.lease else None,
        "offer_until": timestamp(status.lease.deadline) if status.lease else None,
        "ended_at": timestamp(row.ended_at),
        "end_reason": row.end_reason,
        "hub": row.hub,
    }


def _wait_view(expectation: Expectation) -> Json:
    return {
        "likely": _seconds(expectation.likely),
        "latest": _seconds(expectation.latest),
        "confidence": expectation.confidence,
        "sessions": expectation.sessions,
    }


def _plain(value: float | None) -> float | None:
    """A number without a fraction that it has not."""
    return int(value) if value is not None and value == int(value) else value


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else round(span.total_seconds())


def draft_view(draft: DraftRow) -> Json:
    """What somebody has begun to ask for."""
    return {
        "id": draft.id,
        "tier": draft.tier,
        "hours": draft.hours,
        "starts_at": draft.starts_at,
        "reason": draft.reason,
        "changed_at": timestamp(draft.changed_at),
    }


def quota_view(status: QuotaStatus) -> Json:
    """One limit of a person, and how much of it is used."""
    return {
        "field": status.field,
        "limit": status.limit,
        "used": None if status.used is None else round(status.used, 3),
        "frees_at": timestamp(status.frees_at),
        "exceptions": [exception_view(row) for row in status.exceptions],
    }


def exception_view(row: QuotaExceptionRow) -> Json:
    """An exception from a quota."""
    return {
        "id": row.id,
        "user": row.user,
        "field": row.field,
        "limit": row.amount,
        "reason": row.reason,
        "granted_by": row.granted_by,
        "granted_at": timestamp(row.granted_at),
        "until": timestamp(row.until),
        "ended_by": row.ended_by,
        "ended_at": timestamp(row.ended_at),
        "hub": row.hub,
    }


def tier_view(offer: TierOffer) -> Json:
    """A tier as it stands for one person."""
    tier = offer.tier
    return {
        "name": tier.name,
        "title": tier.title,
        "description": tier.description,
        "profile": tier.profile,
        "seats": tier.seats,
        "free": offer.free,
        "total": offer.total,
        "usable": offer.usable,
        "why": offer.why,
        "approval": tier.approval,
        "max_hours": tier.max_hours,
        "idle_minutes": _plain(tier.idle_minutes),
        "grant": request_view(offer.grant) if offer.grant else None,
        "waiting": offer.waiting,
        "ticket": offer.ticket.id if offer.ticket else None,
        "held_until": timestamp(offer.held.deadline) if offer.held else None,
    }


def node_view(node: NodeRow) -> Json:
    """A node."""
    return {
        "name": node.name,
        "heartbeat_at": timestamp(node.heartbeat_at),
        "driver_version": node.driver_version,
    }


def card_view(card: CardRow) -> Json:
    """A card; layouts as ``[{"profile": ..., "start": ...}]``."""
    return {
        "uuid": card.uuid,
        "node": card.node,
        "index": card.index,
        "model": card.model,
        "memory_mib": card.memory_mib,
        "mig_enabled": card.mig_enabled,
        "state": card.state,
        "problem": card.problem,
        "layout": [{"profile": profile, "start": start} for profile, start in card.layout],
        "target": None
        if card.target is None
        else [{"profile": profile, "start": start} for profile, start in card.target],
    }


def event_view(event: EventRow) -> Json:
    """An event."""
    return {
        "id": event.id,
        "at": timestamp(event.at),
        "actor": event.actor,
        "kind": event.kind,
        "user": event.user,
        "lease_id": event.lease_id,
        "card_uuid": event.card_uuid,
        "request_id": event.request_id,
        "detail": event.detail,
    }
