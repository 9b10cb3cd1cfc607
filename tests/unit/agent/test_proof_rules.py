"""Rules of the proof, each by itself: what makes a process one's own, in doubt, ended or named."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_migspawner.agent import environments, processes
from jupyterhub_migspawner.agent.families import Families
from jupyterhub_migspawner.agent.processes import Process, Unreadable, boot_time, is_alive
from jupyterhub_migspawner.agent.snapshot import belongs_to
from jupyterhub_migspawner.agent.vacancy import KILL_AFTER, STUCK_SECONDS, TERMINATE_AFTER, Vacancy
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.broker.lab import Lab
from tests.unit.agent.conftest import Node, NodeMaker
from tests.unit.agent.sessions import Session, since_boot
from tests.unit.agent.test_unknown_processes import MARK, broken, shown

Sleeper = Callable[[], int]


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    node = make_node(("1g.5gb",))
    node.tick()
    return node


@pytest.fixture
def lease(node: Node) -> LeaseRow:
    lease = node.lab.start()
    node.broker.leases.activate(lease.attempt)
    return lease


def state(node: Node, lease: LeaseRow) -> str:
    return node.broker.leases.get(lease.id).state


def row(node: Node) -> str:
    (status,) = node.broker.slices.find()
    return status.row.quarantined


def hide(monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    """Let the kernel not show the environment of a process to this user."""
    real = processes.environment_of

    def environment_of(entry: Path, names: frozenset[bytes]) -> processes.Environment:
        if entry.name == str(pid):
            raise Unreadable(entry / "environ", PermissionError(13, "Permission denied"))
        return real(entry, names)

    monkeypatch.setattr(environments, "environment_of", environment_of)


def group(node: Node, name: str, text: str) -> None:
    entry = node.proc / name
    entry.mkdir(exist_ok=True)
    (entry / "cgroup").write_text(f"0::/{text}\n")


def test_what_may_not_be_read_is_in_doubt_only_in_the_hubs_or_the_sessions_control_groups(
    node: Node, lease: LeaseRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, 4242)
    shown(node.proc, 4242)
    group(node, "self", "hub.service")
    node.stop(lease)
    for where, then in (("hub.service", "releasing"), ("app-browser.scope", "released")):
        group(node, "4242", where)
        node.tick()
        assert state(node, lease) == then


def test_what_the_kernel_fails_to_read_is_in_doubt_wherever_it_is(
    node: Node, lease: LeaseRow
) -> None:
    shown(node.proc, 4242)
    group(node, "self", "hub.service")
    group(node, "4242", "app-browser.scope")
    broken(node.proc / "4242" / "environ")
    node.stop(lease)
    node.tick()
    assert state(node, lease) == "releasing"


def test_where_a_control_group_cannot_be_read_there_is_doubt(
    node: Node, lease: LeaseRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide(monkeypatch, 4242)
    shown(node.proc, 4242)
    group(node, "self", "hub.service")
    group(node, "4242", "app-browser.scope")
    broken(node.proc / "4242" / "cgroup")
    node.stop(lease)
    node.tick()
    assert state(node, lease) == "releasing"


def runs_as(entry: Path, real: int, effective: int) -> None:
    (entry / "status").write_text(f"Name:\tx\nUid:\t{real}\t{effective}\t0\t0\n")


@pytest.mark.parametrize(
    ("real", "effective", "then"),
    [
        (1000, 1000, "releasing"),
        (1001, 1001, "released"),
        # Either of them may be the session's.
        (1001, 1000, "releasing"),
        (1000, 0, "releasing"),
    ],
)
def test_only_what_runs_as_the_sessions_user_is_in_doubt(
    node: Node, lease: LeaseRow, real: int, effective: int, then: str
) -> None:
    server = shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode())
    runs_as(server, 1000, 1000)
    node.tick(2)
    shutil.rmtree(server)
    other = shown(node.proc, 4243)
    runs_as(other, real, effective)
    broken(other / "environ")
    node.stop(lease)
    node.tick()
    assert state(node, lease) == then


def test_what_is_known_of_a_sessions_user_is_what_its_first_process_ran_as(
    node: Node, lease: LeaseRow
) -> None:
    # One whose two users differ says nothing of the session's.
    runs_as(shown(node.proc, 4241, f"{MARK}{lease.attempt}\0".encode()), 1000, 0)
    found = Families(node.broker, node="n1", proc=node.proc)
    found.look([lease])
    assert found.uids(lease) in (frozenset(), frozenset({os.geteuid()}))
    assert found.members(lease) == []
    # It counts all the same: it carries the mark.
    assert [each.pid for each in found.left(lease)] == [4241]
    runs_as(shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode()), 1000, 1000)
    runs_as(shown(node.proc, 4243, f"{MARK}{lease.attempt}\0".encode()), 1001, 1001)
    found.look([lease])
    assert found.uids(lease) == {1000}
    # Anybody can set a mark: another user's process is not remembered for it.
    assert 4242 in [each.pid for each in found.members(lease)]
    assert 4243 not in [each.pid for each in found.members(lease)]
    assert [each.pid for each in found.left(lease)] == [4241, 4242, 4243]


def test_another_users_process_is_a_sessions_own_by_descent_only(
    node: Node, lease: LeaseRow
) -> None:
    runs_as(shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode()), 1000, 1000)
    runs_as(shown(node.proc, 4243, parent=4242), 0, 0)
    runs_as(shown(node.proc, 4244, f"{MARK}{lease.attempt}\0".encode()), 1001, 1001)
    runs_as(shown(node.proc, 4245), 1000, 1000)
    found = Families(node.broker, node="n1", proc=node.proc)
    found.look([lease])
    assert [found.is_own(pid, [lease]) for pid in (4242, 4243, 4244, 4245)] == [
        True,
        True,
        False,
        True,
    ]
    assert found.is_own(4246, [lease]) is None
    # Where the users of the sessions are unknown, nobody counts as another user.
    nobody = Families(node.broker, node="n1", proc=node.proc)
    expected = None if os.geteuid() == 0 else False
    assert nobody.is_own(4244, [lease]) is expected


def test_what_is_in_doubt_is_named_when_everything_else_has_been_tried(
    node: Node, lease: LeaseRow
) -> None:
    broken(shown(node.proc, 4242) / "environ")
    node.stop(lease)
    now = [0.0]
    vacancy = Vacancy(node.broker, node.nvml, node="n1", proc=node.proc, monotonic=lambda: now[0])
    for now[0], named in (
        (0.0, False),
        (KILL_AFTER + STUCK_SECONDS - 0.5, False),
        (KILL_AFTER + STUCK_SECONDS, True),
    ):
        vacancy.look_at_all()
        assert ("process 4242" in row(node)) == named
    # Proven empty, the slice is there for others in the same round.
    shutil.rmtree(node.proc / "4242")
    vacancy.look_at_all()
    assert (state(node, lease), row(node)) == ("released", "")


def test_leftovers_are_asked_to_end_and_made_to_end_at_their_times(make_node: NodeMaker) -> None:
    node = make_node(("1g.5gb",), real_processes=True)
    node.tick()
    session = Session(node)
    now = [0.0]
    vacancy = Vacancy(node.broker, node.nvml, node="n1", monotonic=lambda: now[0])
    try:
        listens, deaf = session.process(), session.process(ignores=("SIGTERM",))
        session.stop()
        for now[0] in (0.0, TERMINATE_AFTER - 0.5):
            vacancy.look_at_all()
            assert session.lives(listens)
        now[0] = TERMINATE_AFTER
        vacancy.look_at_all()
        assert session.ended_by(listens) == signal.SIGTERM
        now[0] = KILL_AFTER - 0.5
        vacancy.look_at_all()
        assert session.lives(deaf)
        now[0] = KILL_AFTER
        vacancy.look_at_all()
        assert session.ended_by(deaf) == signal.SIGKILL
        vacancy.look_at_all()
        assert session.state == "released"
        assert session.quarantined == ""
    finally:
        session.close()


def named_at(node: Node, lease: LeaseRow, process: str, times: tuple[float, ...]) -> list[bool]:
    """Whether the quarantine of the lease's slice names that process at these times."""
    now = [0.0]
    vacancy = Vacancy(node.broker, node.nvml, node="n1", proc=node.proc, monotonic=lambda: now[0])
    found = []
    for now[0] in times:
        vacancy.look_at_all()
        rows = [status.row for status in node.broker.slices.find()]
        found.append(process in next(r.quarantined for r in rows if r.id == lease.slice_id))
    return found


