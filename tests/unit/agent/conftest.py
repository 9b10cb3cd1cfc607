"""A node to test the agent on: simulated cards, a real lease database, time that is set."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from jupyterhub_migspawner.agent import Agent
from jupyterhub_migspawner.agent.hooks import Hooks
from jupyterhub_migspawner.agent.layouts import Cutter
from jupyterhub_migspawner.agent.lock import CuttingLock
from jupyterhub_migspawner.agent.processes import PROC
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.arrange import Want, arrange
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.broker.lab import Lab

settings.register_profile("agent", deadline=None)
settings.load_profile("agent")

SMALL = ("1g.5gb",) * 7
BALANCED = ("1g.5gb", "1g.5gb", "2g.10gb", "3g.20gb")


class Node:
    """One machine: its state file, its lab, an agent that can be killed and started again."""

    def __init__(self, folder: Path, layouts: Sequence[Sequence[str]] | None, **options: Any):
        """A machine with cards cut into ``layouts``.

        ``real_processes`` are those of this machine, in the place of a folder to be filled. With an
        ``agent_url`` the agent has its own way to the lease database at ``url``, and no tiers.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / "machine.json"
        tiers, real = options.pop("tiers", None), options.pop("real_processes", False)
        url = options.pop("url", f"sqlite:///{folder / 'leases.sqlite'}")
        agent_url = options.pop("agent_url", None)
        options.setdefault("cards", len(layouts or [0]))
        simulator.create_state(self.path, layouts=layouts, seed="tests", **options)
        self.lab = Lab(url, tiers=tiers)
        self.broker = self.agent_broker = self.lab.broker
        if agent_url is not None:
            known = replace(self.broker.settings, tiers=())
            self.agent_broker = Broker(Store.open(agent_url), known, clock=self.lab.clock)
        self.seconds = 0.0
        self.hooks = Hooks()
        self.proc = PROC if real else folder / "proc"
        if not real:
            self.proc.mkdir()
        self.restart()

    def restart(self) -> None:
        """The agent's process is killed and another one started."""
        self.nvml = Nvml(f"sim:{self.path}")
        self.agent = Agent(
            self.agent_broker,
            self.nvml,
            node="n1",
            proc=self.proc,
            monotonic=lambda: self.seconds,
            lock=CuttingLock(self.folder, "n1"),
            hooks=self.hooks,
        )

    def cutter(self, **options: Any) -> Cutter:
        """Another process on the machine that cuts, as the command line does."""
        options.setdefault("lock", CuttingLock(self.folder, "n1", sleep=lambda _: None))
        return Cutter(
            self.broker, Nvml(f"sim:{self.path}"), node="n1", actor="command line", **options
        )

    def tick(self, rounds: int = 1) -> None:
        """Rounds of the agent, far enough apart that each reads the cards."""
        for _ in range(rounds):
            self.seconds += 10
            self.lab.clock.pass_time(seconds=1)
            self.agent.tick()

    def close(self) -> None:
        self.nvml.close()
        self.agent_broker.store.close()
        self.lab.close()

    def card(self, index: int = 0) -> CardRow:
        return self.broker.cards.find()[index]

    def actual(self, index: int = 0) -> list[Want]:
        """How the card is cut, as the driver says."""
        card = self.nvml.inventory().cards[index]
        assert not card.problem
        return [(each.profile, each.start) for each in card.instances if each.uuid]

    def places(self, *names: str, index: int = 0) -> tuple[Want, ...]:
        card = self.nvml.inventory().cards[index]
        have = [(each.profile, each.start) for each in card.instances]
        return arrange(card.profiles, names, have=have)

    def set_layout(self, *names: str, index: int = 0, mig: bool = True) -> tuple[Want, ...]:
        wants = self.places(*names, index=index) if mig else ()
        self.broker.layouts.set(self.card(index).uuid, wants, mig, "root")
        return wants

    def stop(self, lease: LeaseRow) -> None:
        self.broker.leases.cancel(lease.attempt, "stopped")

    def kinds(self) -> list[str]:
        return self.lab.kinds()

    def states(self) -> dict[tuple[int, str, int], str]:
        return self.lab.states()


NodeMaker = Callable[..., Node]


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[NodeMaker]:
    """Make nodes: a layout for each card (names of profiles), and options of ``create_state``."""
    made: list[Node] = []

    def make(*layouts: Sequence[str], **options: Any) -> Node:
        node = Node(tmp_path / f"node{len(made)}", list(layouts) or None, **options)
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()


@pytest.fixture
def sleeper() -> Iterator[Callable[[], int]]:
    """Start real processes that wait for the end of the test; gives their pids."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> int:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        )
        started.append(process)
        return process.pid

    yield start
    for each in started:
        each.kill()
        each.wait()
        if each.stdin:
            each.stdin.close()
