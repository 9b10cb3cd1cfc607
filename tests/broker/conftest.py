"""Every test that asks for ``url`` or ``lab`` runs on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_migspawner.db import migrations
from tests import schemas, statements
from tests.broker.event_watch import Watched
from tests.broker.lab import Lab
from tests.broker.postgres import SKIP, Cluster, programs

#: What the migrations themselves do is tested here, so that every one of them runs.
MIGRATED = ("test_schema", "test_upgrades", "test_store", "test_sealed_tokens", "test_backups")


@pytest.fixture(scope="module", autouse=True)
def schema_from_a_copy(request: pytest.FixtureRequest) -> Iterator[None]:
    """Empty SQLite databases are made without a run of every migration, but where those matter."""
    if request.module.__name__.rpartition(".")[2] in MIGRATED:
        yield
        return
    with schemas.created_from_a_copy():
        yield


@pytest.fixture(scope="session", autouse=True)
def statements_shared() -> Iterator[None]:
    with statements.shared():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    found = programs()
    if found is None:
        message = "PostgreSQL is not installed: apt-get install postgresql"
        if os.environ.get(SKIP) and not os.environ.get("CI"):
            pytest.skip(f"{message} ({SKIP} is set)")
        pytest.fail(f"{message}, or set {SKIP}=1 to leave these tests out")
    cluster = Cluster(found)
    try:
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture(scope="session")
def postgres_shared(postgres: Cluster) -> str:
    """A database with the schema; emptying it is faster than making one for each test."""
    url = postgres.new_database()
    migrations.upgrade(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without a schema."""
    if kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'leases.sqlite'}"
        return
    cluster: Cluster = request.getfixturevalue("postgres")
    url = cluster.new_database()
    yield url
    cluster.drop(url)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A lease database, ready and empty."""
    if kind == "sqlite":
        found = f"sqlite:///{tmp_path / 'leases.sqlite'}"
        migrations.upgrade(found)
        yield found
        return
    found = request.getfixturevalue("postgres_shared")
    yield found
    request.getfixturevalue("postgres").empty(found)


@pytest.fixture
def make_lab(url: str) -> Iterator[Callable[..., Lab]]:
    """Labs on the test's database; each call is another process's view of it."""
    labs: list[Lab] = []

    def make(**settings: Any) -> Lab:
        lab = Lab(url, clock=labs[0].clock if labs else None, **settings)
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.close()


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """A lab with the usual tiers and two cut cards."""
    lab = make_lab()
    lab.report()
    return lab


@pytest.fixture
def emptied(kind: str, url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes the database empty again for each example."""
    if kind == "sqlite":
        path = url.removeprefix("sqlite:///")
        numbers = iter(range(10**6))
        yield lambda: f"sqlite:///{path}-{next(numbers)}"
        return
    cluster = request.getfixturevalue("postgres")

    def empty() -> str:
        cluster.empty(url)
        return url

    yield empty


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each transaction is compared with the events it wrote."""
    monkeypatch.setattr("tests.broker.lab.Store", Watched)
