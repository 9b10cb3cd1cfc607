"""What the tests of several launchers need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launchers.systemd_machine import Machine, booted


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the machine shares."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def machine(shared: Path) -> Iterator[Machine]:
    """A machine that systemd has booted."""
    with booted(shared) as found:
        yield found
