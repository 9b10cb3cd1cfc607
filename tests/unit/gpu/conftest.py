"""Simulated machines for the tests of the gpu part, each in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml

# How long an example takes is no behaviour, and a busy machine must not fail a test.
settings.register_profile("gpu", deadline=None)
settings.load_profile("gpu")


class Machine:
    """A simulated machine, its state file and an NVML over it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nvml = Nvml(f"sim:{path}")

    @property
    def cards(self) -> tuple[str, ...]:
        return simulator.card_uuids(self.path)

    @property
    def slices(self) -> tuple[str, ...]:
        return simulator.slice_uuids(self.path)

    def layout(self, index: int = 0) -> list[tuple[str, int]]:
        card = self.nvml.inventory().cards[index]
        assert not card.problem
        return [(each.profile, each.start) for each in card.instances]


MachineMaker = Callable[..., Machine]


@pytest.fixture
def make_machine(tmp_path: Path) -> Iterator[MachineMaker]:
    """Make simulated machines: arguments as of ``create_state``, with one card by default."""
    made: list[Machine] = []

    def make(**options: object) -> Machine:
        path = tmp_path / f"machine{len(made)}.json"
        options.setdefault("cards", 1)
        options.setdefault("seed", "tests")
        simulator.create_state(path, **options)  # type: ignore[arg-type]
        made.append(Machine(path))
        return made[-1]

    yield make
    for each in made:
        each.nvml.close()


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start real processes that wait for the end of the test (or are ended in it)."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        )
        started.append(process)
        return process

    yield start
    for each in started:
        each.kill()
        each.wait()
        if each.stdin:
            each.stdin.close()
