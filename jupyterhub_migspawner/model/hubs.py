"""The hubs that lend from one database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

DEFAULT_HUB = "hub"
"""What a hub is called that shares its lease database with no other."""


@dataclass(frozen=True)
class HubRow:
    """A hub that lends from this database: its name, where it lives, when its service last spoke.

    ``home`` is a machine and a configuration file, which stay what they are when a hub restarts.
    """

    name: str
    home: str
    seen_at: datetime | None
