"""Requests, grants and drafts of requests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from jupyterhub_migspawner.model.hubs import DEFAULT_HUB


@dataclass(frozen=True)
class RequestRow:
    """An application for a tier that needs approval; an approved one is a grant.

    ``starts_at`` is the requested start (None: at once), ``valid_from`` and ``valid_until`` when
    it is a grant. ``groups`` are its user's when they asked. ``first_by`` is the first of two
    approvers; ``uses`` counts the servers that have run on it.
    """

    id: int
    user: str
    tier: str
    hours: float
    reason: str
    state: str
    created_at: datetime
    decided_by: str
    decided_at: datetime | None
    decision_reason: str
    valid_until: datetime | None
    hub: str = DEFAULT_HUB
    groups: tuple[str, ...] = ()
    starts_at: datetime | None = None
    valid_from: datetime | None = None
    first_by: str = ""
    uses: int = 0

    def holds_at(self, now: datetime) -> bool:
        """Tell whether the request is a grant at that time."""
        if self.state != "approved" or self.valid_until is None or self.valid_until <= now:
            return False
        return self.valid_from is None or self.valid_from <= now


@dataclass(frozen=True)
class DraftRow:
    """A draft: as it was typed, checked only when it is filed."""

    id: int
    hub: str
    user: str
    tier: str
    hours: str
    starts_at: str
    reason: str
    changed_at: datetime
