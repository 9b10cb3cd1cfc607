"""One of several who share a slice goes: what is theirs ends, what is the others' goes on."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_migspawner.agent.vacancy import (
    KILL_AFTER,
    STUCK_SECONDS,
    TERMINATE_AFTER,
    Vacancy,
    belongs_to,
)
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.broker.lab import Lab
from tests.unit.agent.conftest import Node, NodeMaker

Sleeper = Callable[[], int]

#: Ask without taking the answer away from who started it.
ENDED = os.WEXITED | os.WNOWAIT

TIERS = [{"name": "course", "profile": "1g.5gb", "seats": 3}]


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    node = make_node(("1g.5gb",), tiers=TIERS)
    node.tick()
    return node


def sit_down(node: Node, user: str) -> LeaseRow:
    lease = node.lab.start(user, "course")
    node.broker.leases.activate(lease.attempt)
    return lease


def shown(node: Node, pid: int, attempt: str = "", parent: int = 1) -> int:
    """A process as /proc reports it; without an attempt nobody's."""
    folder = node.proc / str(pid)
    folder.mkdir(exist_ok=True)
    mark = f"MIGSPAWNER_ATTEMPT={attempt}\0" if attempt else ""
    (folder / "environ").write_bytes(f"HOME=/\0{mark}".encode())
    started = real_start(pid)
    rest = ["S", str(parent), *["0"] * 17, str(started)]
    (folder / "stat").write_text(f"{pid} (py) thon) {' '.join(rest)}")
    return pid


