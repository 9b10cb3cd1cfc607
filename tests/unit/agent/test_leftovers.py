"""What a session leaves behind is ended, whatever it did to its environment; what cannot be ended
keeps the lease and is shown. All processes are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyterhub_migspawner.agent.processes import PROC, Process
from jupyterhub_migspawner.agent.vacancy import KILL_AFTER, STUCK_SECONDS, TERMINATE_AFTER, Vacancy
from jupyterhub_migspawner.gpu import simulator
from tests.unit.agent.conftest import Node, NodeMaker
from tests.unit.agent.sessions import NOBODY, Session, since_boot

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="starts processes of another user")

TIERS = [
    {"name": "small", "profile": "1g.5gb"},
    {"name": "course", "profile": "2g.10gb", "seats": 3},
]

#: Runs with the mark until it is told to go on, and then without any environment, elsewhere.
FORGETS = """
import os, sys
print(flush=True)
sys.stdin.readline()
os.setsid()
os.execve(sys.executable, [sys.executable, "-S", "-E", "-c", '''
import sys
print(flush=True)
sys.stdin.read()
'''], {})
"""

Opened = Callable[..., Session]


@pytest.fixture
def open_session(make_node: NodeMaker) -> Iterator[Opened]:
    opened: list[Session] = []
    nodes: list[Node] = []

    def make(tier: str = "small", user: str = "ada") -> Session:
        if not nodes:
            nodes.append(
                make_node(("1g.5gb", "1g.5gb", "2g.10gb"), tiers=TIERS, real_processes=True)
            )
            nodes[0].tick()
        opened.append(Session(nodes[0], tier, user))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


@pytest.fixture
def session(open_session: Opened) -> Session:
    return open_session()


def pass_by(session: Session, seconds: float) -> None:
    """Time in which the agent looks twice."""
    session.node.seconds += seconds
    session.node.tick(2)


def test_what_dropped_its_environment_on_the_slice_is_asked_to_end_after_the_grace(
    session: Session,
) -> None:
    pid = session.process(marked=False, on_slice=True)
    session.process()
    session.node.tick()
    session.end(session.started[1].pid)
    session.stop()
    session.node.tick(3)
    assert session.lives(pid)
    assert session.state == "releasing"
    assert session.waiting_for == f"NVML still lists processes on the slice: pid {pid}"
    pass_by(session, TERMINATE_AFTER - 30)
    assert session.ended_by(pid) == signal.SIGTERM
    session.node.tick()
    assert session.state == "released"
    assert session.quarantined == ""


def test_what_does_not_listen_is_made_to_end(session: Session) -> None:
    pid = session.process(marked=False, on_slice=True, ignores=("SIGTERM",))
    session.process()
    session.node.tick()
    session.end(session.started[1].pid)
    session.stop()
    session.node.tick()
    pass_by(session, TERMINATE_AFTER - 10)
    assert session.lives(pid)
    pass_by(session, KILL_AFTER)
    assert session.ended_by(pid) == signal.SIGKILL
    session.node.tick()
    assert session.state == "released"


def test_a_mark_that_names_another_start_saves_nothing(session: Session) -> None:
    session.process()
    pid = session.process(attempt="of-nobody", on_slice=True)
    session.node.tick()
    session.stop()
    session.node.tick()
    pass_by(session, TERMINATE_AFTER)
    assert session.ended_by(pid) == signal.SIGTERM


@as_root
def test_another_users_process_is_left_alone_and_named_until_it_is_gone(session: Session) -> None:
    session.process()
    session.node.tick()
    pid = session.process(marked=False, on_slice=True, uid=NOBODY)
    session.stop()
    session.end(session.started[0].pid)
    session.node.tick()
    assert session.state == "releasing"
    text = session.quarantined
    assert text.startswith(f"Not empty after lease {session.lease.id} of ada: process {pid} (")
    assert f"user {NOBODY}, since " in text
    assert f"`sudo kill -9 {pid}`" in text
    pass_by(session, KILL_AFTER + STUCK_SECONDS)
    assert session.lives(pid)
    assert session.state == "releasing"
    assert session.node.kinds().count("slice.quarantined") == 1
    session.end(pid)
    session.node.tick()
    assert session.state == "released"
    assert session.quarantined == ""
    assert session.node.kinds().count("slice.unquarantined") == 1


@as_root
def test_a_quarantine_for_another_user_outlives_the_agent_and_ends_all_the_same(
    session: Session,
) -> None:
    session.process()
    session.node.tick()
    pid = session.process(marked=False, on_slice=True, uid=NOBODY)
    session.stop()
    session.end(session.started[0].pid)
    session.node.tick()
    session.node.restart()
    session.node.tick()
    assert str(pid) in session.quarantined
    session.node.restart()
    session.end(pid)
    session.node.tick(2)
    assert session.state == "released"
    assert session.quarantined == ""


def test_a_quarantine_by_hand_is_not_taken_back(session: Session) -> None:
    pid = session.process(on_slice=True)
    session.node.tick()
    session.node.broker.slices.quarantine(session.lease.slice_id, "the fan is loud", "root")
    session.stop()
    session.put(os.getpid())
    session.node.tick()
    pass_by(session, KILL_AFTER + STUCK_SECONDS)
    assert session.ended_by(pid)
    pass_by(session, KILL_AFTER + STUCK_SECONDS)
    session.leave(os.getpid())
    session.node.tick(2)
    assert session.state == "released"
    assert session.quarantined == "the fan is loud"


def test_this_service_never_ends_itself(session: Session) -> None:
    session.process()
    session.node.tick()
    session.put(os.getpid())
    session.stop()
    pass_by(session, TERMINATE_AFTER)
    pass_by(session, TERMINATE_AFTER)
    assert f"process {os.getpid()} (" in session.quarantined
    assert "is this service itself" in session.quarantined
    assert "kill -9" not in session.quarantined


def test_what_may_not_be_ended_is_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    pid = session.process(on_slice=True)
    session.node.tick()
    session.stop()
    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    monkeypatch.setattr(os, "kill", refuse)
    session.node.tick()
    session.node.seconds += TERMINATE_AFTER
    session.node.tick()
    assert f"process {pid} (" in session.quarantined
    assert "this service is not permitted to end it" in session.quarantined
    assert f"`sudo kill -9 {pid}`" in session.quarantined
    assert session.quarantined.count(f"process {pid} (") == 1
    monkeypatch.undo()
    session.node.tick()
    assert session.ended_by(pid) in (signal.SIGTERM, signal.SIGKILL)
    session.node.tick()
    assert (session.state, session.quarantined) == ("released", "")


def test_what_runs_on_after_it_was_killed_is_named(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that hangs in the driver."""
    pid = session.process(on_slice=True)
    session.node.tick()
    session.stop()
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    session.node.tick()
    session.node.seconds += KILL_AFTER
    session.node.tick()
    assert session.quarantined == ""
    session.node.seconds += STUCK_SECONDS
    session.node.tick()
    assert session.quarantined.count(f"process {pid} (") == 1
    assert f"`sudo kill -9 {pid}`" in session.quarantined


