"""Puts the mixin in front of every spawner that JupyterHub's own tests use.

Loaded with ``pytest -p migspawner_plugin`` before JupyterHub's test modules import the mocks. The
hub under test leases simulated slices from a real lease database; when the session ends, a real
agent proves every slice empty, and a lease that is still live then fails the run.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.handlers import BaseHandler
from jupyterhub.tests import mocking
from jupyterhub.user import User
from traitlets.config import Config

from jupyterhub_migspawner.agent import Agent
from jupyterhub_migspawner.broker.marks import STATE as LEASE_STATE
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.gpu.simulator import create_state
from jupyterhub_migspawner.hub.context import HubContext
from jupyterhub_migspawner.spawner import MigSpawnerMixin
from tests import schemas

MOCKS = [
    "MockSpawner",
    "SlowSpawner",
    "NeverSpawner",
    "BadSpawner",
    "CustomBadSpawner",
    "SlowBadSpawner",
    "FormSpawner",
    "CustomInputSpawner",
    "FalsyCallableFormSpawner",
    "InstrumentedSpawner",
]

# A run in the background of a shell inherits an ignored SIGINT, and would hand it on to every
# server: each stop would then wait for its whole interrupt timeout.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: Each test has a lease database of its own.
schemas.copy_for_good()

_directory = tempfile.TemporaryDirectory(prefix="migspawner-hub-suite-")
STATE = Path(_directory.name) / "cards.json"
create_state(str(STATE), cards=8, model="A100-SXM4-40GB", layouts=[["1g.5gb"] * 7] * 8)

SETTINGS = Config()
SETTINGS.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb"}]
SETTINGS.MigBroker.database_url = f"sqlite:///{_directory.name}/leases.sqlite"
SETTINGS.MigBroker.nvml = f"sim:{STATE}"
# No service beats the node's heart in these hubs: the inventory below is the only one.
SETTINGS.MigBroker.heartbeat_seconds = 24 * 3600


_hubs: list[HubContext] = []


def hub_with(settings: Config) -> HubContext:
    """What the spawners of a hub with these settings share."""
    for each in _hubs:
        if each.mig.config is settings:
            return each
    _hubs.append(HubContext(MigBroker(config=settings)))
    return _hubs[-1]


class LeaseTaking(MigSpawnerMixin):
    """The mixin with its own settings, whatever configuration a test gives its hub."""

    # Two tests compare the events of a starting server word for word with the hub's own.
    announce_slice = False

    mig_settings = SETTINGS

    @property
    def mig_hub(self) -> HubContext:
        return hub_with(self.mig_settings)

    def get_state(self) -> dict[str, Any]:
        """Without the lease that a server's state names.

        JupyterHub's tests compare the whole state with what their own spawner saves.
        """
        return {key: value for key, value in super().get_state().items() if key != LEASE_STATE}


for _name in MOCKS:
    if hasattr(mocking, _name):
        _mock = getattr(mocking, _name)
        setattr(mocking, _name, type(_name, (LeaseTaking, _mock), {"__module__": mocking.__name__}))

os.environ.pop("MIGSPAWNER_NVML", None)

#: Seconds; the limit of a wait only ends a test that has failed.
PATIENCE = 300.0

#: Seconds for which these hubs wait for a start or a stop before they answer that it goes on. Tests
#: that want such an answer set limits of their own; the others must pass on a slow machine.
HUB_PATIENCE = 60

_init_tornado_application = mocking.MockHub.init_tornado_application


def _init_patient_application(self: mocking.MockHub) -> None:
    _init_tornado_application(self)
    for name in ("slow_spawn_timeout", "slow_stop_timeout"):
        self.tornado_settings.setdefault(name, HUB_PATIENCE)


mocking.MockHub.init_tornado_application = _init_patient_application

#: The tasks in which the hub starts servers, and those that wait for it to.
_spawns: set[asyncio.Task[Any]] = set()


def _recorded(
    start: Callable[..., Coroutine[Any, Any, Any]],
) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(start)
    async def recorded(*args: Any, **options: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        _spawns.add(task)
        return await start(*args, **options)

    return recorded


for _owner, _name in ((User, "spawn"), (BaseHandler, "spawn_single_user")):
    setattr(_owner, _name, _recorded(getattr(_owner, _name)))


async def end_of_spawns() -> None:
    """Wait until no server is starting any more, however the starts end.

    A start ends by the timeouts of its spawner at the latest.
    """
    spawns = _spawns - {asyncio.current_task()}
    _spawns.clear()
    if not spawns:
        return
    ended, pending = await asyncio.wait(spawns, timeout=PATIENCE)
    assert not pending, f"these starts do not end: {pending}"
    for task in ended:
        # Else asyncio reports an error that nobody awaited, whenever it removes the task.
        if not task.cancelled():
            task.exception()


@pytest.fixture(autouse=True)
async def spawns_end_with_their_test(cleanup_after: None) -> AsyncIterator[None]:
    """No start goes on in the next test, whose log would have its errors.

    JupyterHub's own ``cleanup_after``, which comes after this, only stops the servers. The hub goes
    on waiting for one that it stopped while it started, and reports half a minute later that it
    never showed up.
    """
    yield
    await end_of_spawns()


def _agent() -> Agent:
    broker = MigBroker(config=SETTINGS)
    return Agent(broker.open_broker(), broker.open_nvml(), node=broker.node, inventory_seconds=3600)


_ended = threading.Event()


def _look(agent: Agent) -> None:
    while not _ended.wait(0.2):
        with suppress(DatabaseError):
            agent.tick()


_thread = threading.Thread(target=_look, args=(_agent(),), name="agent", daemon=True)


def pytest_sessionstart(session: pytest.Session) -> None:
    """No service runs in these hubs: their agent proves here what their servers give back."""
    assert _agent().take_inventory()
    _thread.start()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """No lease may be live once the servers are gone; leftovers get the agent's usual patience."""
    _ended.set()
    _thread.join()
    broker = MigBroker(config=SETTINGS).open_broker()
    agent = _agent()
    give_up = time.monotonic() + 180
    while broker.leases.find() and time.monotonic() < give_up:
        agent.tick()
        time.sleep(0.5)
    live = broker.leases.find()
    taken = len(broker.leases.find(include_past=True))
    print(f"\nleases taken: {taken}, live at the end: {len(live)}")
    for lease in live:
        print(f"  still live: {lease}")
    # JupyterHub's own tests are only proof if their servers did take leases; our tests in this
    # folder have lease databases of their own and look into those.
    ours = all(Path(__file__).parent in item.path.parents for item in session.items)
    if live or (not taken and not ours):
        session.exitstatus = 1
    _directory.cleanup()
