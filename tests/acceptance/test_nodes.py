"""Several nodes, each with a real agent in its own pid namespace, and one PostgreSQL database.

An agent sees its own processes and cards only. A server is a plain process with the mark of its
start in its environment. Where machines have to differ, a node has its own /etc/machine-id.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db import roles
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers
from tests.broker.conftest import postgres  # noqa: F401
from tests.broker.postgres import Cluster, database_with_roles

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes pid namespaces")

SILENT = 5
"""Seconds after which a node counts as silent here: the fewest that can be set."""

PATIENCE = 60.0

TIERS = [
    {"name": "small", "profile": "1g.5gb", "idle_minutes": 60},
    {"name": "large", "profile": "3g.20gb"},
]

# What the node's first process does: it collects orphans, so that nobody stays a zombie, and starts
# what it is told to, as a launcher on that machine would.
INIT = """
import json, os, signal, subprocess, sys
signal.signal(signal.SIGCHLD, lambda *_: None)
children = {}
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "start":
        child = subprocess.Popen(order["command"], env={**os.environ, **order["env"]},
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=open(order["log"], "ab"))
        children[child.pid] = child
        print(child.pid, flush=True)
    elif order["do"] == "signal":
        children[order["pid"]].send_signal(order["number"])
        print("sent", flush=True)
    elif order["do"] == "wait":
        print(children.pop(order["pid"]).wait(), flush=True)
    elif order["do"] == "poll":
        print(children[order["pid"]].poll() is None, flush=True)
    elif order["do"] == "processes":
        print(subprocess.run(order["command"], capture_output=True, text=True).returncode,
              flush=True)
