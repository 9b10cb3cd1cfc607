"""Tickets of the waiting list, and their states."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

WAITING = "waiting"
OFFERED = "offered"
TAKEN = "taken"
LAPSED = "lapsed"
CANCELLED = "cancelled"

OPEN = (WAITING, OFFERED)
"""States in which a ticket is still good for something."""


@dataclass(frozen=True)
class TicketRow:
    """A ticket of the queue, for one server of one user of one hub.

    ``tiers`` are those that will do, best first, ``tier`` among them; ``start`` has the server
    started when there is an offer, which is held until ``offer_until``. ``blocked`` says what keeps
    it from its turn, or is empty; ``overtaken`` counts the later tickets that were served before.
    """

    id: int
    hub: str
    user: str
    server: str
    tier: str
    tiers: tuple[str, ...]
    start: bool
    state: str
    created_at: datetime
    blocked: str
    overtaken: int
    offer_until: datetime | None
    ended_at: datetime | None
    end_reason: str
