"""The hub of a day of chaos: its parts can be killed one by one, and its servers report.

Times that are long for a day of a minute are short here; nothing else is changed.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.leases.rows import LeaseRow
from jupyterhub_migspawner.leases.store import Store
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers
from tests.acceptance.hubs import Hub

TIERS = [
    {"name": "small", "profile": "1g.5gb", "default": True},
    {"name": "large", "profile": "3g.20gb"},
    {"name": "card", "profile": "whole"},
]

#: Fewer slices than people, so that each is given on at once.
LAYOUTS = [["1g.5gb", "1g.5gb"], ["3g.20gb", "1g.5gb"]]

CONFIG = """
import jupyterhub.services.service as services
import jupyterhub_migspawner.agent.vacancy as vacancy
from jupyterhub_migspawner.launchers.local import MigSimpleSpawner
from traitlets import Integer

class Watched(services._ServiceSpawner):
    "Whether a service lives is looked at each second."
    poll_interval = Integer(1)

class Hurried(MigSimpleSpawner):
    "A start that nobody finishes is over after less than a minute."
    def _mig_pending_seconds(self):
        return 45

services._ServiceSpawner = Watched
vacancy.TERMINATE_AFTER, vacancy.KILL_AFTER = 5.0, 8.0
c.JupyterHub.spawner_class = Hurried
c.Spawner.start_timeout = c.Spawner.http_timeout = 20
c.Spawner.poll_interval = 2
c.MigBroker.tiers = {tiers!r}
c.MigBroker.database_url = {database!r}
c.MigBroker.tick_seconds = 0.2
c.MigBroker.reconcile_seconds = 1.0
c.MigBroker.offer_minutes = 1
c.Spawner.cmd = [sys.executable, {server!r}]
c.Spawner.environment = {{"CHAOS_REPORTS": {reports!r}, "CHAOS_MACHINE": {machine!r}}}
c.JupyterHub.load_roles += [
    {{"name": "looks-closely", "services": ["test"], "scopes": ["admin:server_state"]}}
]
"""


class ChaosHub(Hub):
    """A hub on two cards, whose service can be killed and whose leases are read beside it."""

    def __init__(self, directory: Path, database: str) -> None:
        self.database = database
        self.reports = directory / "reports"
        self.reports.mkdir()
        super().__init__(
            directory,
            layouts=LAYOUTS,
            extra=CONFIG.format(
                tiers=TIERS,
                database=database,
                server=str(Path(__file__).parent / "reporting_server.py"),
                reports=str(self.reports),
                machine=str(directory / "cards.json"),
            ),
        )
        self._store: Store | None = None

    def broker(self) -> Broker:
        """A look into the lease database, made by the hub on its first start."""
        if self._store is None:
            self._store = Store.open(self.database)
        return Broker(self._store, Settings(tiers=parse_tiers(TIERS)))

    def rows(self, *, include_past: bool = False) -> tuple[LeaseRow, ...]:
        return self.broker().leases(include_past=include_past)

    def service_pids(self) -> list[int]:
        """The processes of this hub's service; of a killed hub's, too, until it notices."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"jupyterhub_migspawner.service" in line and str(self.config).encode() in line:
                    found.append(int(entry.name))
        return found

    def kill_service(self) -> None:
        """SIGKILL to the service, and so to the agent in it."""
        for pid in self.service_pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself just now

    def close(self) -> None:
        """Close the look into the database."""
        if self._store is not None:
            self._store.close()
