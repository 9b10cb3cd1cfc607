"""Events: their kinds, the row, and pages of them.

Promises that :data:`KINDS` is all of them: the event log refuses any other, and a test compares
them with the schemas that events leave the service with.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

KINDS = {
    "node.seen": "A node reported its cards for the first time.",
    "node.booted": "A node was restarted; it is offered again after its agent has checked it.",
    "node.port-taken": "Another user's process listens on a port of the hub or of a server.",
    "node.taken-over": "Another process reports for a node, after the one before was silent.",
    "card.seen": "A card was reported for the first time.",
    "card.changed": "A card was reported with new values.",
    "card.back": "A lost card was reported again.",
    "card.lost": "A card is no longer listed by the driver, or does not work.",
    "card.drained": "A card was drained: no new leases start on it.",
    "card.resumed": "A drain was ended.",
    "card.layout": "The desired layout of a card was set.",
    "card.target": "A card is to be cut for a whole-card lease, or back to its layout.",
    "card.step": "A step of a cut was completed.",
    "card.step-failed": "A step of a cut, or a command around it, failed.",
    "card.cut": "A card has reached its target.",
    "card.reserved": "A card was reserved for a grant and is being emptied.",
    "card.emptied": "A reserved card is empty and is kept for its grant.",
    "card.unreserved": "A reservation of a card ended.",
    "card.xid": "The driver reported an XID error that affects a whole card.",
    "slice.seen": "A slice was reported for the first time, again, or with changes.",
    "slice.missing": "A slice is no longer reported.",
    "slice.claimed": "A slice was taken out of use so that it can be destroyed.",
    "slice.quarantined": "A slice was quarantined: it is not given out.",
    "slice.unquarantined": "A quarantine was ended.",
    "slice.xid": "The driver reported an XID error that affects a slice.",
    "lease.offered": "A lease was created for a ticket and is held for its user for some minutes.",
    "lease.pending": "A lease was created for a starting server.",
    "lease.active": "The server of a lease is running.",
    "lease.releasing": "A lease is being released.",
    "lease.shortened": "A lease ends earlier, because its grant was revoked.",
    "lease.ending": "The session of a lease will end soon.",
    "lease.extended": "A user extended an idle session.",
    "lease.protected": "An admin protected a session from being ended for being idle.",
    "lease.unknown": "The use of a session has been unknown for a long time.",
    "lease.foreign": "A process of another system user is on the slice of a lease.",
    "lease.unproven": "A session has long claimed to be in use, but none of its processes works.",
    "lease.waiting": "A lease that is being released waits for something.",
    "lease.stuck": "The slice of a lease is not proven empty long after its session has ended.",
    "lease.released": "The slice of a lease was proven empty.",
    "lease.lost": "A lease ended because its card was lost.",
    "lease.xid": "The driver reported an XID error that affects a lease.",
    "request.created": "A user asked for a tier that needs approval.",
    "request.approved": "A request was approved and became a grant.",
    "request.seconded": "The first of two approvers approved a request.",
    "request.reminder": "A request has waited for a decision for a long time.",
    "request.ending": "A grant will end soon.",
    "request.used": "A grant was used up.",
    "request.denied": "A request was denied.",
    "request.cancelled": "A request or grant was withdrawn.",
    "request.expired": "A request or grant expired.",
    "ticket.joined": "A user joined the waiting list.",
    "ticket.changed": "A user changed their ticket.",
    "ticket.blocked": "A ticket was blocked, or is no longer blocked.",
    "ticket.offered": "A ticket received an offer, which is held for its user.",
    "ticket.taken": "A user started a server on the offer for their ticket.",
    "ticket.lapsed": "An offer was not used in time.",
    "ticket.cancelled": "A ticket was cancelled.",
    "quota.lifted": "A limit was raised for a user, until a given time.",
    "quota.restored": "An exception from a quota was ended early.",
    "lease.renamed": "The server of a lease was renamed.",
    "user.renamed": "A hub renamed a user; their leases and requests have the new name.",
    "user.deleted": "A hub deleted a user; their requests were cancelled.",
    "hub.claimed": "A hub started to use this database, or uses it from another home.",
    "hub.renamed": "A hub was renamed; its leases and requests have the new name.",
    "clock.stepped": "The clock was set; all pending times moved with it.",
    "clock.paused": "The machine was suspended or off; ends in that time come after a warning.",
    "attempt.cancelled": "A start was cancelled before it had a lease.",
}
"""Kind to its description. The word before the dot is its family."""

WAKING = frozenset(
    {
        "lease.releasing",
        "lease.released",
        "lease.lost",
        "card.back",
        "card.resumed",
        "card.cut",
        "card.emptied",
        "card.unreserved",
        "slice.seen",
        "slice.unquarantined",
        "ticket.joined",
        "ticket.offered",
        "request.approved",
    }
)
"""Kinds that a waiter may wait for. PostgreSQL notifies of these; they are no start of a server,
since commits that notify follow each other."""

FAMILIES = tuple(dict.fromkeys(kind.split(".")[0] for kind in KINDS))
"""The families of kinds."""


@dataclass(frozen=True)
class EventRow:
    """One change, never altered: who did what, when, to what and why."""

    id: int
    at: datetime
    actor: str
    kind: str
    user: str
    lease_id: int | None
    card_uuid: str | None
    request_id: int | None
    detail: dict[str, Any]


@dataclass(frozen=True)
class EventQuery:
    """Which events to find; what is left out does not matter.

    ``kinds`` are whole kinds (``lease.active``) or families of them (``lease``). ``since`` is a
    moment in UTC, and ``user`` the person whom an event is about, not the one who did it.
    """

    since: datetime | None = None
    kinds: tuple[str, ...] = ()
    user: str | None = None
    lease_id: int | None = None
    card_uuid: str | None = None
    request_id: int | None = None


EVERYTHING = EventQuery()


@dataclass(frozen=True)
class EventPage:
    """Events, oldest first, and the id up to which there are no others of those asked for.

    Reading on after ``read_to`` misses nothing and repeats nothing.
    """

    events: tuple[EventRow, ...]
    read_to: int
