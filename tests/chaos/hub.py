"""The hub of a day of chaos: its parts can be killed one by one, and its servers report.

Times that are long for a day of a minute are short here; nothing else is changed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers
from tests.acceptance.hubs import Hub

TIERS = [
    # Longer than any day, and shorter than what the clock is set by.
    {"name": "small", "profile": "1g.5gb", "default": True, "max_hours": 12},
    {"name": "large", "profile": "3g.20gb", "max_hours": 12},
    {"name": "card", "profile": "whole"},
]

#: Fewer slices than people, so that each is given on at once.
LAYOUTS = [["1g.5gb", "1g.5gb"], ["3g.20gb", "1g.5gb"]]

CONFIG = """
import jupyterhub_migspawner.agent.vacancy as vacancy
from jupyterhub_migspawner.spawner.launchers.local import MigSimpleSpawner

class Hurried(MigSimpleSpawner):
    "A start that nobody finishes is over after less than a minute."
    def _mig_pending_seconds(self):
        return 45

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

#: The machine's wall clock, for hub and service, is off by as many seconds as a file says.
CLOCK = """
import datetime
import jupyterhub.utils, jupyterhub_migspawner.db.clock

class SetClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        with open({file!r}) as offset:
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=float(offset.read()))

jupyterhub.utils.datetime = jupyterhub_migspawner.db.clock.datetime = SetClock
"""


class ChaosHub(Hub):
    """A hub on two cards, whose service can be killed and whose leases are read beside it."""

    def __init__(self, directory: Path, database: str) -> None:
        self.database = database
        self.reports = directory / "reports"
        self.reports.mkdir()
        self._clock = directory / "clock"
        self._clock.write_text("0")
        super().__init__(
            directory,
            layouts=LAYOUTS,
            extra=CONFIG.format(
                tiers=TIERS,
                database=database,
                server=str(Path(__file__).parent / "reporting_server.py"),
                reports=str(self.reports),
                machine=str(directory / "cards.json"),
            )
            + CLOCK.format(file=str(self._clock)),
        )
        self._store: Store | None = None
        self._closed = False
        self._guard = threading.Lock()

    def broker(self) -> Broker:
        """A look into the lease database, made by the hub on its first start."""
        with self._guard:
            if self._closed:
                raise DatabaseError("An admin is just replacing it.")
            if self._store is None:
                self._store = Store.open(self.database)
            return Broker(self._store, Settings(tiers=parse_tiers(TIERS)))

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody of the day looks into the database for the length of this block."""
        self._closed = True
        try:
            self.forget()
            yield
        finally:
            self._closed = False

    def forget(self) -> None:
        """The database is, or will be, another one: look at what is there from now on."""
        with self._guard:
            if self._store is not None:
                self._store.close()
            self._store = None

    def rows(self, *, include_past: bool = False) -> tuple[LeaseRow, ...]:
        return self.broker().leases.find(include_past=include_past)

    def service_port(self) -> int:
        """The TCP port by which the hub knows its service; 0 before it has one."""
        lines = [x for x in self.log().splitlines() if "The GPU service listens on" in x]
        return int(lines[-1].rpartition(" ")[2].rstrip(".")) if lines else 0

    def set_clock(self, days: float) -> None:
        """Set the clock of hub and service, compared with the right time."""
        changed = self._clock.with_suffix(".new")
        changed.write_text(str(days * 86_400))
        changed.replace(self._clock)

    def close(self) -> None:
        """Close the look into the database."""
        self.forget()