def test_what_has_dropped_its_mark_and_runs_on_is_named_once(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.process()
    pid = session.process(marked=False, on_slice=True)
    session.node.tick()
    session.end(session.started[0].pid)
    session.stop()
    session.node.tick()
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)
    session.node.seconds += KILL_AFTER + STUCK_SECONDS
    session.node.tick(2)
    assert session.quarantined.count(f"process {pid} (") == 1
    assert f"`sudo kill -9 {pid}`" in session.quarantined


class Forgetful:
    """A process of a session that drops its mark and leaves its parent, when told to."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", FORGETS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"MIGSPAWNER_ATTEMPT": session.lease.attempt},
        )
        session.started.append(self._process)
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def forget(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self._process.stdout.readline()
        assert Path(f"/proc/{self.pid}/environ").read_bytes() == b""


@pytest.mark.parametrize("restarted", [False, True])
def test_a_process_that_once_carried_the_mark_is_known_for_ever(
    session: Session, restarted: bool
) -> None:
    forgetful = Forgetful(session)
    session.node.tick(2)
    forgetful.forget()
    if restarted:
        session.node.restart()
    session.stop()
    session.node.tick()
    assert session.state == "releasing"
    assert session.waiting_for == (
        f"processes of the ended server are still running: pid {forgetful.pid}"
    )
    pass_by(session, TERMINATE_AFTER)
    assert session.ended_by(forgetful.pid) == signal.SIGTERM
    session.node.tick()
    assert session.state == "released"


def test_the_hub_knows_what_the_agent_has_seen(session: Session) -> None:
    """The hub looks once right after a stop, with a memory of its own that is empty."""
    forgetful = Forgetful(session)
    session.node.tick(2)
    forgetful.forget()
    session.stop()
    vacancy = Vacancy(session.node.broker, session.node.nvml, node="n1", proc=PROC)
    lease = session.node.broker.leases.get(session.lease.id)
    assert vacancy.look(lease).state == "releasing"
    assert session.lives(forgetful.pid)
    session.end(forgetful.pid)
    assert vacancy.look(lease).state == "released"


def test_numbers_of_before_a_restart_of_the_machine_are_nobodys(session: Session) -> None:
    pid = session.process(marked=False)
    row = session.node.broker.processes.of_node("n1").get(session.lease.id)
    assert row is None
    session.process()
    session.node.tick(2)
    row = session.node.broker.processes.of_node("n1")[session.lease.id]
    known = ((pid, since_boot(pid)),)
    session.node.broker.processes.note([type(row)(row.lease_id, row.uid, "another boot", known)])
    session.node.restart()
    session.end(session.started[1].pid)
    session.stop()
    session.prove()
    assert session.lives(pid)


def test_children_of_what_was_marked_are_known_when_they_are_orphans(session: Session) -> None:
    code = (
        "import subprocess, sys, os\n"
        "child = subprocess.Popen(['sleep', '600'], env={}, start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"MIGSPAWNER_ATTEMPT": session.lease.attempt, "PATH": os.environ["PATH"]},
    )
    session.started.append(parent)
    assert parent.stdout is not None
    child = Process(pid := int(parent.stdout.readline()), since_boot(pid))
    try:
        session.node.tick(2)
        session.node.restart()
        session.end(parent.pid)
        session.stop()
        session.node.tick()
        assert session.waiting_for.endswith(f": pid {pid}")
    finally:
        child.signal(signal.SIGKILL)


def test_where_seats_are_shared_only_what_is_proven_is_ended(open_session: Opened) -> None:
    session = open_session("course")
    marked = session.process(on_slice=True)
    session.node.tick()
    unmarked = session.process(marked=False, on_slice=True)
    session.stop()
    session.node.tick()
    pass_by(session, KILL_AFTER)
    assert session.ended_by(marked) == signal.SIGKILL
    pass_by(session, STUCK_SECONDS)
    assert session.lives(unmarked)
    assert session.state == "releasing"
    assert f"process {unmarked} (" in session.quarantined
    session.end(unmarked)
    session.node.tick()
    assert (session.state, session.quarantined) == ("released", "")


def test_a_seat_that_is_empty_again_lets_others_in_though_neighbours_stay(
    open_session: Opened,
) -> None:
    session, neighbour = open_session("course"), open_session("course", "grace")
    theirs = neighbour.process(on_slice=True)
    session.process()
    session.node.tick()
    unmarked = session.process(marked=False, on_slice=True)
    session.stop()
    session.end(session.started[0].pid)
    session.node.tick()
    pass_by(session, KILL_AFTER + STUCK_SECONDS)
    assert f"process {unmarked} (" in session.quarantined
    session.node.restart()
    session.end(unmarked)
    session.node.tick(2)
    assert session.state == "released"
    assert session.quarantined == ""
    assert neighbour.lives(theirs)
    assert neighbour.state == "active"


def test_another_sessions_process_on_the_slice_is_not_ended(open_session: Opened) -> None:
    session, other = open_session(), open_session(user="grace")
    session.process()
    pid = other.process()
    session.node.tick()
    session.put(pid)
    session.stop()
    session.end(session.started[0].pid)
    session.node.tick()
    pass_by(session, KILL_AFTER + STUCK_SECONDS)
    assert other.lives(pid)
    assert session.state == "releasing"
    assert f"of lease {other.lease.id}, which continues" in session.quarantined
    session.leave(pid)
    session.node.tick()
    assert (session.state, session.quarantined) == ("released", "")
    assert other.state == "active"


def test_a_program_whose_first_thread_has_ended_still_holds_its_slice(session: Session) -> None:
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=lambda: (print(flush=True), time.sleep(600))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", code],
        stdout=subprocess.PIPE,
        env={"MIGSPAWNER_ATTEMPT": session.lease.attempt},
    )
    session.started.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    while b"\nState:\tZ" not in Path(f"/proc/{process.pid}/status").read_bytes():
        os.sched_yield()
    session.stop()
    session.node.tick()
    assert session.waiting_for.endswith(f"still running: pid {process.pid}")
    process.kill()
    # Nobody has asked how it ended: it is a zombie, and holds nothing any more.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    session.node.tick()
    assert session.state == "released"


def test_a_slice_that_was_made_anew_is_found_by_its_place(session: Session) -> None:
    session.process()
    session.node.tick()
    session.stop()
    session.end(session.started[0].pid)
    card = session.node.nvml.card(session.lease.card_uuid)
    place = (session.lease.profile, session.lease.start)
    (old,) = [each for each in card.instances if (each.profile, each.start) == place]
    session.node.nvml.destroy_instance(card.uuid, old.gi_id)
    new = session.node.nvml.create_instance(card.uuid, *place)
    vacancy = Vacancy(session.node.broker, session.node.nvml, node="n1", proc=PROC)
    lease = session.node.broker.leases.get(session.lease.id)
    if new.uuid != old.uuid:
        pid = session.process(marked=False)
        simulator.add_process(session.node.path, str(new.uuid), pid)
        assert vacancy.look(lease).state == "releasing"
        session.end(pid)
    assert vacancy.look(lease).state == "released"
