"""Rows as JSON-ready dicts, for the command line and the REST API alike.

Keys are stable; times are UTC as ``2026-11-22T17:53:16Z``. A viewer who is not a hub admin does not
learn who else holds what: other people's leases show as a state only.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from jupyterhub_migspawner.broker.orphans import Adoption
from jupyterhub_migspawner.broker.statuses import (
    QUARANTINED,
    QuotaStatus,
    SliceStatus,
    Standing,
    TicketStatus,
    TierOffer,
)
from jupyterhub_migspawner.broker.wanting import desired
from jupyterhub_migspawner.leases.rows import (
    LOST,
    CardRow,
    DraftRow,
    EventRow,
    LeaseRow,
    NodeRow,
    QuotaExceptionRow,
    RequestRow,
)
from jupyterhub_migspawner.policy import proof
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
    which seat is whose. Why a slice is quarantined names processes and people, which is for admins.
    """
    row = status.row
    admin = viewer is None or viewer.admin
    leases = [lease for lease in status.leases if admin or viewer_is(viewer, lease)]
    why = status.why
    if row.quarantined and not admin:
        why = _QUARANTINED if status.state == QUARANTINED else why.replace(row.quarantined, "")
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
        "why": why.strip(),
        "lease": _lease_of_slice(leases[0]) if leases else None,
        "leases": [{**_lease_of_slice(lease), "seat": lease.seat} for lease in leases],
        "unproven": [
            unproven_view(lease, row.quarantined, admin=admin) for lease in leases if lease.ending
        ],
    }


_QUARANTINED = "It is quarantined: given to nobody until what is on it has been looked at."


def viewer_is(viewer: Person | None, lease: LeaseRow) -> bool:
    """Whether a lease is the viewer's own."""
    return viewer is not None and viewer.name == lease.user


def _lease_of_slice(lease: LeaseRow) -> Json:
    return {
        "id": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "since": timestamp(lease.since),
    }


def adoption_view(adoption: Adoption) -> Json:
    """What became of a server without a lease; ``lease`` null and ``why`` where it has none."""
    orphan, lease = adoption.orphan, adoption.lease
    return {
        "attempt": orphan.attempt,
        "user": orphan.user,
        "server": orphan.server,
        "hub": orphan.hub,
        "tier": orphan.tier,
        "node": orphan.node,
        "card_uuid": orphan.card_uuid,
        "profile": orphan.profile,
        "start": orphan.start,
        "slice_uuid": orphan.slice_uuid,
        "process": orphan.pids[0] if orphan.pids else None,
        "vouched": orphan.vouched,
        "lease": lease.id or None if lease is not None else None,
        "adopted": lease is not None,
        "why": adoption.why,
    }


def _waiting_for(lease: LeaseRow, *, admin: bool) -> str:
    """Why a slice is not proven empty: pids, users and commands are for admins."""
    if not lease.ending or admin:
        return lease.waiting_for
    return proof.cause(lease.waiting_for)


def unproven_view(lease: LeaseRow, quarantined: str = "", *, admin: bool = True) -> Json:
    """A lease whose session has ended and whose slice is not proven empty; in full for admins.

    ``quarantined`` is the reason for which its slice is, if it is.
    """
    return {
        "lease": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "node": lease.node,
        "slice_uuid": lease.slice_uuid,
        "releasing_at": timestamp(lease.releasing_at),
        "end_reason": lease.end_reason,
        "waiting_for": _waiting_for(lease, admin=admin),
        "quarantined": quarantined if admin else "",
        "mend": proof.mend(f"{quarantined} {lease.waiting_for}", lease.node) if admin else "",
    }


def lease_view(lease: LeaseRow, *, admin: bool = True) -> Json:
    """A lease, live or past; what keeps its slice from being proven empty in full for admins."""
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
        "releasing_at": timestamp(lease.releasing_at),
        "waiting_for": _waiting_for(lease, admin=admin),
        "mend": proof.mend(lease.waiting_for, lease.node) if lease.ending and admin else "",
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
        "new": found.new,
        "doubt": None
        if standing.doubt is None
        else {
            "kind": standing.doubt.kind,
            "since": timestamp(standing.doubt.since),
            "why": standing.doubt.why,
        },
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


def stranded_view(lease: LeaseRow) -> Json:
    """A session whose card was lost, in the shape of one that runs; nothing ends it."""
    nothing = ("idle_since", "ends_at", "rule", "unknown_since", "extended_until")
    return {
        **dict.fromkeys((*nothing, "protected_until")),
        "lease": lease.id,
        "user": lease.user,
        "server": lease.server,
        "tier": lease.tier,
        "since": timestamp(lease.since),
        "why": "",
        "unknown": [],
        "new": False,
        "doubt": {"kind": LOST, "since": timestamp(lease.ended_at), "why": lease.end_reason},
        "protected_by": "",
        "protected_why": "",
        "signals": [],
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
    """A ticket of the queue; waits in seconds."""
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
        "stuck": expectation.stuck,
    }


def _plain(value: float | None) -> float | None:
    """A number without a fraction that it has not."""
    return int(value) if value is not None and value == int(value) else value


def _seconds(span: timedelta | None) -> int | None:
    return None if span is None else round(span.total_seconds())


def draft_view(draft: DraftRow) -> Json:
    """A draft of a request."""
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
        "card": None if tier.card is None else tier.card.text,
        "seats": tier.seats,
        "free": offer.free,
        "total": offer.total,
        "shares_with": [each.name for each in offer.shares_with],
        "usable": offer.usable,
        "why": offer.why,
        "soon": offer.soon,
        "outage": offer.outage,
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


def card_view(card: CardRow, slices: Iterable[SliceStatus] = ()) -> Json:
    """A card; layouts as ``[{"profile": ..., "start": ...}]``.

    ``present`` is how it is cut now, by its ``slices``; ``desired`` how it should be, null where it
    is left as it is. For admins: ``unproven`` are the leases on it whose session has ended.
    """
    here = [status for status in slices if status.row.card_uuid == card.uuid]
    present = sorted(
        ((each.row.profile, each.row.start) for each in here if each.row.present and each.row.uuid),
        key=lambda want: want[1],
    )
    if not card.mig_enabled:
        present = []
    whole = any(lease.whole for status in here for lease in status.leases)
    wish = desired(card, given_whole=whole)
    return {
        "uuid": card.uuid,
        "node": card.node,
        "index": card.index,
        "model": card.model,
        "memory_mib": card.memory_mib,
        "mig_enabled": card.mig_enabled,
        "state": "problem" if card.problem and card.state == "ok" else card.state,
        "drained": card.drained,
        "problem": card.problem,
        "present": [{"profile": profile, "start": start} for profile, start in present],
        "desired": None
        if wish is None
        else [{"profile": profile, "start": start} for profile, start in wish.wants],
        "desired_mig": None if wish is None else wish.mig,
        "layout": [{"profile": profile, "start": start} for profile, start in card.layout],
        "target": None
        if card.target is None
        else [{"profile": profile, "start": start} for profile, start in card.target],
        "unproven": [
            unproven_view(lease, status.row.quarantined)
            for status in here
            for lease in status.leases
            if lease.ending and lease.card_uuid == card.uuid
        ],
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
