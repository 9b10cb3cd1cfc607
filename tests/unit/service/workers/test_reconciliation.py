"""Hub, lease, processes and NVML in every combination, as the table in the documentation says.

Service and agent take turns over a real database and simulated cards; the hub answers over HTTP as
each row wants it, and the processes are real where NVML lists them.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from jupyterhub_migspawner.agent import Agent
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.service.clients.hub import HubError
from jupyterhub_migspawner.service.workers.reconciliation import Reconciler
from tests.unit.service.conftest import World
from tests.unit.service.fake_hub import server

PAGE = Path(__file__).parents[4] / "docs" / "explanation" / "reconciliation.md"

HUB = ("runs", "starts", "none", "silent")
LEASE = ("none", "pending", "overdue", "active", "releasing", "lost")
PROCESSES = ("none", "marked", "stray")

Cell = tuple[str, str, str]


def read_table() -> dict[Cell, tuple[str, str, str]]:
    """Every combination that the page speaks of, and what it says; once each."""
    found: dict[Cell, tuple[str, str, str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [each.strip() for each in line.strip("|").split("|")]
        if not line.startswith("| ") or cells[0] == "Hub":
            continue
        hub, lease, processes, *then = cells
        for cell in itertools.product(
            HUB if hub == "any" else (hub,),
            (lease,),
            PROCESSES if processes == "any" else (processes,),
        ):
            assert cell not in found, f"the page speaks twice of {cell}"
            found[cell] = (then[0], then[1], then[2])
    return found


TABLE = read_table()


def test_the_page_speaks_of_every_combination() -> None:
    every = set(itertools.product(HUB, LEASE, PROCESSES))
    assert set(TABLE) == every


@pytest.fixture
def stray() -> Iterator[subprocess.Popen[bytes]]:
    code = "import sys; sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE)
    yield process
    process.communicate()


class Scene:
    """One session in the state that a row begins with."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.cards = folder / "cards.json"
        self.nvml = Nvml(f"sim:{self.cards}")
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.seconds = 0.0
        self.agent = Agent(
            world.broker,
            self.nvml,
            node="node1",
            proc=self.proc,
            monotonic=lambda: self.seconds,
        )
        self.reconciler = Reconciler(world.parts, clock=lambda: world.now)
        self.agent.tick()
        self.slice_id = 0
        self.slice_uuid = ""

    def lease(self, state: str) -> LeaseRow | None:
        world = self.world
        lease = world.acquire("ada")
        self.slice_id, self.slice_uuid = lease.slice_id, str(lease.slice_uuid)
        if state in ("active", "releasing", "lost"):
            world.broker.leases.activate(lease.attempt)
        if state == "none":
            world.broker.leases.cancel(lease.attempt, "none")
            world.broker.leases.confirm_empty(lease.id)
            return None
        if state == "releasing":
            world.broker.leases.release(lease.id, "taken back", "root")
        if state == "lost":
            simulator.lose_card(self.cards, lease.card_uuid)
            self.seconds += 10
            self.agent.tick()
        if state == "overdue":
            world.pass_by(seconds=400)
        return lease

    def mark(self, attempt: str) -> None:
        """A process that carries the mark, in the folder that stands for /proc."""
        entry = self.proc / "4242"
        entry.mkdir()
        mark = f"MIGSPAWNER_ATTEMPT={attempt}\0MIGSPAWNER_SLICE_UUID={self.slice_uuid}\0"
        (entry / "environ").write_bytes(mark.encode())
        (entry / "stat").write_text("4242 (python) S " + " ".join(["0"] * 40))

    def hub(self, word: str) -> None:
        world = self.world
        started = world.now - timedelta(hours=1)
        world.hub.users["ada"] = {}
        if word in ("runs", "starts", "silent"):
            model = server(started=started, ready=word != "starts")
            world.hub.users["ada"] = {"": model}
        if word == "silent":
            world.hub.fail_with = 503

    async def play(self) -> None:
        for _ in range(4):
            self.seconds += 10
            try:
                await self.reconciler.round()
            except HubError:
                assert self.world.hub.fail_with
            self.agent.tick()

    def slice_state(self) -> str:
        return next(s.state for s in self.world.broker.slices.find() if s.row.id == self.slice_id)


@pytest.mark.parametrize("cell", sorted(TABLE), ids="-".join)
async def test_it_comes_as_the_page_says(
    world: World, tmp_path: Path, stray: subprocess.Popen[bytes], cell: Cell
) -> None:
    hub, state, processes = cell
    lease_then, slice_then, server_then = TABLE[cell]
    scene = Scene(world, tmp_path)
    lease = scene.lease(state)
    if processes == "marked":
        # Without a lease it is the mark of one that this database does not know.
        scene.mark("unknown" if lease is None else lease.attempt)
    if processes == "stray" and state != "lost":
        simulator.add_process(scene.cards, scene.slice_uuid, stray.pid)
    scene.hub(hub)

    await scene.play()

    found = world.broker.leases.get(lease.id).state if lease is not None else "none"
    stopped = bool(world.hub.stopped)
    scene.nvml.close()
    assert (found, scene.slice_state()) == (lease_then, slice_then)
    assert stopped == (server_then == "stopped")
    assert stray.poll() is None, "nobody ends what nobody knows"
