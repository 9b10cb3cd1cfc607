"""Leases: the row, and the states it goes through."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from jupyterhub_migspawner.model.hubs import DEFAULT_HUB

PENDING = "pending"
ACTIVE = "active"
RELEASING = "releasing"
RELEASED = "released"
LOST = "lost"

HELD = (PENDING, ACTIVE)
"""States in which a server of the user is expected to run on the lease."""

LIVE = (PENDING, ACTIVE, RELEASING)
"""States in which nobody else may get the seat."""

OVERDUE = timedelta(minutes=1)
"""A slice that is not proven empty this long after the end of its session needs attention."""


@dataclass(frozen=True)
class LeaseRow:
    """A slice held by one server of one user, from before launch until it is proven empty.

    ``deadline`` is set while pending, ``ends_at`` where tier or grant limit the time,
    ``releasing_at`` when the lease began to end and ``ended_at`` when the slice was empty. Of a
    lease that was lost with its card, ``releasing_at`` is when its server was found to be over.
    ``waiting_for`` says why it is still releasing. ``share`` is the part of the card's compute.
    ``hub`` is the one whose user and server these are. ``ticket_id`` is set where no server has
    begun to start on it: it is held for the ticket of that number, until ``deadline``. ``started``
    is when the hub began this start of the server, by its own clock; None when it is not known.
    ``isolation`` is what keeps its server off other slices, by the names of
    :mod:`jupyterhub_migspawner.policy.isolation`, and empty until its launch.
    """

    id: int
    attempt: str
    user: str
    server: str
    tier: str
    state: str
    slice_id: int
    slice_uuid: str | None
    node: str
    card_uuid: str
    profile: str
    memory_mib: int
    since: datetime
    deadline: datetime | None
    ends_at: datetime | None
    ended_at: datetime | None
    end_reason: str
    waiting_for: str
    request_id: int | None
    releasing_at: datetime | None = None
    start: int = 0
    seat: int = 0
    whole: bool = False
    share: float = 0.0
    hub: str = DEFAULT_HUB
    ticket_id: int | None = None
    started: datetime | None = None
    isolation: str = ""

    @property
    def live(self) -> bool:
        """Whether the slice is still taken by this lease."""
        return self.state in LIVE

    @property
    def ending(self) -> bool:
        """Whether its session has ended, and its slice is not proven empty."""
        return self.state == RELEASING

    @property
    def stranded(self) -> bool:
        """Whether its card was lost, and its server may still run, without a GPU."""
        return self.state == LOST and self.releasing_at is None and self.ticket_id is None

    def overdue(self, now: datetime) -> bool:
        """Tell whether the lease's slice should be proven empty by now; something keeps it."""
        return self.ending and is_overdue(self.releasing_at or self.since, now)

    def known_end(self, now: datetime) -> datetime | None:
        """Return when the lease ends at the latest; None when nobody can say."""
        return None if self.overdue(now) else self.ends_at


def is_overdue(since: datetime, now: datetime) -> bool:
    """Tell whether a session that ended ``since`` should have been proven empty by now."""
    return now - since >= OVERDUE