def test_whose_user_is_unknown_is_no_stranger_at_once(
    node: Node, lease: LeaseRow, sleeper: Sleeper
) -> None:
    pid = sleeper()
    runs_as(shown(node.proc, pid), 64_321, 64_321)
    simulator.add_process(node.path, str(lease.slice_uuid), pid)
    node.stop(lease)
    # Without root, all servers run as the hub's own user: that is known.
    at_once = os.geteuid() != 0
    late = KILL_AFTER + STUCK_SECONDS
    times = (0.0, TERMINATE_AFTER, late)
    assert named_at(node, lease, f"process {pid}", times) == [at_once, at_once, True]


def test_another_leases_process_on_the_slice_is_no_stranger_at_once(
    make_node: NodeMaker, sleeper: Sleeper
) -> None:
    node = make_node(("1g.5gb", "1g.5gb"))
    node.tick()
    ada, grace = (node.lab.start(user) for user in ("ada", "grace"))
    for each in (ada, grace):
        node.broker.leases.activate(each.attempt)
    server = shown(node.proc, 4242, f"{MARK}{ada.attempt}\0".encode())
    runs_as(server, 1000, 1000)
    node.tick(2)
    shutil.rmtree(server)
    pid = sleeper()
    runs_as(shown(node.proc, pid, f"{MARK}{grace.attempt}\0".encode()), 1001, 1001)
    simulator.add_process(node.path, str(ada.slice_uuid), pid)
    node.stop(ada)
    whose = f"of lease {grace.id}, which continues"
    late = KILL_AFTER + STUCK_SECONDS
    assert named_at(node, ada, whose, (0.0, late - 0.5, late)) == [False, False, True]


