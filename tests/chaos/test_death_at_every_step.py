"""A process dies at every statement, every commit and every launch of a lease's life, in turn.

Whatever it left behind, those who come after it bring it to an end that is right: a server that
the hub knows runs on with its lease, everything else is given back, and nobody gets what is used.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.db import migrations
from jupyterhub_migspawner.db.store import Store
from tests.broker.postgres import Cluster
from tests.chaos.recovery import Machine, end_process
from tests.chaos.reports import Process
from tests.unit.service.fake_hub import FakeHub, server

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Database:
    """``empty`` is called while nobody has it open."""

    url: str
    empty: Callable[[], None]


@pytest.fixture(scope="module")
def lives(postgres: Cluster) -> Iterator[Callable[[dict[str, Any]], int]]:
    """Lives a life in a process of its own; how that process ended.

    Started after the cluster, whose password it finds by an environment variable.
    """
    nursery = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.lives"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert nursery.stdin is not None
    assert nursery.stdout is not None

    def live(life: dict[str, Any]) -> int:
        nursery.stdin.write(json.dumps(life) + "\n")  # type: ignore[union-attr]
        nursery.stdin.flush()  # type: ignore[union-attr]
        return int(nursery.stdout.readline())  # type: ignore[union-attr]

    yield live
    nursery.stdin.close()
    nursery.wait()
    nursery.stdout.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A lease database that can be emptied."""
    if kind == "sqlite":
        folder = tmp_path / "database"
        folder.mkdir()
        url = f"sqlite:///{folder}/leases.sqlite"
        migrations.upgrade(url)
        template = shutil.copy(folder / "leases.sqlite", tmp_path / "template")

        def empty() -> None:
            for left in folder.iterdir():
                left.unlink()
            shutil.copy(template, folder / "leases.sqlite")

        yield Database(url, empty)
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    url = cluster.new_database()
    migrations.upgrade(url)
    yield Database(url, lambda: cluster.empty(url))
    cluster.drop(url)


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    fake = FakeHub()
    fake.listen()
    yield fake
    fake.hang_up()


def hub_knows(folder: Path) -> Process | None:
    """The server that the hub would find in its database after the death."""
    journal = folder / "journal"
    return Process(*json.loads(journal.read_text())) if journal.exists() else None


async def recover(machine: Machine, *, impatient: bool) -> None:
    """Everything starts again, and time goes by; raises where the end is not right."""
    known = hub_knows(machine.folder)
    machine.boot()
    # Others do not wait until all is in order.
    rival = machine.acquire_or_not("linus", "rival")
    if machine.living("ada"):
        assert rival is None
    assert rival is None or rival.slice_id != machine.neighbours.slice_id
    machine.broker.leases.cancel("rival", "gone again")
    if known is not None and known.lives:
        (lease,) = machine.broker.leases.find(user="ada")
        machine.hub.users["ada"] = {"": server(started=lease.since - timedelta(seconds=1))}
        await machine.rounds(3)
        await machine.rounds(4, seconds=300)
        assert known.lives
        assert machine.broker.leases.get(lease.id).state == "active"
        assert [each.id for each in machine.broker.leases.find(user="ada")] == [lease.id]
        machine.hub.users["ada"] = {}
        end_process(known.pid)
    elif impatient:
        again = machine.acquire_or_not("ada", "again")
        assert again is None or not machine.living("ada")
        machine.broker.leases.cancel("again", "gone again")
    assert machine.hub.stopped == []
    await machine.empty()
    machine.in_order()


@pytest.mark.parametrize("life", ["session", "whole_card", "idle"])
async def test_every_death_is_mended(
    life: str,
    kind: str,
    database: Database,
    hub: FakeHub,
    lives: Callable[[dict[str, Any]], int],
    tmp_path: Path,
) -> None:
    passed = tmp_path / "passed"
    # The first one lives to its end and says what there is to die at.
    points: list[tuple[str, int] | None] = [None]
    deaths: list[str] = []
    for number, last in enumerate(points):
        # Each death is followed by a new start of the same server on one of the databases, and on
        # the other one by nothing but time.
        impatient = number % 2 == (kind == "sqlite")
        passed.unlink(missing_ok=True)
        database.empty()
        # A store knows how far its database had come, and refuses one that was emptied under it.
        store = Store.open(database.url)
        machine = Machine(tmp_path, store, hub)
        told = {"name": life, "folder": str(tmp_path), "url": database.url, "last": last}
        try:
            status = lives(told)
            assert status in (0, -signal.SIGKILL)
            on_the_way = [tuple(json.loads(line)) for line in passed.read_text().splitlines()]
            if last is None:
                assert status == 0
                points += on_the_way
            elif status:
                assert on_the_way[-1] == last
                deaths.append(last[0])
            try:
                await recover(machine, impatient=impatient)
            except BaseException as error:
                raise AssertionError(f"death {number}, {last}: {error!r}") from error
        finally:
            known = hub_knows(tmp_path)
            if known is not None and known.lives:
                end_process(known.pid)
            (tmp_path / "journal").unlink(missing_ok=True)
            machine.close()
    # Every part of a lease's life was hit.
    end = ("warn_idle", "extend", "end_over") if life == "idle" else ("release_server",)
    for call in ("acquire", "activate", *end, "confirm_empty"):
        for point in ("at its beginning", "before the commit", "after the commit"):
            assert f"{call}: {point}" in deaths
    for statement in ("INSERT INTO leases", "INSERT INTO events"):
        assert any(death.startswith(f"acquire: before {statement}") for death in deaths)
    assert len(deaths) > 30
