"""A hub in the machine, with servers in units."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tests.acceptance.hubs import Hub
from tests.launchers.systemd_machine import PYTHON, Inside, Machine

CONFIG = """
c.JupyterHub.spawner_class = "mig-systemd"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.allow_named_servers = True
c.MigBroker.node = "machine"
c.MigBroker.tiers = [
    {{"name": "cpu", "profile": "none"}},
    {{"name": "small", "profile": "1g.5gb", "cpus": 0.5, "memory_gib": 0.25, "default": True}},
    {{"name": "large", "profile": "3g.20gb"}},
]
c.Spawner.cmd = ["{python}", "/usr/local/lib/opener.py"]
c.Spawner.mem_limit = "1G"
c.Spawner.poll_interval = 1
c.MigSystemdSpawner.username_template = "ada"
c.MigSystemdSpawner.isolation = "systemd"
"""


class MachineHub(Hub):
    """A hub that runs in a machine, as root."""

    process: Any

    def __init__(
        self, machine: Machine, directory: Path, layouts: list[list[str]], extra: str = ""
    ) -> None:
        super().__init__(directory, layouts=layouts, extra=CONFIG.format(python=PYTHON) + extra)
        self.machine = machine

    def launch(self) -> Inside:  # type: ignore[override]
        """Start the hub's process in the machine."""
        self._launched = datetime.now(timezone.utc)
        bins = [str(Path(sys.prefix) / "bin"), str(Path(sys.prefix) / "proxy/node_modules/.bin")]
        environ = {**os.environ, "PATH": ":".join([*bins, os.environ["PATH"]])}
        with (self.directory / "hub.log").open("ab") as log:
            self.process = self.machine.start(
                *(sys.executable, "-m", "jupyterhub", "-f", str(self.config)),
                cwd=self.directory,
                env={k: v for k, v in environ.items() if k != "MIGSPAWNER_NVML"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.process  # type: ignore[no-any-return]

    def forget_states(self) -> None:
        """Lose what the hub remembers of its servers, as when it is killed while they start."""
        with sqlite3.connect(self.directory / "hub.sqlite") as database:
            database.execute("UPDATE spawners SET state = NULL")
        database.close()

    @contextmanager
    def serving(self, user: str, server: str = "", tier: str = "small") -> Iterator[Any]:
        """A server, and what it says of itself, until the end of the block."""
        status, answer = self.api("POST", f"users/{user}/servers/{server}", {"tier": tier})
        assert status == 201, answer
        try:
            yield self.ask(user, server)
        finally:
            self.end(user, server)

    def ask(self, user: str, server: str = "") -> Any:
        """What a server says of itself, and of the devices that it can open."""
        path = "/".join(filter(None, (user, server)))
        status, answer = self.call("GET", f"{self.url}user/{path}/report")
        assert status == 200, answer
        return answer

    def end(self, user: str, server: str = "") -> None:
        """Stop a server, and wait until its slice is proven empty."""
        self.api("DELETE", f"users/{user}/servers/{server}")
        self.until(lambda: all((row.user, row.server) != (user, server) for row in self.rows()))