def test_what_is_on_the_slice_and_cannot_be_read_keeps_it(
    node: Node, lease: LeaseRow, sleeper: Sleeper
) -> None:
    server = shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode())
    runs_as(server, 1000, 1000)
    node.tick(2)
    shutil.rmtree(server)
    # Of another user, it is in no doubt; but the driver lists it.
    pid = sleeper()
    entry = shown(node.proc, pid)
    runs_as(entry, 1001, 1001)
    broken(entry / "stat")
    simulator.add_process(node.path, str(lease.slice_uuid), pid)
    node.stop(lease)
    times = (0.0, KILL_AFTER + STUCK_SECONDS)
    assert named_at(node, lease, f"process {pid}", times) == [False, True]
    assert state(node, lease) == "releasing"
    assert row(node).count("cannot be read") == 1
    simulator.remove_process(node.path, str(lease.slice_uuid), pid)
    node.tick()
    assert state(node, lease) == "released"


def test_a_lease_of_a_tier_that_is_gone_is_proven_like_any_other(
    node: Node, lease: LeaseRow, sleeper: Sleeper
) -> None:
    server = shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode())
    runs_as(server, 1000, 1000)
    node.tick(2)
    shutil.rmtree(server)
    pid = sleeper()
    runs_as(shown(node.proc, pid), 1000, 1000)
    simulator.add_process(node.path, str(lease.slice_uuid), pid)
    node.stop(lease)
    later = Lab(node.lab.url, clock=node.lab.clock, tiers=[{"name": "cpu", "profile": "none"}])
    vacancy = Vacancy(later.broker, node.nvml, node="n1", proc=node.proc)
    try:
        vacancy.look_at_all()
        assert str(pid) in node.broker.leases.get(lease.id).waiting_for
        simulator.remove_process(node.path, str(lease.slice_uuid), pid)
        vacancy.look_at_all()
        assert state(node, lease) == "released"
    finally:
        later.close()