"""


class Machine:
    """A machine with simulated cards: its first process, an agent, servers."""

    def __init__(
        self, folder: Path, url: str, node: str, *, machine: str = "", seed: str = ""
    ) -> None:
        folder.mkdir()
        self.folder, self.node = folder, node
        self.cards = folder / "cards.json"
        self.log = folder / "log"
        simulator.create_state(
            self.cards, cards=1, layouts=[["1g.5gb", "1g.5gb", "3g.20gb"]], seed=seed or node
        )
        self.config = folder / "jupyterhub_config.py"
        self.config.write_text(
            f"c.MigBroker.database_url = {url!r}\n"
            f"c.MigBroker.node = {node!r}\n"
            f"c.MigBroker.heartbeat_seconds = {SILENT}\n"
            "c.MigBroker.tick_seconds = 0.1\n"
        )
        identity = folder / "machine-id"
        identity.write_text(f"{machine or node}\n")
        shell = f'mount --bind {identity} /etc/machine-id && exec {sys.executable} -c "$0"'
        self._init = subprocess.Popen(
            [
                *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount"),
                *("sh", "-c", shell, INIT),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MIGSPAWNER_NVML": f"sim:{self.cards}"},
        )
        self.agent = 0

    def _do(self, what: str, **order: object) -> str:
        assert self._init.stdin is not None
        assert self._init.stdout is not None
        self._init.stdin.write(json.dumps({"do": what, **order}) + "\n")
        self._init.stdin.flush()
        answer = self._init.stdout.readline().strip()
        assert answer, "the machine has ended"
        return answer

    def start(self, *command: str, **env: str) -> int:
        """Start a process of the machine; return its pid there."""
        return int(self._do("start", command=command, env=env, log=str(self.log)))

    def kill(self, pid: int, number: int = signal.SIGKILL) -> int:
        """End a process of the machine; return its status."""
        self._do("signal", pid=pid, number=number)
        return int(self._do("wait", pid=pid))

    def runs(self, pid: int) -> bool:
        return self._do("poll", pid=pid) == "True"

    def start_agent(self, *options: str) -> None:
        command = (sys.executable, "-m", "jupyterhub_migspawner.cli", "agent")
        self.agent = self.start(*command, "-f", str(self.config), *options)

    def stop_agent(self, number: int = signal.SIGTERM) -> int:
        status = self.kill(self.agent, number)
        self.agent = 0
        return status

    def serve(self, lease: LeaseRow) -> int:
        """A server of the lease: a process with its mark, on its slice."""
        pid = self.start("sleep", "600", MIGSPAWNER_ATTEMPT=lease.attempt)
        self.on_slice(lease, pid)
        return pid

    def on_slice(self, lease: LeaseRow, pid: int) -> None:
        # Inside, where the pid means what the machine's own driver says.
        code = (
            "import sys; from jupyterhub_migspawner.gpu import simulator; "
            "simulator.add_process(sys.argv[1], sys.argv[2], int(sys.argv[3]))"
        )
        command = [sys.executable, "-c", code, str(self.cards), str(lease.slice_uuid), str(pid)]
        assert self._do("processes", command=command) == "0"

    def crash(self) -> None:
        """Everything on the machine ends at once."""
        self._init.kill()
        self._init.wait()

    def close(self) -> None:
        self.crash()
        for stream in (self._init.stdin, self._init.stdout):
            if stream is not None:
                stream.close()

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@pytest.fixture
def url(postgres: Cluster) -> Iterator[str]:  # noqa: F811
    with database_with_roles(postgres) as made:
        yield made


@pytest.fixture
def hub(url: str) -> Iterator[Broker]:
    """What a hub has: all rights, and the tiers."""
    settings = Settings(tiers=parse_tiers(TIERS), heartbeat_seconds=SILENT)
    broker = Broker(Store.open(url), settings)
    yield broker
    broker.store.close()


MakeMachine = Callable[..., Machine]


@pytest.fixture
def machine(url: str, tmp_path: Path) -> Iterator[MakeMachine]:
    made: list[Machine] = []

    def make(node: str, *, at: str = url, folder: str = "", **options: str) -> Machine:
        made.append(Machine(tmp_path / (folder or f"{node}-{len(made)}"), at, node, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def until(so: Callable[[], object], *machines: Machine) -> None:
    """Wait until something is so; what the machines log says why it is not."""
    deadline = time.monotonic() + PATIENCE
    while not so():
        logs = "\n".join(f"{each.node}: {each.log_text()}" for each in machines)
        assert time.monotonic() < deadline, logs
        time.sleep(0.05)


def live(hub: Broker) -> set[str]:
    return {each.name for each in hub.nodes.live()}


def running(hub: Broker, machine: Machine, user: str, tier: str = "small") -> tuple[LeaseRow, int]:
    """A session on the machine."""
    lease = hub.leases.acquire(Person(user), "", tier, f"attempt of {user}", machine.node)
    assert lease is not None
    pid = machine.serve(lease)
    hub.leases.activate(lease.attempt)
    return lease, pid


def state(hub: Broker, lease: LeaseRow) -> str:
    return hub.leases.get(lease.id).state


def free_on(hub: Broker, node: str) -> int:
    return sum(each.state == "free" for each in hub.slices.find(node=node))


def test_each_agent_proves_what_ends_on_its_own_node(hub: Broker, machine: MakeMachine) -> None:
    one, two = machine("n1"), machine("n2")
    one.start_agent()
    two.start_agent()
    until(lambda: live(hub) == {"n1", "n2"} and len(hub.slices.find()) == 6, one, two)
    ada, hers = running(hub, one, "ada")
    grace, his = running(hub, two, "grace")
    assert (ada.node, grace.node) == ("n1", "n2")

    def seen() -> bool:
        known = {**hub.processes.of_node("n1"), **hub.processes.of_node("n2")}
        return {ada.id, grace.id} <= {each for each, row in known.items() if row.known}

    until(seen, one, two)
    hub.leases.release_server("ada", "", "stopped", "ada")
    until(lambda: hub.leases.get(ada.id).waiting_for, one)
    assert state(hub, ada) == "releasing"
    one.kill(hers)
    until(lambda: state(hub, ada) == "released", one)
    assert state(hub, grace) == "active"
    assert two.runs(his)
    assert one.stop_agent() == 0
    assert two.stop_agent() == 0


def test_use_is_measured_on_every_node(hub: Broker, machine: MakeMachine) -> None:
    one, two = machine("n1"), machine("n2")
    for each in (one, two):
        each.config.write_text(f"{each.config.read_text()}c.MigBroker.examine_seconds = 0.5\n")
        each.start_agent()
    until(lambda: live(hub) == {"n1", "n2"} and free_on(hub, "n2") == 3, one, two)
    leases = [running(hub, one, "ada")[0], running(hub, two, "grace")[0]]

    def measured() -> bool:
        found = {
            each.lease.id
            for each in hub.sessions.standings()
            for row in each.readings
            if row.source == "processes" and row.seen_at is not None and not row.problem
        }
        return found == {each.id for each in leases}

    until(measured, one, two)


def test_a_silent_node_gets_nothing_new_and_loses_nothing(
    hub: Broker, machine: MakeMachine
) -> None:
    one = machine("n1")
    one.start_agent()
    until(lambda: free_on(hub, "n1") == 3, one)
    lease, server = running(hub, one, "ada")
    one.stop_agent(signal.SIGKILL)
    until(lambda: not live(hub), one)
    assert free_on(hub, "n1") == 0
    assert state(hub, lease) == "active"
    hub.leases.release_server("ada", "", "stopped", "ada")
    assert state(hub, lease) == "releasing", "nobody can prove it empty"
    one.kill(server)
    assert state(hub, lease) == "releasing"
    # On the same boot it is known at once that the one before has ended.
    one.start_agent()
    until(lambda: state(hub, lease) == "released" and free_on(hub, "n1") == 3, one)


def test_a_node_cut_off_from_the_database_goes_on_when_it_is_back(
    hub: Broker,
    machine: MakeMachine,
    url: str,
    postgres: Cluster,  # noqa: F811
) -> None:
    one = machine("n1")
    one.start_agent()
    until(lambda: free_on(hub, "n1") == 3, one)
    lease, server = running(hub, one, "ada")
    postgres.stop(at_once=True)
    until(lambda: "is skipped for now" in one.log_text(), one)
    assert one.runs(server)
    assert one.runs(one.agent)
    postgres.start()
    hub.leases.release_server("ada", "", "stopped", "ada")
    one.kill(server)
    until(lambda: state(hub, lease) == "released", one)


def test_two_agents_of_one_name_are_noticed_and_named(hub: Broker, machine: MakeMachine) -> None:
    first = machine("n1", machine="first")
    first.start_agent()
    until(lambda: free_on(hub, "n1") == 3, first)
    lease, server = running(hub, first, "ada")
    second = machine("n1", machine="second", seed="other cards")
    second.start_agent()
    until(lambda: not second.runs(second.agent), second)
    assert "Another agent reports for node n1: process" in second.log_text()
    assert "its own c.MigBroker.node" in second.log_text()
    assert {each.uuid for each in hub.cards.find()} == set(simulator.card_uuids(first.cards))
    assert first.runs(first.agent)
    # Silent is not gone: its sessions may still run, on cards that the other one does not have.
    first.stop_agent(signal.SIGKILL)
    until(lambda: not live(hub), first)
    second.start_agent()
    until(lambda: not second.runs(second.agent), second)
    assert "this one has none of the cards" in second.log_text()
    assert state(hub, lease) == "active"
    # An admin knows that the first one is gone for good.
    second.start_agent("--replace")
    until(lambda: state(hub, lease) == "lost" and free_on(hub, "n1") == 3, second)
    assert first.runs(server)
    # If it comes back all the same, it does not start, and changes nothing.
    first.start_agent()
    until(lambda: not first.runs(first.agent), first)
    assert free_on(hub, "n1") == 3


def test_an_agent_that_was_silent_too_long_ends_and_writes_nothing(
    hub: Broker, machine: MakeMachine
) -> None:
    """It was stopped for a while, as a virtual machine may be; the same cards are elsewhere now."""
    first = machine("n1", machine="first", seed="same")
    first.start_agent()
    until(lambda: free_on(hub, "n1") == 3, first)
    first._do("signal", pid=first.agent, number=signal.SIGSTOP)
    until(lambda: not live(hub), first)
    second = machine("n1", machine="second", seed="same")
    second.start_agent()
    until(lambda: live(hub) and free_on(hub, "n1") == 3, second)
    lease, server = running(hub, second, "ada")
    hub.leases.release_server("ada", "", "stopped", "ada")
    until(lambda: hub.leases.get(lease.id).waiting_for, second)
    # On the first machine nothing runs: it would prove the slice empty.
    first._do("signal", pid=first.agent, number=signal.SIGCONT)
    until(lambda: not first.runs(first.agent), first)
    assert "reports for node n1 now" in first.log_text()
    assert state(hub, lease) == "releasing"
    second.kill(server)
    until(lambda: state(hub, lease) == "released", second)


def test_a_machine_that_crashes_comes_back_with_its_leases_ended_on_proof(
    hub: Broker, machine: MakeMachine
) -> None:
    first = machine("n1", machine="same", seed="same")
    first.start_agent()
    until(lambda: free_on(hub, "n1") == 3, first)
    lease, _ = running(hub, first, "ada")
    first.crash()
    until(lambda: not live(hub), first)
    assert state(hub, lease) == "active"
    again = machine("n1", machine="same", seed="same")
    again.start_agent()
    until(lambda: live(hub), again)
    # Its hub finds no server and releases; the agent sees that nothing runs.
    hub.leases.release_server("ada", "", "gone", "hub")
    until(lambda: state(hub, lease) == "released", again)


def test_a_node_with_a_new_name_takes_its_cards_along(hub: Broker, machine: MakeMachine) -> None:
    one = machine("n1", machine="same", seed="same")
    one.start_agent()
    until(lambda: free_on(hub, "n1") == 3, one)
    lease, server = running(hub, one, "ada")
    assert one.stop_agent() == 0
    one.config.write_text(one.config.read_text().replace("'n1'", "'n9'"))
    one.start_agent()
    until(lambda: hub.leases.get(lease.id).node == "n9", one)
    hub.leases.release_server("ada", "", "stopped", "ada")
    one.kill(server)
    until(lambda: state(hub, lease) == "released" and free_on(hub, "n9") == 3, one)


def test_nodes_with_roles_of_their_own_do_the_same(
    hub: Broker, machine: MakeMachine, url: str
) -> None:
    machines = []
    for node in ("n1", "n2"):
        role = f"{url.rpartition('/')[2]}_{node}"
        roles.make(url, node, role, "secret")
        with open(os.environ["PGPASSFILE"], "a") as file:
            file.write(f"*:{urlsplit(url).port}:*:{role}:secret\n")
        machines.append(machine(node, at=url.replace("postgres@", f"{role}@")))
        machines[-1].start_agent()
    one, two = machines
    until(lambda: free_on(hub, "n1") == free_on(hub, "n2") == 3, one, two)
    ada, hers = running(hub, one, "ada")
    grace, his = running(hub, two, "grace", "large")
    hub.leases.release_server("ada", "", "stopped", "ada")
    one.kill(hers)
    until(lambda: state(hub, ada) == "released", one)
    assert state(hub, grace) == "active"
    assert two.runs(his)
    for each in machines:
        assert each.stop_agent() == 0
        assert "refuses" not in each.log_text()
    # A clean end is known: the next one begins at once.
    one.start_agent()
    until(lambda: "n1" in live(hub), one)


def test_clocks_that_differ_are_shown(hub: Broker, machine: MakeMachine, url: str) -> None:
    one = machine("n1")
    one.start_agent()

    def ahead() -> float | None:
        return next((each.clock_ahead for each in hub.nodes.find()), None)

    until(lambda: ahead() is not None, one)
    assert abs(ahead() or 0.0) < 2, "node and server share a clock here"
    one.stop_agent()
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("UPDATE nodes SET clock_ahead = 40")
    doctor = [sys.executable, "-m", "jupyterhub_migspawner.cli", "doctor", "--json"]
    one.config.write_text(
        f"{one.config.read_text()}c.MigBroker.tiers = {TIERS!r}\nc.MigBroker.service = False\n"
    )
    said = subprocess.run(
        [*doctor, "-f", str(one.config)],
        capture_output=True,
        text=True,
        env={**os.environ, "MIGSPAWNER_NVML": f"sim:{one.cards}"},
    ).stdout
    (finding,) = [each for each in json.loads(said) if each["check"] == "clock"]
    assert "The clock of node n1 is 40 seconds ahead of the database" in finding["message"]
