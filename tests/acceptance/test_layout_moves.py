"""A DGX of eight A100s goes through every configuration of a file while people work on it.

The cards are simulated, everything else is real: the command line, the node's agent in a process
of its own, the lease database, and processes that use slices of the cards.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.main import main
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.arrange import Want
from jupyterhub_migspawner.gpu.layout_reader import load_layouts
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person

EXAMPLE = Path(__file__).parents[1] / "data" / "mig-parted-example.yaml"

PROFILES = ("1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb")

AGENT = """
import sys, time
from jupyterhub_migspawner.agent import make_agent
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
agent = make_agent(MigBroker(config=load_config_file(sys.argv[1])))
while True:
    agent.tick()
    time.sleep(0.2)
"""

NOTEBOOK = (
    "import sys; print('works', flush=True); sys.stdin.readline(); print('saved', flush=True)"
)


class Notebook:
    """A process that uses a slice until it is told to end."""

    def __init__(self, machine: Path, lease: LeaseRow) -> None:
        self.machine = machine
        self.lease = lease
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", NOTEBOOK],
            env={"MIGSPAWNER_ATTEMPT": lease.attempt},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.read() == "works\n"
        simulator.add_process(machine, str(lease.slice_uuid), self.process.pid, 100)

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> str:
        """Let it end by itself; what it says at last."""
        words, _ = self.process.communicate("\n", timeout=600)
        return words


class Dgx:
    """The machine: its files, its agent, its broker."""

    def __init__(self, folder: Path) -> None:
        self.machine = folder / "machine.json"
        simulator.create_state(self.machine, cards=8, model="A100-SXM4-40GB", seed="dgx")
        tiers = [{"name": name.replace("+", "-"), "profile": name} for name in PROFILES]
        self.config = folder / "jupyterhub_config.py"
        self.config.write_text(
            "c = get_config()  # noqa\n"
            "c.MigBroker.nvml = 'sim:machine.json'\n"
            "c.MigBroker.node = 'dgx'\n"
            f"c.MigBroker.tiers = {tiers!r}\n"
        )
        self.broker: Broker = MigBroker(config=load_config_file(self.config)).open_broker()
        self.nvml = Nvml(f"sim:{self.machine}")
        self.agent = subprocess.Popen([sys.executable, "-c", AGENT, str(self.config)])
        self.wait_for(lambda: self.broker.nodes.live())

    def wait_for(self, ready: object) -> None:
        deadline = time.monotonic() + 600
        while not ready():  # type: ignore[operator]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def close(self) -> None:
        self.agent.kill()
        self.agent.wait()
        self.nvml.close()

    def layout(self, *words: str) -> int:
        return main(["layout", words[0], "-f", str(self.config), str(EXAMPLE), *words[1:]])

    def common(self, name: str) -> dict[str, list[Want]]:
        """Slices that are there and that the named layout has as well, by card."""
        layout = load_layouts(EXAMPLE).layout(name)
        cards = self.nvml.inventory().cards
        # Nobody may be in the way of the switch of a card but who does it.
        self.nvml.close()
        wanted = layout.for_cards(cards)
        found = {}
        for card in cards:
            want = wanted[card.index]
            if want.mig_enabled:
                places = set(layout.places(card, want))
                here = [(each.profile, each.start) for each in card.instances]
                found[card.uuid] = [each for each in here if each in places]
        return found

    def people_on(self, common: dict[str, list[Want]], most: int) -> list[Notebook]:
        """Notebooks on up to ``most`` of those slices, spread over the cards."""
        wanted = {(card, *want) for card, wants in common.items() for want in wants[:1]}
        wanted = set(sorted(wanted)[:most])
        notebooks, others = [], []
        number = 0
        for profile in sorted({each[1] for each in wanted}):
            left = {each for each in wanted if each[1] == profile}
            while left:
                number += 1
                person = Person(f"user{number}")
                tier = profile.replace("+", "-")
                lease = self.broker.leases.acquire(person, "", tier, f"{time.monotonic_ns()}")
                assert lease is not None
                place = (lease.card_uuid, lease.profile, lease.start)
                if place in left:
                    left.remove(place)
                    self.broker.leases.activate(lease.attempt)
                    notebooks.append(Notebook(self.machine, lease))
                else:
                    others.append(lease)
        for lease in others:
            self.broker.leases.cancel(lease.attempt, "not this one")
            self.broker.leases.confirm_empty(lease.id)
        return notebooks


@pytest.fixture
def dgx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dgx]:
    monkeypatch.delenv("MIGSPAWNER_NVML", raising=False)
    made = Dgx(tmp_path)
    yield made
    made.close()


def every_move(names: list[str]) -> list[str]:
    """A way through all names in which each follows each other one (all ordered pairs)."""
    left = set(itertools.permutations(names, 2))
    # Hierholzer's way: every name is left as often as it is reached, so the walk closes.
    stack, walk = [names[0]], []
    while stack:
        onward = sorted(pair for pair in left if pair[0] == stack[-1])
        if onward:
            left.remove(onward[0])
            stack.append(onward[0][1])
        else:
            walk.append(stack.pop())
    return walk[::-1]


def test_every_move_between_configurations_leaves_people_alone(dgx: Dgx) -> None:
    names = list(load_layouts(EXAMPLE).layouts)
    walk = every_move(names)
    assert len(walk) == len(names) * (len(names) - 1) + 1
    assert dgx.layout("apply", walk[0]) == 0
    undisturbed = 0
    for before, after in itertools.pairwise(walk):
        common = dgx.common(after)
        there = sum(map(len, common.values()))
        if there:
            shelf = {
                (s.row.card_uuid, s.row.profile, s.row.start) for s in dgx.broker.slices.find()
            }
            assert all((card, *want) in shelf for card, wants in common.items() for want in wants)
        notebooks = dgx.people_on(common, most=8)
        uuids = {each.lease.id: each.lease.slice_uuid for each in notebooks}
        assert dgx.layout("apply", after) == 0, (before, after)
        assert dgx.layout("assert", after) == 0, (before, after)
        live = {lease.id: lease for lease in dgx.broker.leases.find(states=("active",))}
        assert {number: lease.slice_uuid for number, lease in live.items()} == uuids
        for notebook in notebooks:
            pids = [each.pid for each in dgx.nvml.processes(str(notebook.lease.slice_uuid))]
            assert notebook.process.pid in pids
            dgx.broker.leases.release(notebook.lease.id, "done", "test")
            assert notebook.end() == "saved\n"
            undisturbed += 1
        dgx.nvml.close()
        dgx.wait_for(lambda: not dgx.broker.leases.find())
    retries = [e for e in dgx.broker.events.find(limit=10_000) if e.kind == "card.step-failed"]
    print(f"{len(walk) - 1} moves, {undisturbed} notebooks undisturbed, {len(retries)} retries")
    assert undisturbed > 50
