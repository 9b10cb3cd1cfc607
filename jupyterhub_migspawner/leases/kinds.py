"""The kinds of events: what each says happened.

Promises that this is all of them: :func:`.events.append` refuses any other, and a test compares
them with the schemas that events leave the service with.
"""

from __future__ import annotations

KINDS = {
    "node.seen": "A node reported its cards for the first time.",
    "node.booted": "A node was restarted; it is offered again once its agent has looked.",
    "node.port-taken": "Another user's process listens where the hub or a server should.",
    "card.seen": "A card was reported for the first time.",
    "card.changed": "A card was reported with other values than before.",
    "card.back": "A lost card was reported again.",
    "card.lost": "A card is not listed by the driver any more, or does not work.",
    "card.drained": "Nothing new is given out on a card.",
    "card.resumed": "A drain was taken back.",
    "card.layout": "The desired layout of a card was set.",
    "card.target": "A card is to be cut for a lease of all of it, or back to its layout.",
    "card.step": "A step of a cut was done.",
    "card.step-failed": "A step of a cut, or a command around it, failed.",
    "card.cut": "A card has reached its target.",
    "card.reserved": "A card is being emptied for a grant.",
    "card.emptied": "A card that was reserved is empty and is kept for its grant.",
    "card.unreserved": "A card is not kept for its grant any more.",
    "card.xid": "The driver reported an XID error of a whole card.",
    "slice.seen": "A slice was reported for the first time, again, or changed.",
    "slice.missing": "A slice was not reported any more.",
    "slice.claimed": "A slice was taken out of use to be destroyed.",
    "slice.quarantined": "A slice is given to nobody.",
    "slice.unquarantined": "A quarantine was taken back.",
    "slice.xid": "The driver reported an XID error of a slice.",
    "lease.offered": "A lease was taken for a ticket and is held for its person for some minutes.",
    "lease.pending": "A lease was taken for a server that starts.",
    "lease.active": "The server of a lease runs.",
    "lease.releasing": "A lease began to end.",
    "lease.shortened": "A lease ends sooner than it would have: its grant was revoked.",
    "lease.ending": "The session of a lease is ended soon, for its time is over then.",
    "lease.extended": "The user of a session that is not in use extended it.",
    "lease.protected": "An admin keeps a session from being ended for being idle, until a time.",
    "lease.unknown": "It is not known for long whether a session is in use.",
    "lease.foreign": "A process of another system user is on the slice of a lease.",
    "lease.unproven": "A session claims for long to be in use, and nothing of it works.",
    "lease.waiting": "What a lease that ends still waits for.",
    "lease.stuck": "The slice of a lease is not proven empty long after its session ended.",
    "lease.released": "The slice of a lease was proven empty.",
    "lease.lost": "A lease ended because its card was lost.",
    "lease.xid": "The driver reported an XID error where a lease is.",
    "request.created": "A user asked for a tier that needs approval.",
    "request.approved": "A request was approved: it is a grant now.",
    "request.seconded": "A first approver agreed to a request; one more is needed.",
    "request.reminder": "A request waits for a decision for long.",
    "request.ending": "A grant ends soon.",
    "request.used": "A grant was used as often as it may be.",
    "request.denied": "A request was denied.",
    "request.cancelled": "A request or grant was withdrawn.",
    "request.expired": "The time of a request or grant is over.",
    "ticket.joined": "A user joined the waiting list.",
    "ticket.changed": "A user changed what their ticket is for.",
    "ticket.blocked": "What keeps a ticket from its turn, or that nothing does any more.",
    "ticket.offered": "It is the turn of a ticket: something is held for it.",
    "ticket.taken": "The person of a ticket has what they waited for.",
    "ticket.lapsed": "Nobody took what was offered.",
    "ticket.cancelled": "A ticket was given up or withdrawn.",
    "quota.lifted": "A user was granted more than their quota, until a time.",
    "quota.restored": "An exception from a quota was ended before its time.",
    "lease.renamed": "The server of a lease has another name.",
    "user.renamed": "A hub gave a user another name; leases and requests follow it.",
    "user.deleted": "A hub deleted a user; what they had asked for is cancelled.",
    "hub.claimed": "A hub began to lend from this database, or does so from another home.",
    "hub.renamed": "A hub has another name; its leases and requests follow it.",
    "clock.stepped": "The clock was set; the times of everything that is not over moved along.",
    "clock.paused": "The machine was suspended or off; ends of that time come after a warning.",
    "attempt.cancelled": "A start was called off before it had a lease.",
}
"""Kind to what it says. The word before the dot is its family."""

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