def test_only_the_very_process_is_alive(tmp_path: Path) -> None:
    shown(tmp_path, 100)
    assert is_alive(Process(100, 100), tmp_path)
    assert not is_alive(Process(100, 99), tmp_path)
    shown(tmp_path, 100, state="Z")
    assert not is_alive(Process(100, 100), tmp_path)
    # Of which the folder has nothing, whatever this machine runs.
    assert not is_alive(Process(os.getpid(), 100), tmp_path)


def test_a_process_belongs_to_the_mark_of_its_nearest_ancestor(tmp_path: Path) -> None:
    shown(tmp_path, 100, f"{MARK}a\0".encode())
    shown(tmp_path, 200, f"{MARK}b\0".encode(), parent=100)
    shown(tmp_path, 300, parent=200)
    shown(tmp_path, 400)
    found = [belongs_to(pid, tmp_path) for pid in (100, 200, 300, 400, 500)]
    assert found == ["a", "b", "b", "", ""]


def test_a_later_process_with_the_pid_of_a_sessions_is_not_the_sessions(
    node: Node, lease: LeaseRow
) -> None:
    entry = shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode())
    found = Families(node.broker, node="n1", proc=node.proc)
    found.look([lease])
    assert found.owner(4242) == lease.attempt
    # What it itself reports later changes nothing.
    (entry / "environ").write_bytes(b"A=1\0")
    assert found.owner(4242) == lease.attempt
    stat = (entry / "stat").read_text()
    head, _, rest = stat.rpartition(")")
    fields = rest.split()
    fields[19] = "4243"
    (entry / "stat").write_text(f"{head}) {' '.join(fields)}")
    assert found.owner(4242) == ""
    shutil.rmtree(entry)
    assert found.owner(4242) == ""


def test_the_same_reason_is_written_down_once(node: Node, lease: LeaseRow) -> None:
    shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode())
    node.stop(lease)
    vacancy = Vacancy(node.broker, node.nvml, node="n1", proc=node.proc)
    for _ in range(3):
        vacancy.look(node.broker.leases.get(lease.id))
    assert node.kinds().count("lease.waiting") == 1


@pytest.mark.parametrize(("age", "then"), [(600, "released"), (30, "releasing")])
def test_of_a_session_that_was_never_seen_the_lease_says_what_is_older(
    node: Node, lease: LeaseRow, age: float, then: str
) -> None:
    ticks = 5_000_000
    boot = lease.since.timestamp() - age - ticks / processes.TICKS
    (node.proc / "stat").write_text(f"cpu 1\nbtime {int(boot)}\n")
    broken(shown(node.proc, ticks) / "environ")
    node.stop(lease)
    node.tick()
    assert state(node, lease) == then


def test_when_the_machine_started_is_unknown_where_it_cannot_be_read(tmp_path: Path) -> None:
    assert boot_time(tmp_path) is None
    (tmp_path / "stat").symlink_to(tmp_path / "stat")
    assert boot_time(tmp_path) is None


def test_a_signal_is_for_one_process_and_no_later_one_with_its_number(sleeper: Sleeper) -> None:
    pid = sleeper()
    assert Process(pid, since_boot(pid) + 1).signal(9) == ""
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
    assert Process(pid, since_boot(pid)).signal(9) == ""
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT) is not None


def test_what_cannot_be_looked_at_gets_no_signal(sleeper: Sleeper, tmp_path: Path) -> None:
    pid = sleeper()
    broken(shown(tmp_path, pid) / "stat")
    assert "cannot be read" in Process(pid, since_boot(pid)).signal(9, tmp_path)
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None


