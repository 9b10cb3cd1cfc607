"""A server that is a process of the hub's machine, known by its pid and its start time."""

from __future__ import annotations

from typing import Any

from jupyterhub_migspawner.agent.processes import PROC, Process, Unreadable, is_alive, start_time
from jupyterhub_migspawner.spawner.protocols import HubSpawner


class SameProcess(HubSpawner):
    """Keeps the start time of a server's process, so that its pid is never another's.

    The base spawner keeps the pid alone. After a reboot that pid may be another user's, and a hub
    that runs as root would take it for the server, and stop it.
    """

    pid: int
    proc: Any

    # In clock ticks since boot, as proc(5) gives it; 0 while unknown.
    _pid_started = 0

    async def start(self) -> Any:
        """Start the server and remember which process it is."""
        url = await super().start()
        self._note_process()
        return url

    def _note_process(self) -> None:
        """Remember when the process of the present pid started."""
        try:
            self._pid_started = start_time(PROC / str(self.pid)) or 0
        except Unreadable:
            self._pid_started = 0

    async def poll(self) -> int | None:
        """Return the base spawner's answer, as long as the pid is still the server's."""
        if self.proc is None and self.pid and self._pid_started and self._is_gone():
            self.pid = 0
        return await super().poll()

    def _process(self) -> Process | None:
        return Process(self.pid, self._pid_started) if self.pid and self._pid_started else None

    def get_state(self) -> dict[str, Any]:
        """Return the base spawner's state, with the start time beside the pid."""
        state = super().get_state()
        if "pid" in state and self._pid_started:
            state["pid_started"] = self._pid_started
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state; a pid that is another process by now is none of ours."""
        super().load_state(state)
        self._pid_started = state.get("pid_started", 0)
        if self._pid_started and self._is_gone():
            self.pid = 0

    def _is_gone(self) -> bool:
        """Return whether the server's process has ended. What cannot be read may run."""
        try:
            return not is_alive(Process(self.pid, self._pid_started), PROC)
        except Unreadable:
            return False

    def clear_state(self) -> None:
        """Forget the process."""
        super().clear_state()
        self._pid_started = 0
