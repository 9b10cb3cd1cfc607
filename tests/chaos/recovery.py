"""What starts after a death: an agent, the service's comparison with the hub, time that is set.

A machine of two cards, on one of which another user's server runs all the while; nothing that
happens to others may touch it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path

import sqlalchemy as sa

from jupyterhub_migspawner.agent import Agent
from jupyterhub_migspawner.agent.lock import CuttingLock
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.keys import KeyFile
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.service.clients.hub import HubApi
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.workers.reconciliation import Reconciler
from tests.chaos.lives import NODE, TIERS
from tests.chaos.spawner import SERVER
from tests.processes import marked_processes
from tests.unit.service.fake_hub import SERVICE_TOKEN, FakeHub, server

SLICES = 2
"""Slices of tier ``small``; the neighbour has one of them."""


class Machine:
    """The machine and its lease database after a start; ``now`` moves when told to."""

    def __init__(self, folder: Path, store: Store, hub: FakeHub) -> None:
        """``store`` is an empty lease database."""
        self.folder = folder
        self.store = store
        self.hub = hub
        self.hub.users = {"ada": {}, "grace": {}, "linus": {}}
        self.now = datetime.now(timezone.utc)
        self._seconds = 0.0
        self.cards = folder / "cards.json"
        simulator.create_state(
            self.cards, cards=2, layouts=[["1g.5gb"], ["1g.5gb"]], seed=str(folder), overwrite=True
        )
        self.neighbour: subprocess.Popen[bytes] | None = None
        self.settings = Settings(tiers=parse_tiers(TIERS))
        self._database = ThreadPoolExecutor(1)
        self.nvml: Nvml | None = None
        self.boot()
        self._move_in()

    def boot(self) -> None:
        """New parts of everything, with nothing remembered."""
        if self.nvml is not None:
            self.nvml.close()
        self.broker = Broker(self.store, self.settings, clock=lambda: self.now)
        self.nvml = Nvml(f"sim:{self.cards}")
        self.agent = Agent(
            self.broker,
            self.nvml,
            node=NODE,
            monotonic=lambda: self._seconds,
            lock=CuttingLock(self.folder, NODE),
        )
        parts = Parts(
            broker=self.broker,
            settings=self.settings,
            hub=HubApi(self.hub.url, SERVICE_TOKEN),
            database=self._database,
            key_file=KeyFile(self.folder / "migspawner_key"),
            home="here",
            prefix="/",
            hub_prefix="/hub/",
        )
        self.reconciler = Reconciler(parts, clock=lambda: self.now)
        self.agent.tick()

    def _move_in(self) -> None:
        lease = self.acquire("grace", "the-neighbour")
        self.neighbour = subprocess.Popen(
            SERVER, env={"PATH": os.environ["PATH"], "MIGSPAWNER_ATTEMPT": lease.attempt}
        )
        simulator.add_process(self.cards, str(lease.slice_uuid), self.neighbour.pid, 100)
        self.broker.leases.activate(lease.attempt)
        self.hub.users["grace"] = {"": server(started=lease.since - timedelta(seconds=1))}
        self.neighbours = self.broker.leases.get(lease.id)

    def acquire(self, user: str, attempt: str) -> LeaseRow:
        lease = self.broker.leases.acquire(Person(user), "", "small", attempt)
        assert lease is not None
        return lease

    def acquire_or_not(self, user: str, attempt: str) -> LeaseRow | None:
        try:
            return self.acquire(user, attempt)
        except Refusal as refusal:
            if refusal.reason != "capacity":
                raise
            return None

    async def rounds(self, number: int, seconds: float = 10) -> None:
        """Rounds of agent and service, as far apart as that."""
        for _ in range(number):
            self._seconds += seconds
            self.now += timedelta(seconds=seconds)
            self.agent.tick()
            await self.reconciler.round()

    async def empty(self) -> None:
        """Rounds until nobody but the neighbour has a lease. What ends is a real process, too."""
        for _ in range(1000):
            await self.rounds(1, 30)
            if self.broker.leases.find() == (self.neighbours,):
                break
            await asyncio.sleep(0.005)

    def living(self, user: str) -> list[str]:
        """Attempts of this person of which a process lives."""
        attempts = {
            lease.attempt for lease in self.broker.leases.find(include_past=True, user=user)
        }
        return sorted(attempts & marked_processes().keys())

    def in_order(self) -> None:
        """Only the neighbour has a slice; every other one can be lent; the books agree."""
        assert self.neighbour is not None
        assert self.neighbour.poll() is None
        assert self.broker.leases.find() == (self.neighbours,)
        states = sorted(each.state for each in self.broker.slices.find())
        assert states == ["free"] * (SLICES - 1) + ["leased"], self.broker.slices.find()
        assert self.living("ada") == []
        self.books_agree()
        lease = self.acquire("ada", "once more")
        assert lease.slice_id != self.neighbours.slice_id
        assert self.acquire_or_not("linus", "one too many") is None
        self.books_agree()

    def books_agree(self) -> None:
        """What a slice says of its leases is what the leases say of it."""
        with self.store.transaction(write=False) as tx:
            wrong = tx.rows(
                sa.text(
                    "SELECT * FROM slices WHERE held <> (SELECT count(*) FROM leases WHERE "
                    "slice_id = slices.id AND state IN ('pending', 'active', 'releasing'))"
                )
            )
        assert wrong == []

    def close(self) -> None:
        if self.neighbour is not None:
            self.neighbour.kill()
            self.neighbour.wait()
        if self.nvml is not None:
            self.nvml.close()
        self.store.close()
        self._database.shutdown()


def end_process(pid: int) -> None:
    """End a process of this test, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