def real_start(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 7
    return int(text.rpartition(")")[2].split()[19])


def gone(node: Node, pid: int) -> None:
    for file in (node.proc / str(pid)).iterdir():
        file.unlink()
    (node.proc / str(pid)).rmdir()
    simulator.remove_process(node.path, only(node), pid)


def only(node: Node) -> str:
    (uuid,) = simulator.slice_uuids(node.path)
    return uuid


def computes(node: Node, pid: int) -> int:
    simulator.add_process(node.path, only(node), pid)
    return pid


def state(node: Node, lease: LeaseRow) -> tuple[str, str]:
    now = node.broker.leases.get(lease.id)
    return now.state, now.waiting_for


def test_a_seat_is_empty_though_others_compute_on_the_slice(node: Node, sleeper: Sleeper) -> None:
    ada, grace = sit_down(node, "ada"), sit_down(node, "grace")
    assert ada.slice_id == grace.slice_id
    theirs = computes(node, shown(node, sleeper(), grace.attempt))
    mine = computes(node, shown(node, sleeper(), ada.attempt))
    node.stop(ada)
    node.tick()
    assert state(node, ada) == (
        "releasing",
        f"processes of the ended server are still running: pid {mine}",
    )
    gone(node, mine)
    node.tick()
    assert state(node, ada)[0] == "released"
    assert state(node, grace)[0] == "active"
    linus = sit_down(node, "linus")
    assert (linus.slice_id, linus.seat) == (ada.slice_id, ada.seat)
    gone(node, theirs)


def test_what_a_neighbours_process_started_is_the_neighbours(node: Node, sleeper: Sleeper) -> None:
    ada, grace = sit_down(node, "ada"), sit_down(node, "grace")
    server = shown(node, sleeper(), grace.attempt)
    shell = shown(node, 1_000_001, parent=server)
    # It dropped its environment, as `env -i` does; its session is still known.
    computes(node, shown(node, sleeper(), parent=shell))
    node.stop(ada)
    node.tick()
    assert state(node, ada)[0] == "released"


def test_what_belongs_to_nobody_for_certain_keeps_the_seat_and_is_left_alone(
    node: Node, sleeper: Sleeper
) -> None:
    ada, grace = sit_down(node, "ada"), sit_down(node, "grace")
    computes(node, shown(node, sleeper(), grace.attempt))
    nobodys = computes(node, shown(node, sleeper()))
    unreadable = computes(node, sleeper())
    node.stop(ada)
    node.tick()
    node.seconds += KILL_AFTER + 1
    node.tick(2)
    listed = ", ".join(map(str, sorted([nobodys, unreadable])))
    assert state(node, ada) == (
        "releasing",
        f"NVML still lists processes on the slice: pid {listed}",
    )
    for pid in (nobodys, unreadable):
        assert Path(f"/proc/{pid}").exists()
        simulator.remove_process(node.path, only(node), pid)
    node.tick()
    assert state(node, ada)[0] == "released"


def test_a_slice_is_shared_while_others_are_on_it_whatever_its_tier_says_now(
    node: Node, sleeper: Sleeper
) -> None:
    ada, grace = sit_down(node, "ada"), sit_down(node, "grace")
    server = shown(node, sleeper(), ada.attempt)
    computes(node, shown(node, sleeper(), grace.attempt))
    nobodys = computes(node, shown(node, sleeper()))
    # The admin has taken the seats away since, and the service was restarted.
    later = Lab(node.lab.url, clock=node.lab.clock, tiers=[{"name": "course", "profile": "1g.5gb"}])
    now = [0.0]
    vacancy = Vacancy(later.broker, node.nvml, node="n1", proc=node.proc, monotonic=lambda: now[0])
    try:
        vacancy.look_at_all()
        shutil.rmtree(node.proc / str(server))
        node.stop(ada)
        for now[0] in (
            10.0,
            10 + TERMINATE_AFTER,
            10 + KILL_AFTER,
            10 + KILL_AFTER + STUCK_SECONDS,
        ):
            vacancy.look_at_all()
        assert state(node, ada)[0] == "releasing"
        assert os.waitid(os.P_PID, nobodys, ENDED | os.WNOHANG) is None
        (status,) = node.broker.slices.find()
        assert f"process {nobodys}" in status.row.quarantined
    finally:
        later.close()


def test_an_agent_without_tiers_knows_from_the_database_that_a_slice_is_shared(
    node: Node, sleeper: Sleeper
) -> None:
    """The agent of a node without a hub has no tiers, and ends nothing that may be another's."""
    ada = sit_down(node, "ada")
    nobodys = computes(node, shown(node, sleeper()))
    node.broker.context.settings = replace(node.broker.settings, tiers=())
    node.stop(ada)
    node.tick()
    for seconds in (TERMINATE_AFTER, KILL_AFTER, STUCK_SECONDS):
        node.seconds += seconds
        node.tick()
    assert os.waitid(os.P_PID, nobodys, ENDED | os.WNOHANG) is None
    assert state(node, ada)[0] == "releasing"


def test_a_mark_of_somebody_who_is_not_on_the_slice_proves_nothing(
    make_node: NodeMaker, sleeper: Sleeper
) -> None:
    node = make_node(("1g.5gb", "1g.5gb"), tiers=[*TIERS, {"name": "own", "profile": "1g.5gb"}])
    node.tick()
    ada = sit_down(node, "ada")
    elsewhere = node.lab.start("linus", "own")
    past = sit_down(node, "grace")
    node.stop(past)
    node.tick()
    assert state(node, past)[0] == "released"
    uuid = str(ada.slice_uuid)
    for attempt in (elsewhere.attempt, past.attempt, "never-heard-of"):
        pid = shown(node, sleeper(), attempt)
        simulator.add_process(node.path, uuid, pid)
    node.stop(ada)
    node.tick()
    assert state(node, ada)[0] == "releasing"
    assert state(node, ada)[1].count(",") == 2


def test_leftovers_of_the_one_who_went_are_ended_and_nobody_elses(
    node: Node, sleeper: Sleeper
) -> None:
    ada, grace = sit_down(node, "ada"), sit_down(node, "grace")
    theirs = computes(node, shown(node, sleeper(), grace.attempt))
    mine = computes(node, shown(node, sleeper(), ada.attempt))
    node.stop(ada)
    node.tick()
    assert os.waitid(os.P_PID, mine, ENDED | os.WNOHANG) is None
    node.seconds += KILL_AFTER + 1
    node.tick()
    ended = os.waitid(os.P_PID, mine, ENDED)
    assert ended is not None
    assert ended.si_status == signal.SIGKILL
    assert os.waitid(os.P_PID, theirs, ENDED | os.WNOHANG) is None


def test_two_who_go_at_once_wait_each_for_their_own(node: Node, sleeper: Sleeper) -> None:
    ada, grace = sit_down(node, "ada"), sit_down(node, "grace")
    theirs = computes(node, shown(node, sleeper(), grace.attempt))
    node.stop(ada)
    node.stop(grace)
    node.tick()
    assert state(node, ada)[0] == "released"
    assert state(node, grace)[0] == "releasing"
    gone(node, theirs)
    node.tick()
    assert state(node, grace)[0] == "released"
    assert set(node.states().values()) == {"free"}


def test_who_has_a_slice_alone_has_no_neighbour_to_point_at(
    make_node: NodeMaker, sleeper: Sleeper
) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    lease = node.lab.start()
    pid = shown(node, sleeper())
    simulator.add_process(node.path, only(node), pid)
    node.stop(lease)
    node.tick(2)
    assert state(node, lease)[0] == "releasing"


def test_a_ring_of_parents_ends_nowhere(node: Node) -> None:
    shown(node, 1_000_001, parent=1_000_002)
    shown(node, 1_000_002, parent=1_000_001)
    assert belongs_to(1_000_001, node.proc) == ""
    assert belongs_to(1_000_003, node.proc) == ""