def test_a_process_that_the_mount_hides_is_not_gone(
    sleeper: Sleeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As others' are for a hub without root where /proc is mounted with ``hidepid=2``."""
    pid = sleeper()
    process = Process(pid, since_boot(pid))
    monkeypatch.setattr(processes, "read_facts", lambda entry: None)
    with pytest.raises(Unreadable):
        is_alive(process)

    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(Unreadable):
        is_alive(process)


def test_a_remembered_process_that_cannot_be_read_still_counts(node: Node, lease: LeaseRow) -> None:
    entry = shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode())
    node.tick(2)
    broken(entry / "stat")
    node.stop(lease)
    node.tick()
    assert "still running: pid 4242" in node.broker.leases.get(lease.id).waiting_for
    shutil.rmtree(entry)
    node.tick()
    assert state(node, lease) == "released"


def test_the_pids_of_a_unit_are_its_sessions(node: Node, lease: LeaseRow) -> None:
    shown(node.proc, 4242)
    found = Families(node.broker, node="n1", proc=node.proc, units=lambda lease: (4242, 4243))
    found.look([lease])
    assert [each.pid for each in found.left(lease)] == [4242]


@pytest.mark.parametrize("looks", [0, 1])
def test_a_mark_that_names_no_lease_hides_no_descendant(
    node: Node, lease: LeaseRow, looks: int
) -> None:
    """Anybody can give a process any mark: ``MIGSPAWNER_ATTEMPT=x program``."""
    shown(node.proc, 4000, f"{MARK}{lease.attempt}\0".encode())
    node.tick(looks)
    shown(node.proc, 4001, f"{MARK}x\0".encode(), parent=4000)
    shown(node.proc, 4002, f"{MARK}y\0".encode(), parent=4001)
    node.tick(looks)
    node.stop(lease)
    node.tick()
    waiting_for = node.broker.leases.get(lease.id).waiting_for
    assert waiting_for == "processes of the ended server are still running: pid 4000, 4001, 4002"


def test_a_server_that_was_started_from_another_ones_session_is_not_of_that_session(
    make_node: NodeMaker,
) -> None:
    """As by an admin who starts the hub again in a terminal of a notebook."""
    node = make_node(("1g.5gb", "1g.5gb"))
    node.tick()
    outer, inner = (node.lab.start(user) for user in ("ada", "grace"))
    for each in (outer, inner):
        node.broker.leases.activate(each.attempt)
    shown(node.proc, 4000, f"{MARK}{outer.attempt}\0".encode())
    shown(node.proc, 4001, f"{MARK}{inner.attempt}\0".encode(), parent=4000)
    node.stop(outer)
    node.tick()
    waiting_for = node.broker.leases.get(outer.id).waiting_for
    assert waiting_for == "processes of the ended server are still running: pid 4000"


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("remembered", [True, False])
def test_a_hub_that_was_started_in_a_session_is_not_ended_with_it(
    node: Node, lease: LeaseRow, marked: bool, remembered: bool
) -> None:
    """Nor its proxy, nor servers that have no slice; without a mark as by ``sudo``."""
    mark = f"{MARK}{lease.attempt}\0".encode()
    inherited = mark if marked else b"A=1\0"
    shown(node.proc, 4000, mark)
    shown(node.proc, 4001, mark, parent=4000)
    for pid, parent in ((4100, 4001), (4101, 4100), (4102, 4101), (4103, 4100)):
        shown(node.proc, pid, inherited, parent=parent)
    shown(node.proc, 4104, b"MIGSPAWNER_ATTEMPT=\0", parent=4100)
    if remembered:
        # As by another hub's agent on the same database.
        Families(node.broker, node="n1", proc=node.proc, keep=True, hub=0).look([lease])
        Families(node.broker, node="n1", proc=node.proc, keep=True, hub=0).look([lease])
    found = Families(node.broker, node="n1", proc=node.proc, hub=4100)
    for _ in range(2):
        found.look([lease])
        assert [each.pid for each in found.left(lease)] == [4000, 4001]
    shutil.rmtree(node.proc / "4000")
    shutil.rmtree(node.proc / "4001")
    found.look([lease])
    assert found.left(lease) == []


