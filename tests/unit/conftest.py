"""What every unit test relies on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jupyterhub_migspawner.config import traits
from tests import schemas


@pytest.fixture(scope="session", autouse=True)
def schema_from_a_copy() -> Iterator[None]:
    """A test's own SQLite databases are made without a run of every migration."""
    with schemas.created_from_a_copy():
        yield


@pytest.fixture(autouse=True)
def databases_closed() -> Iterator[None]:
    """A test's lease databases are closed after it: a process has 1,024 descriptors by default."""
    before = set(traits._stores)
    yield
    for url in set(traits._stores) - before:
        traits._stores.pop(url).close()
