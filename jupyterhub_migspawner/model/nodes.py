"""Nodes, as their agents report them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class NodeRow:
    """A machine with cards, when its agent last reported, and from which boot of its kernel."""

    name: str
    heartbeat_at: datetime
    driver_version: str
    boot_id: str | None = None
