"""The look of a hub that ends: what its servers held is proven empty, or stays as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from traitlets.config import Config

from jupyterhub_migspawner.agent.daemon import look_once
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person


@pytest.fixture
def options(tmp_path: Path) -> MigBroker:
    cards = str(tmp_path / "cards.json")
    simulator.create_state(cards, cards=1, model="A100-SXM4-40GB", layouts=[["1g.5gb"] * 2])
    config = Config()
    config.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb"}]
    config.MigBroker.database_url = f"sqlite:///{tmp_path}/leases.sqlite"
    config.MigBroker.nvml = f"sim:{cards}"
    config.MigBroker.node = "n1"
    found = MigBroker(config=config)
    found.open_broker().nodes.record_inventory("n1", found.open_nvml().inventory())
    return found


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"]) as process:
        yield process
        process.kill()


def released(broker: Broker, user: str) -> LeaseRow:
    lease = broker.leases.acquire(Person(user), "", "small", f"attempt of {user}")
    assert lease is not None
    broker.leases.activate(lease.attempt)
    broker.leases.release_server(user, "", "the server stopped", actor="hub")
    return broker.leases.get(lease.id)


def test_what_is_empty_is_given_back_and_what_is_not_waits(
    options: MigBroker, tmp_path: Path, program: subprocess.Popen[bytes]
) -> None:
    broker = options.open_broker()
    empty, used = released(broker, "ada"), released(broker, "grace")
    assert (empty.state, used.state) == ("releasing", "releasing")
    cards = str(tmp_path / "cards.json")
    simulator.add_process(cards, str(used.slice_uuid), program.pid, 100)
    pauses: list[float] = []
    look_once(options, sleep=pauses.append)
    assert broker.leases.get(empty.id).state == "released"
    left = broker.leases.get(used.id)
    assert left.state == "releasing"
    assert str(program.pid) in left.waiting_for
    os.kill(program.pid, 0)
    assert program.poll() is None, "a look ends nothing"


def test_a_server_that_is_still_going_is_looked_at_again(
    options: MigBroker, tmp_path: Path, program: subprocess.Popen[bytes]
) -> None:
    broker = options.open_broker()
    lease = released(broker, "ada")
    cards = str(tmp_path / "cards.json")
    simulator.add_process(cards, str(lease.slice_uuid), program.pid, 100)

    def sleep(seconds: float) -> None:
        if seconds:
            program.kill()
            program.wait()

    look_once(options, sleep=sleep)
    assert broker.leases.get(lease.id).state == "released"
