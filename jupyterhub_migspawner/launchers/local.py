"""Servers as processes of this machine.

``MigLocalSpawner`` starts each server as the system user of that name and needs a hub that runs as
root. ``MigSimpleSpawner`` starts all of them as the hub's own user, without any wall between
people: for the demo, for tests, for a laptop.

Whatever a server started is found again, after any crash, by the mark in its processes'
environment (see :mod:`..agent.vacancy`); nothing here needs a database to say whether it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner

from jupyterhub_migspawner.agent.vacancy import start_time
from jupyterhub_migspawner.spawner import MigSpawnerMixin


class SameProcess:
    """Keeps the start time of a server's process, so that its pid is never another's.

    The base spawner keeps the pid alone. After a reboot that pid may be a stranger's, and a hub
    that runs as root would take it for the server, and stop it.
    """

    pid: int

    # In clock ticks since boot, as proc(5) gives it; 0 while unknown.
    _pid_started = 0

    async def start(self) -> Any:
        """Start the server and remember which process it is."""
        url = await super().start()  # type: ignore[misc]
        self._pid_started = start_time(Path(f"/proc/{self.pid}")) or 0
        return url

    def get_state(self) -> dict[str, Any]:
        """The base spawner's state, with the start time beside the pid."""
        state: dict[str, Any] = super().get_state()  # type: ignore[misc]
        if "pid" in state and self._pid_started:
            state["pid_started"] = self._pid_started
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore it; a pid that is another process by now is none of ours."""
        super().load_state(state)  # type: ignore[misc]
        self._pid_started = state.get("pid_started", 0)
        if self._pid_started and self._pid_started != start_time(Path(f"/proc/{state['pid']}")):
            self.pid = 0

    def clear_state(self) -> None:
        """Forget the process."""
        super().clear_state()  # type: ignore[misc]
        self._pid_started = 0


class MigLocalSpawner(MigSpawnerMixin, SameProcess, LocalProcessSpawner):  # type: ignore[misc]
    """Servers as system users on this machine, a slice each."""


class MigSimpleSpawner(
    MigSpawnerMixin,
    SameProcess,
    SimpleLocalProcessSpawner,  # type: ignore[misc]
):
    """Servers as the hub's own user on this machine, a slice each: for trying things out."""