def test_what_a_hub_starts_for_a_session_is_that_sessions(node: Node, lease: LeaseRow) -> None:
    shown(node.proc, 4100)
    shown(node.proc, 4200, f"{MARK}{lease.attempt}\0".encode(), parent=4100)
    shown(node.proc, 4201, parent=4200)
    found = Families(node.broker, node="n1", proc=node.proc, hub=4100)
    found.look([lease])
    assert [each.pid for each in found.left(lease)] == [4200, 4201]


def test_another_nodes_lease_is_not_proven_here(node: Node, lease: LeaseRow) -> None:
    node.stop(lease)
    ended = node.broker.leases.get(lease.id)
    elsewhere = Vacancy(node.broker, node.nvml, node="n2", proc=node.proc)
    assert elsewhere.look(ended) == ended
    assert state(node, lease) == "releasing"


def test_a_lease_that_moved_on_meanwhile_keeps_no_other_from_being_proven(
    make_node: NodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(("1g.5gb", "1g.5gb"))
    node.tick()
    leases = [node.lab.start(user) for user in ("ada", "grace")]
    for each in leases:
        node.broker.leases.activate(each.attempt)
        node.stop(each)
    real = node.broker.leases.confirm_empty

    def confirm(lease_id: int) -> LeaseRow:
        if lease_id == leases[0].id:
            raise Refusal("It is active.", reason="conflict")
        return real(lease_id)

    monkeypatch.setattr(node.broker.leases, "confirm_empty", confirm)
    node.tick()
    assert [state(node, each) for each in leases] == ["releasing", "released"]


@pytest.mark.parametrize("symbol", ["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetHandleByIndex_v2"])
def test_a_slice_that_is_not_found_on_a_card_that_does_not_answer_may_be_used(
    node: Node, lease: LeaseRow, symbol: str
) -> None:
    node.stop(lease)
    simulator.fail_call(node.path, "nvmlDeviceGetHandleByUUID", Code.NOT_FOUND, times=1)
    simulator.fail_call(node.path, symbol, Code.UNKNOWN, times=20)
    Vacancy(node.broker, node.nvml, node="n1", proc=node.proc).look(
        node.broker.leases.get(lease.id)
    )
    assert state(node, lease) == "releasing"
    assert node.broker.leases.get(lease.id).waiting_for.startswith("NVML cannot say who is on it")


def test_a_slice_that_is_not_found_is_empty_when_its_place_on_the_card_is(
    make_node: NodeMaker, sleeper: Sleeper
) -> None:
    node = make_node(("1g.5gb", "1g.5gb"))
    node.tick()
    lease = node.lab.start()
    node.broker.leases.activate(lease.attempt)
    node.stop(lease)
    mine, pid = str(lease.slice_uuid), sleeper()
    (other,) = set(simulator.slice_uuids(node.path)) - {mine}
    vacancy = Vacancy(node.broker, node.nvml, node="n1", proc=node.proc)

    def look() -> str:
        simulator.fail_call(node.path, "nvmlDeviceGetHandleByUUID", Code.NOT_FOUND, times=1)
        vacancy.look(node.broker.leases.get(lease.id))
        return state(node, lease)

    simulator.add_process(node.path, mine, pid)
    assert look() == "releasing"
    assert str(pid) in node.broker.leases.get(lease.id).waiting_for
    simulator.remove_process(node.path, mine, pid)
    simulator.add_process(node.path, other, pid)
    assert look() == "released"


def test_a_lease_without_a_slice_has_nothing_on_it(node: Node, lease: LeaseRow) -> None:
    node.stop(lease)
    bare = replace(node.broker.leases.get(lease.id), slice_uuid=None)
    Vacancy(node.broker, node.nvml, node="n1", proc=node.proc).look(bare)
    assert state(node, lease) == "released"


def test_a_card_without_mig_that_is_not_found_may_be_used(node: Node, lease: LeaseRow) -> None:
    node.stop(lease)
    whole = replace(node.broker.leases.get(lease.id), slice_uuid=lease.card_uuid)
    simulator.fail_call(node.path, "nvmlDeviceGetHandleByUUID", Code.NOT_FOUND, times=1)
    Vacancy(node.broker, node.nvml, node="n1", proc=node.proc).look(whole)
    assert state(node, lease) == "releasing"


def test_what_is_on_the_slice_is_ended_once_it_was_seen_there_twice(make_node: NodeMaker) -> None:
    node = make_node(("1g.5gb",), tiers=[{"name": "small", "profile": "1g.5gb"}],
                     real_processes=True)  # fmt: skip
    node.tick()
    session = Session(node)
    try:
        session.process()
        node.tick()
        session.stop()
        pid = session.process(marked=False)
        session.end(session.started[0].pid)
        session.put(os.getpid())
        node.tick()
        node.seconds += KILL_AFTER
        session.put(pid)
        node.tick()
        assert session.lives(pid)
        node.tick()
        assert session.ended_by(pid) == 9
    finally:
        session.close()


def test_what_starts_others_again_and_again_fills_no_log(
    node: Node, lease: LeaseRow, sleeper: Sleeper
) -> None:
    node.stop(lease)
    uuid, pids = str(lease.slice_uuid), [sleeper() for _ in range(8)]
    for pid in pids:
        simulator.add_process(node.path, uuid, pid)
        node.seconds -= 9
        node.tick()
        simulator.remove_process(node.path, uuid, pid)
    assert node.kinds().count("lease.waiting") == 1
    # Another kind of reason is reported at once, the same kind a minute later.
    entry = shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode())
    node.tick()
    assert node.kinds().count("lease.waiting") == 2
    shutil.rmtree(entry)
    simulator.add_process(node.path, uuid, pids[0])
    node.tick()
    node.seconds += 60
    simulator.add_process(node.path, uuid, pids[1])
    node.tick()
    assert str(pids[1]) in node.broker.leases.get(lease.id).waiting_for


