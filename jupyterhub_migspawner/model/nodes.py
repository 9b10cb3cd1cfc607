"""Nodes, as their agents report them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class AgentProcess:
    """The process that reports for a node.

    ``machine`` names the installation of its system; ``pid`` and ``started`` (in ticks since boot)
    the process, in the pid ``namespace`` of the boot ``boot_id``.
    """

    host: str
    machine: str = ""
    boot_id: str = ""
    namespace: str = ""
    pid: int = 0
    started: int = 0


@dataclass(frozen=True)
class NodeRow:
    """A machine with cards, when its agent last reported, and from which boot of its kernel.

    ``agent`` is the process that reported last, at ``agent_at``; without a time it has ended.
    ``clock_ahead`` is how many seconds the machine's clock was ahead of the database's.
    """

    name: str
    heartbeat_at: datetime
    driver_version: str
    boot_id: str | None = None
    agent: AgentProcess | None = None
    agent_at: datetime | None = None
    clock_ahead: float | None = None
