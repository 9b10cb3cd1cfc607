"""Processes of servers with a lease, as tests look for them on a machine that does other work."""

from __future__ import annotations

import time

from jupyterhub_migspawner.agent import vacancy
from jupyterhub_migspawner.agent.processes import Unreadable
from jupyterhub_migspawner.agent.vacancy import Process

#: Seconds; it only ends a test that has failed.
PATIENCE = 60.0


def marked_processes() -> dict[str, list[Process]]:
    """Every process of this machine that carries a mark, by attempt.

    A process of another user that is just becoming another program cannot be read for a moment,
    and the agent takes no such look for a whole one. Nor does a test: it looks again.
    """
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return vacancy.marked_processes()
        except Unreadable:
            assert time.monotonic() < give_up, "some process of this machine stays unreadable"
            time.sleep(0.05)