def test_a_reason_says_how_many_there_are(node: Node, lease: LeaseRow) -> None:
    for pid in range(4000, 4008):
        shown(node.proc, pid, f"{MARK}{lease.attempt}\0".encode())
    for pid in range(5000, 5003):
        broken(shown(node.proc, pid) / "environ")
    node.stop(lease)
    node.tick()
    why = node.broker.leases.get(lease.id).waiting_for
    assert "pid 4000, 4001, 4002, 4003, 4004 and 3 more" in why
    assert "cannot be determined: process 5000" in why
    assert why.endswith(" and 2 more")
    node.seconds += KILL_AFTER + STUCK_SECONDS
    node.tick()
    assert " and 6 more" in row(node)


def test_a_lost_cards_quarantine_is_not_lifted(node: Node, sleeper: Sleeper) -> None:
    (uuid,) = simulator.slice_uuids(node.path)
    simulator.add_process(node.path, uuid, sleeper())
    node.tick()
    assert row(node)
    simulator.lose_card(node.path, node.card().uuid)
    node.tick(3)
    assert row(node)


def test_processes_are_followed_while_nothing_ends_but_not_in_every_round(
    node: Node, lease: LeaseRow
) -> None:
    vacancy = node.agent._vacancy
    vacancy.look_at_all()
    node.seconds += 1
    entry = shown(node.proc, 4242, f"{MARK}{lease.attempt}\0".encode())
    vacancy.look_at_all()
    known = vacancy._families
    assert known.members(lease) == []
    node.seconds += 2
    vacancy.look_at_all()
    assert [each.pid for each in known.members(lease)] == [4242]
    (entry / "environ").write_bytes(b"A=1\0")
    node.stop(lease)
    vacancy.look_at_all()
    assert state(node, lease) == "releasing"
    assert TERMINATE_AFTER < KILL_AFTER
