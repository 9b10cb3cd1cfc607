"""What every unit test relies on."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.config import MigBroker
from tests import schemas, statements


@pytest.fixture(scope="session", autouse=True)
def schema_from_a_copy() -> Iterator[None]:
    """A test's own SQLite databases are made without a run of every migration."""
    with schemas.created_from_a_copy():
        yield


@pytest.fixture(scope="session", autouse=True)
def statements_shared() -> Iterator[None]:
    with statements.shared():
        yield


@pytest.fixture(autouse=True)
def databases_closed() -> Iterator[None]:
    """A test's lease databases are closed after it: a process has 1,024 descriptors by default."""
    open_broker, opened = MigBroker.open_broker, list[Broker]()

    def note(mig: MigBroker) -> Broker:
        broker = open_broker(mig)
        opened.append(broker)
        return broker

    # Not by the fixture monkeypatch: that would be undone after the fixtures of the test itself.
    with patch.object(MigBroker, "open_broker", note):
        yield
    for broker in opened:
        broker.store.close()
