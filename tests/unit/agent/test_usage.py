"""Whether processes work, by their CPU time: on the slice, beside it, in a terminal, orphaned."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_migspawner.agent.usage import TICKS, Usage
from jupyterhub_migspawner.agent.vacancy import family_processes
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.sessions import ReadingRow
from jupyterhub_migspawner.policy.reclaim import PROCESSES
from tests.unit.agent.conftest import Node, NodeMaker

TIERS = [
    {"name": "small", "profile": "1g.5gb", "idle_minutes": 60},
    {"name": "free", "profile": "1g.5gb"},
]


class Session:
    """A server with processes of its own, as ``/proc`` shows them, and time that passes."""

    def __init__(self, node: Node, tier: str = "small") -> None:
        self.node = node
        lease = node.broker.leases.activate(node.lab.start("ada", tier).attempt)
        assert lease is not None
        self.lease: LeaseRow = lease
        self.usage = Usage(
            node.broker, node.nvml, node="n1", proc=node.proc, monotonic=lambda: node.seconds
        )
        self.ticks: dict[int, float] = {}
        self.parents: dict[int, int] = {}

    def process(self, pid: int, *, parent: int, started: int | None = None) -> None:
        folder = self.node.proc / str(pid)
        folder.mkdir()
        (folder / "environ").write_bytes(f"A=1\0MIGSPAWNER_ATTEMPT={self.lease.attempt}\0".encode())
        self.ticks[pid], self.parents[pid] = 0.0, parent
        self.started = {**getattr(self, "started", {}), pid: pid if started is None else started}
        self.use(pid, 0)

    def use(self, pid: int, seconds: float) -> None:
        """The process uses so much CPU."""
        self.ticks[pid] += seconds * TICKS
        fields = ["0"] * 50
        fields[0], fields[1] = "S", str(self.parents[pid])
        fields[11], fields[12] = str(int(self.ticks[pid])), "0"
        fields[19] = str(self.started[pid])
        text = f"{pid} (a (strange) name) {' '.join(fields)}"
        (self.node.proc / str(pid) / "stat").write_text(text)

    def end(self, pid: int) -> None:
        folder = self.node.proc / str(pid)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    def look(self, seconds: float = 10) -> ReadingRow | None:
        """A look some seconds later; what is then written down."""
        self.node.seconds += seconds
        self.node.lab.clock.pass_time(seconds=seconds)
        self.usage.look()
        (standing,) = self.node.broker.sessions.standings()
        return next((row for row in standing.readings if row.source == PROCESSES), None)

    def is_active(self, seconds: float = 10) -> bool:
        """Whether the look of some seconds later finds activity."""
        found = self.look(seconds)
        assert found is not None
        assert found.seen_at == self.node.lab.clock()
        return found.active_at == found.seen_at


@pytest.fixture
def session(make_node: NodeMaker) -> Session:
    node = make_node(["1g.5gb"], tiers=TIERS)
    node.tick()
    made = Session(node)
    made.process(100, parent=1)
    made.process(200, parent=100)
    assert made.look() is None  # nothing is known after one look
    made.look()
    return made


@pytest.fixture
def on_slice(session: Session) -> Iterator[Callable[[], int]]:
    """Put a process of the session on the slice; returns its pid."""
    made: list[subprocess.Popen[bytes]] = []

    def put() -> int:
        process = subprocess.Popen(["sleep", "600"])
        made.append(process)
        session.process(process.pid, parent=100)
        path, uuid = session.node.path, str(session.lease.slice_uuid)
        simulator.add_process(path, uuid, process.pid, 300)
        return process.pid

    yield put
    for process in made:
        process.kill()
        process.wait()


def test_processes_that_wait_are_no_activity(session: Session) -> None:
    assert not session.is_active()
    session.use(200, 0.5)
    assert not session.is_active()


@pytest.mark.parametrize(("seconds", "active"), [(0.9, False), (1.1, True), (9.9, True)])
def test_a_training_in_a_terminal_counts(session: Session, seconds: float, active: bool) -> None:
    session.process(300, parent=200)
    session.look()
    session.use(300, seconds)
    assert session.is_active() == active


def test_a_page_that_is_left_open_keeps_the_server_a_little_busy_and_counts_for_nothing(
    session: Session,
) -> None:
    session.use(100, 9)
    assert not session.is_active()


def test_an_orphan_in_the_background_counts(session: Session) -> None:
    session.process(300, parent=1)
    session.look()
    session.use(300, 5)
    assert session.is_active()


def test_on_the_slice_less_is_enough(session: Session, on_slice: Callable[[], int]) -> None:
    pid = on_slice()
    assert session.is_active(), "a process that comes to the slice does something"
    assert not session.is_active()
    session.use(pid, 0.3)
    assert session.is_active()
    session.use(pid, 0.1)
    found = session.look()
    assert found is not None
    assert found.active_at != found.seen_at
    assert found.said == "1 % of a CPU by 1 on the slice with 300 MiB of it, 0 % by 1 others"
    session.end(pid)
    assert session.is_active(), "a process that leaves the slice did something"


def test_who_wiped_their_environment_counts_on_a_slice_of_ones_own(
    session: Session, on_slice: Callable[[], int]
) -> None:
    pid = on_slice()
    (session.node.proc / str(pid) / "environ").write_bytes(b"PATH=/bin\0")
    session.look()
    assert not session.is_active()
    session.use(pid, 5)
    assert session.is_active()


def test_who_wiped_their_environment_is_known_by_descent(session: Session) -> None:
    """As after ``sudo``, or in a container that takes nothing along."""
    session.process(300, parent=200)
    session.process(301, parent=300)
    for pid in (300, 301):
        (session.node.proc / str(pid) / "environ").write_bytes(b"PATH=/bin\0")
    session.look()
    assert not session.is_active()
    session.use(301, 5)
    assert session.is_active()


def test_a_stranger_is_nobodys(session: Session) -> None:
    session.process(300, parent=1)
    (session.node.proc / "300" / "environ").write_bytes(b"PATH=/bin\0")
    session.look()
    session.use(300, 9)
    assert not session.is_active()


def test_memory_alone_is_no_activity(session: Session, on_slice: Callable[[], int]) -> None:
    on_slice()
    session.look()
    assert not session.is_active()
    assert not session.is_active(600)


def test_many_that_come_and_go_count_together(session: Session) -> None:
    for pid in range(300, 320):
        session.process(pid, parent=200)
        session.use(pid, 0.1)
    assert session.is_active()
    # One that took another's number is another one, and has used what it has used.
    session.end(300)
    session.process(300, parent=200, started=9999)
    assert not session.is_active()


def test_what_nvml_cannot_say_is_unknown(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    before = session.look()
    assert before is not None
    (card,) = session.node.broker.cards.find()
    simulator.lose_card(session.node.path, card.uuid)
    found = session.look()
    assert found is not None
    assert "NVML cannot say who is on the slice" in found.problem
    assert (found.seen_at, found.active_at) == (before.seen_at, before.active_at)


def test_a_server_whose_processes_cannot_be_seen_is_unknown(session: Session) -> None:
    for pid in (100, 200):
        session.end(pid)
    found = session.look()
    assert found is not None
    assert found.problem == "no process of this server is visible on its node"


@pytest.mark.parametrize("file", ["stat", "status"])
def test_processes_that_cannot_be_read_are_not_idle(
    session: Session, on_slice: Callable[[], int], file: str
) -> None:
    pid = on_slice()
    session.look()
    before = session.look()
    assert before is not None
    path = session.node.proc / str(pid) / file
    path.unlink(missing_ok=True)
    path.symlink_to(path)
    found = session.look()
    assert found is not None
    assert "its processes cannot be read" in found.problem
    assert (found.seen_at, found.active_at) == (before.seen_at, before.active_at)


def test_an_agent_without_tiers_reports_for_every_session(session: Session) -> None:
    """The service, which knows the tiers, decides whose end that may be."""
    broker = session.node.broker
    with_tiers = broker.context.settings
    broker.context.settings = replace(with_tiers, tiers=())
    session.node.seconds += 10
    session.use(200, 5)
    session.usage.look()
    broker.context.settings = with_tiers
    (standing,) = broker.sessions.standings()
    (row,) = [each for each in standing.readings if each.source == PROCESSES]
    assert row.active_at == session.node.lab.clock()


def test_processes_that_cannot_be_listed_are_not_idle(session: Session) -> None:
    before = session.look()
    assert before is not None
    away = session.node.proc.rename(session.node.proc.with_name("away"))
    found = session.look()
    away.rename(session.node.proc)
    assert found is not None
    assert "the processes of its node cannot be read" in found.problem
    assert (found.seen_at, found.active_at) == (before.seen_at, before.active_at)


def test_an_agent_that_starts_again_says_nothing_until_it_has_looked_twice(
    session: Session,
) -> None:
    before = session.look()
    session.usage = Usage(
        session.node.broker,
        session.node.nvml,
        node="n1",
        proc=session.node.proc,
        monotonic=lambda: session.node.seconds,
    )
    session.use(200, 50)
    assert session.look() == before
    assert not session.is_active()


def test_looks_are_a_while_apart(session: Session) -> None:
    before = session.look()
    session.use(200, 50)
    assert session.look(1) == before
    assert session.is_active(10)


def test_sessions_without_a_limit_are_not_looked_at(make_node: NodeMaker) -> None:
    node = make_node(["1g.5gb"], tiers=TIERS)
    node.tick()
    session = Session(node, "free")
    session.process(100, parent=1)
    assert [session.look() for _ in range(3)] == [None] * 3


def test_real_processes_of_this_machine(make_node: NodeMaker) -> None:
    node = make_node(["1g.5gb"], tiers=TIERS)
    node.tick()
    session = Session(node)
    usage = Usage(node.broker, Nvml(f"sim:{node.path}"), node="n1", proc=Path("/proc"),
                  monotonic=lambda: node.seconds)  # fmt: skip
    environ = {**os.environ, "MIGSPAWNER_ATTEMPT": session.lease.attempt}
    busy = "import time\nwhile time.process_time() < 3: pass\nprint(flush=True)\ntime.sleep(600)"
    command = ["sh", "-c", f"python3 -c '{busy}' & wait"]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, start_new_session=True
    ) as server:
        try:
            node.seconds += 10
            usage.look()
            assert server.stdout is not None
            server.stdout.readline()
            node.seconds += 10
            usage.look()
            (standing,) = node.broker.sessions.standings()
            (row,) = standing.readings
            assert row.problem == ""
            assert "by 1 others" in row.said
            assert row.active_at is not None
        finally:
            os.killpg(server.pid, 9)


def test_a_long_line_of_descent_keeps_its_owner(tmp_path: Path) -> None:
    """Anybody can make one; a walk of it for each of its processes would stop the agent."""
    for pid in range(1000, 6000):
        entry = tmp_path / str(pid)
        entry.mkdir()
        parent = pid + 1 if pid < 5999 else 1
        entry.joinpath("stat").write_text(f"{pid} (x) S {parent} " + "0 " * 40)
        mark = {4000: b"MIGSPAWNER_ATTEMPT=a\0", 2000: b"MIGSPAWNER_ATTEMPT=b\0"}.get(pid, b"A=1\0")
        entry.joinpath("environ").write_bytes(mark)
    found = family_processes(tmp_path)
    assert {name: len(each) for name, each in found.items()} == {"a": 2000, "b": 1001}
