"""Sessions: whether they are in use, and what holds their end off."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class ReadingRow:
    """What a source last said of the session of a lease; see the table's columns."""

    lease_id: int
    source: str
    seen_at: datetime | None
    active_at: datetime | None
    fingerprint: str
    said: str
    problem: str
    active_since: datetime | None = None


@dataclass(frozen=True)
class StayRow:
    """What holds the end of a lease's session off, and the notices about it.

    ``url`` is its server's own address, ``sealed`` that server's token, which opens with the key of
    the hub that started it and for that address only (:mod:`jupyterhub_migspawner.keys`).
    """

    lease_id: int
    url: str = ""
    sealed: str = field(default="", repr=False)
    extended_until: datetime | None = None
    protected_until: datetime | None = None
    protected_by: str = ""
    protected_why: str = ""
    warned_at: datetime | None = None
    alerted_at: datetime | None = None
    told_until: datetime | None = None
    silent_since: datetime | None = None
    silent_at: datetime | None = None
    alerted_for: str | None = None
