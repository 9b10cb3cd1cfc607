"""Environments are read in shares: one user's processes make nobody else wait."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.agent import descriptions, orphans, processes
from jupyterhub_migspawner.agent import environments as subject
from jupyterhub_migspawner.agent.environments import Environments, Share
from jupyterhub_migspawner.agent.orphans import MOST_CLAIMS, read_marks
from jupyterhub_migspawner.agent.processes import (
    LONGEST_ENVIRONMENT,
    Environment,
    Facts,
    Process,
    Unread,
    Unreadable,
    environment_of,
    mark_of,
    read_facts,
)
from jupyterhub_migspawner.agent.snapshot import MOST_ANCESTORS, belongs_to, scan
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.processes import ProcessesRow
from tests.unit.agent.conftest import Node, NodeMaker
from tests.unit.agent.test_unknown_processes import MARK, broken, shown

ADA, EVE = 50_001, 50_002


def of(uid: int, entry: Path) -> Path:
    (entry / "status").write_text(f"Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
    return entry


def flood(proc: Path, uid: int, pids: range, place: int = 100, environ: bytes = b"A=1\0") -> None:
    for pid in pids:
        of(uid, shown(proc, pid, environ, size=(place, place + len(environ))))


@pytest.fixture
def node(make_node: NodeMaker, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose agent reads ten processes of a user in a round, twenty of all."""
    few = Share(10, 1 << 20, 20, 4 << 20)
    monkeypatch.setattr(Environments.__init__, "__defaults__", (processes.PROC, few, ()))
    node = make_node(("1g.5gb",))
    node.tick()
    return node


def ended(node: Node, uid: int | None) -> LeaseRow:
    """A lease whose server ran as this user, as far as it is known, and has ended."""
    lease = node.lab.start()
    node.broker.processes.note_server(lease.attempt, ProcessesRow(0, uid, "", ()))
    node.broker.leases.activate(lease.attempt)
    node.stop(lease)
    return lease


def state(node: Node, lease: LeaseRow) -> str:
    return node.broker.leases.get(lease.id).state


# -- shares --------------------------------------------------------------------------------------


def test_a_users_flood_takes_their_own_share_alone(tmp_path: Path) -> None:
    flood(tmp_path, EVE, range(1000, 1050))
    of(ADA, shown(tmp_path, 2000, f"{MARK}a\0".encode(), size=(5, 30)))
    environments = Environments(tmp_path, Share(10, 1 << 20, 100, 1 << 20))
    for place in range(1, 4):
        environments.begin()
        flood(tmp_path, EVE, range(1000, 1050), place)  # each runs another program by now
        found = scan(tmp_path, environments=environments)
        assert [each.pid for each in found.family("a")] == [2000]
        assert len(found.unknown) == 40
        assert all(isinstance(each, Unread) and each.passing for each in found.unknown.values())


def test_what_is_not_reached_comes_in_the_next_rounds(tmp_path: Path) -> None:
    flood(tmp_path, EVE, range(1000, 1025))
    environments = Environments(tmp_path, Share(10, 1 << 20, 100, 1 << 20))
    left = []
    for _ in range(4):
        environments.begin()
        left.append(sorted(scan(tmp_path, environments=environments).unknown))
    assert left == [list(range(1010, 1025)), list(range(1020, 1025)), [], []]


def test_all_users_together_have_a_share_and_take_turns(tmp_path: Path) -> None:
    for uid in range(8):
        flood(tmp_path, EVE + uid, range(1000 + 10 * uid, 1010 + 10 * uid))
    environments = Environments(tmp_path, Share(5, 1 << 20, 10, 1 << 20))
    read: Counter[int] = Counter()
    for _ in range(8):
        environments.begin()
        for pid in range(1000, 1080):  # they all replace themselves
            flood(tmp_path, EVE + (pid - 1000) // 10, range(pid, pid + 1), environments.round)
        unknown = scan(tmp_path, environments=environments, first=[EVE + 7]).unknown
        read.update({(pid - 1000) // 10 for pid in range(1000, 1080) if pid not in unknown})
    # Whose processes decide about a slice is there each time; the others are in turn.
    assert read == {7: 8, 0: 2, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1}


def test_new_users_do_not_pass_one_who_waits(tmp_path: Path) -> None:
    flood(tmp_path, EVE, range(1000, 1020))
    of(ADA, shown(tmp_path, 2000, size=(5, 9)))
    environments = Environments(tmp_path, Share(5, 1 << 20, 5, 1 << 20))
    unknown = []
    for number in range(6):
        environments.begin()
        flood(tmp_path, EVE + 1 + number, range(3000 + 10 * number, 3010 + 10 * number))
        unknown.append(2000 in scan(tmp_path, environments=environments).unknown)
    assert not unknown[-1]


def test_what_was_too_much_is_taken_off_the_next_shares(tmp_path: Path) -> None:
    big = b"A=" + b"x" * 250_000 + b"\0"
    flood(tmp_path, EVE, range(1000, 1004), environ=big)
    environments = Environments(tmp_path, Share(10, 100_000, 100, 1 << 20))
    left = []
    for _ in range(12):
        environments.begin()
        left.append(len(scan(tmp_path, environments=environments).unknown))
    assert left == [3, 3, 2, 2, 2, 1, 1, 0, 0, 0, 0, 0]


def test_what_cannot_be_read_waits_behind_the_others(tmp_path: Path) -> None:
    flood(tmp_path, EVE, range(1000, 1030))
    for pid in range(1000, 1010):
        broken(tmp_path / str(pid) / "environ")
    environments = Environments(tmp_path, Share(10, 1 << 20, 100, 1 << 20))
    for _ in range(3):
        environments.begin()
        found = scan(tmp_path, environments=environments)
    assert sorted(found.unknown) == list(range(1000, 1010))
    assert not any(isinstance(each, Unread) for each in found.unknown.values())


def test_one_with_a_known_parent_is_known_without_being_read(tmp_path: Path) -> None:
    of(ADA, shown(tmp_path, 100, f"{MARK}a\0".encode(), size=(5, 30)))
    for pid in range(200, 260):
        of(ADA, shown(tmp_path, pid, b"A=1\0", size=(5, 9), parent=100))
    environments = Environments(tmp_path, Share(10, 1 << 20, 10, 1 << 20))
    environments.begin()
    found = scan(tmp_path, environments=environments)
    assert len(found.family("a")) == 61
    assert not found.unknown


@given(
    st.lists(
        st.dictionaries(st.integers(1, 24), st.integers(1, 9)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 4),
    st.integers(1, 400),
)
def test_rounds_are_bounded_and_everybody_is_read_in_the_end(
    changes: list[dict[int, int]], most: int, size: int
) -> None:
    """Whatever processes run, each round reads no more than its shares, and nobody starves."""
    share = Share(most, size, 2 * most, 2 * size)
    now: dict[int, int] = {}  # a process's program: its environment has 40 bytes for each
    read: list[int] = []

    def environment_of(entry: Path, names: frozenset[bytes]) -> Environment:
        pid = int(entry.name)
        read.append(pid)
        return Environment(str(now[pid]), {}, (now[pid], 9), 40 * now[pid])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "environment_of", environment_of)
        patch.setattr(subject, "uids_of", lambda entry: frozenset({int(entry.name) % 3}))
        environments = Environments(Path("/nowhere"), share)
        total, by_user = 0, Counter[int]()
        for number in range(len(changes) + 100):
            if number < len(changes):
                now |= changes[number]
            read.clear()
            environments.begin()
            facts = [
                Facts(Process(pid, pid), 1, "x", False, False, 0, (place, 9))
                for pid, place in now.items()
            ]
            found = environments.read(facts, facts)
            assert len(read) <= 2 * most
            assert max(Counter(pid % 3 for pid in read).values(), default=0) <= most
            for pid in read:
                total += 40 * now[pid]
                by_user[pid % 3] += 40 * now[pid]
            # One environment may reach beyond the share; it is paid back.
            assert total <= (number + 1) * share.all_size + 400
            assert max(by_user.values(), default=0) <= (number + 1) * share.size + 400
            assert {pid: e.mark for pid, e in found.known.items()} == {
                pid: str(now[pid]) for pid in found.known
            }
            assert set(found.known) | set(found.unknown) == set(now)
        if size >= 100:
            assert not found.unknown


def test_of_too_many_processes_others_are_left_out_in_each_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "MOST_PIDS", 10)
    flood(tmp_path, EVE, range(1000, 1025))
    environments = Environments(tmp_path)
    seen = set()
    for _ in range(3):
        environments.begin()
        found = scan(tmp_path, environments=environments)
        assert len(found.facts) == 10
        assert len(found.unknown) == 15
        seen |= set(found.facts)
    assert seen == set(range(1000, 1025))


# -- one process ---------------------------------------------------------------------------------


def test_an_environment_without_end_is_not_read_to_it(tmp_path: Path) -> None:
    entry = shown(tmp_path, 4242, size=(100, 100 + (1 << 40)))
    with pytest.raises(Unreadable, match="longer than any program's") as caught:
        mark_of(entry)
    assert caught.value.passing
    assert caught.value.spent == 0
    # Where the kernel does not say how long it is, reading stops there, too.
    entry = shown(tmp_path, 4243, b"")
    with (entry / "environ").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Unreadable, match="longer than any program's") as caught:
        mark_of(entry)
    assert LONGEST_ENVIRONMENT < caught.value.spent <= LONGEST_ENVIRONMENT + (1 << 16)


@pytest.mark.parametrize("name", ["stat", "status", "cgroup"])
def test_no_other_file_of_a_process_is_read_without_end(tmp_path: Path, name: str) -> None:
    entry = shown(tmp_path, 4242)
    with (entry / name).open("wb") as file:
        file.truncate(1 << 40)
    read = {"stat": read_facts, "status": processes.uids_of, "cgroup": processes.control_group}
    with pytest.raises(Unreadable, match="it is longer than"):
        read[name](entry)


@pytest.mark.parametrize("before", [0, 65_500, 65_515, 65_520, 65_535, 200_000])
def test_variables_are_found_wherever_they_stand(tmp_path: Path, before: int) -> None:
    padding = b"X=" + b"x" * before + b"\0"
    environ = padding + b"MIGSPAWNER_START=3\0JUPYTERHUB_USER=ada\0Z=1\0"
    environ += f"{MARK}\0{MARK}a\0JUPYTERHUB_USER=eve\0".encode()
    entry = shown(tmp_path, 4242, environ, size=(5, 5 + len(environ)))
    found = environment_of(entry, frozenset({b"MIGSPAWNER_START", b"JUPYTERHUB_USER"}))
    assert found.mark == "a"
    assert found.variables[b"MIGSPAWNER_START"] == "3"
    assert found.variables[b"JUPYTERHUB_USER"] == "ada"
    assert (found.place, found.spent) == ((5, 5 + len(environ)), len(environ))


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    entry = shown(tmp_path, 1, b"JUPYTERHUB_USER=" + b"x" * 300_000)
    found = environment_of(entry, frozenset({b"JUPYTERHUB_USER"}))
    assert found.variables[b"JUPYTERHUB_USER"] == "x" * 256


def test_a_line_of_descent_has_an_end(tmp_path: Path) -> None:
    for pid in range(2, MOST_ANCESTORS + 10):
        shown(tmp_path, pid, parent=pid - 1)
    assert belongs_to(MOST_ANCESTORS, tmp_path) == ""
    with pytest.raises(Unreadable, match="ancestors"):
        belongs_to(MOST_ANCESTORS + 9, tmp_path)


# -- the proof -----------------------------------------------------------------------------------


def test_another_users_flood_keeps_no_slice(node: Node) -> None:
    lease = ended(node, ADA)
    flood(node.proc, EVE, range(9_000_000, 9_000_100))
    node.tick()
    assert state(node, lease) == "released"


def test_ones_own_flood_keeps_ones_own_slice_until_all_are_read(node: Node) -> None:
    lease = ended(node, ADA)
    flood(node.proc, ADA, range(9_000_000, 9_000_035))
    states = []
    for _ in range(4):
        node.tick()
        states.append(state(node, lease))
    assert states == ["releasing"] * 3 + ["released"]


def test_a_process_of_the_session_is_found_in_its_users_flood(node: Node) -> None:
    lease = ended(node, ADA)
    flood(node.proc, ADA, range(9_000_000, 9_000_035))
    mark = f"{MARK}{lease.attempt}\0".encode()
    flood(node.proc, ADA, range(9_000_034, 9_000_035), environ=mark)
    for _ in range(9):
        node.tick()
        assert state(node, lease) == "releasing"
    assert "pid 9000034" in node.broker.leases.get(lease.id).waiting_for
    shutil.rmtree(node.proc / "9000034")
    node.tick()
    assert state(node, lease) == "released"


def test_a_flood_keeps_no_slice_for_ever_whose_user_is_not_known(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process is read once; that it replaces itself since makes it nobody's of a session."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    lease = ended(node, None)
    states = []
    for place in range(1, 8):
        flood(node.proc, EVE, range(9_000_000, 9_000_035), place)
        node.tick()
        states.append(state(node, lease))
    assert states[:3] == ["releasing"] * 3
    assert states[-1] == "released"


def test_what_began_after_the_end_is_nobodys_whose_user_is_not_known(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    lease = ended(node, None)
    lease = node.broker.leases.get(lease.id)
    assert lease.releasing_at is not None
    for age, then in ((30, "releasing"), (70, "released")):
        ticks = 9_000_000
        boot = lease.releasing_at.timestamp() + age - ticks / processes.TICKS
        (node.proc / "stat").write_text(f"cpu 1\nbtime {int(boot)}\n")
        flood(node.proc, EVE, range(ticks, ticks + 30), age)
        flood(node.proc, EVE + 1, range(ticks + 100, ticks + 130), age)
        node.tick()
        assert state(node, lease) == then


def test_few_of_many_in_doubt_are_described(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    real = descriptions.describe

    def describe(process: Process, proc: Path) -> str:
        told.append(process.pid)
        return real(process, proc)

    monkeypatch.setattr("jupyterhub_migspawner.agent.families.describe", describe)
    lease = ended(node, ADA)
    flood(node.proc, ADA, range(9_000_000, 9_000_100))
    node.tick()
    assert len(told) <= 5
    why = node.broker.leases.get(lease.id).waiting_for
    assert why.startswith(
        "the session of a process cannot be determined: process 9000010 (py?thon, "
    )
    assert "it has not been read yet, because its user has too many new processes" in why
    assert why.endswith("9000010) and 89 more")


# -- marks ---------------------------------------------------------------------------------------


def test_marks_are_read_once_and_in_shares(tmp_path: Path) -> None:
    environ = f"{MARK}a\0MIGSPAWNER_PROFILE=1g.5gb\0".encode()
    of(ADA, shown(tmp_path, 100, environ, size=(5, 5 + len(environ))))
    flood(tmp_path, EVE, range(1000, 1030))
    environments = Environments(tmp_path, Share(10, 1 << 20, 100, 1 << 20), ["MIGSPAWNER_PROFILE"])
    left = []
    for _ in range(3):
        environments.begin()
        marks = read_marks(tmp_path, environments)
        left.append(len(marks.unreadable))
        (found,) = marks.found
        assert (found.attempt, found.profile, found.pids) == ("a", "1g.5gb", (100,))
        broken(tmp_path / "100" / "environ")
    assert left == [20, 10, 0]


def test_a_user_can_claim_only_so_many_servers(tmp_path: Path) -> None:
    for number in range(MOST_CLAIMS + 5):
        of(EVE, shown(tmp_path, 1000 + number, f"{MARK}!{number}\0".encode()))
    of(ADA, shown(tmp_path, 5000, f"{MARK}a\0".encode()))
    marks = read_marks(tmp_path)
    assert len(marks.found) == MOST_CLAIMS + 1
    assert [marks.found[0].attempt, marks.found[-1].attempt] == ["!0", "a"]
    # Nothing is reported of the others, above all not that they are gone.
    assert marks.unreadable == set(range(1000 + MOST_CLAIMS, 1005 + MOST_CLAIMS))


@pytest.mark.parametrize("what", ["stat", "environ"])
def test_marks_that_cannot_be_read_are_no_absence_of_marks(tmp_path: Path, what: str) -> None:
    of(ADA, shown(tmp_path, 100, f"{MARK}a\0".encode()))
    broken(of(EVE, shown(tmp_path, 200)) / what)
    with pytest.raises(GpuError, match="it is not known which slices are in use"):
        read_marks(tmp_path)


def test_without_a_list_of_processes_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(GpuError, match="it is not known which slices are in use"):
        read_marks(tmp_path / "proc")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EAGAIN])
def test_a_process_of_somebody_else_is_named(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of(ADA, shown(tmp_path, 100, f"{MARK}a\0".encode()))
    of(EVE, shown(tmp_path, 200))

    def facts(entry: Path) -> Facts | None:
        if entry.name == "200":
            raise Unreadable(entry / "stat", OSError(code, os.strerror(code)))
        return read_facts(entry)

    monkeypatch.setattr(orphans, "read_facts", facts)
    marks = read_marks(tmp_path)
    assert [each.attempt for each in marks.found] == ["a"]
    assert marks.unreadable == {200}


def test_processes_that_are_not_looked_at_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "MOST_PIDS", 10)
    flood(tmp_path, EVE, range(1000, 1025))
    assert len(read_marks(tmp_path).unreadable) == 15


def test_the_oldest_process_speaks_for_its_server(tmp_path: Path) -> None:
    """What it started may say something else of the slice, but not name more of its processes."""
    of(ADA, shown(tmp_path, 100, f"{MARK}a\0MIGSPAWNER_PROFILE=1g.5gb\0".encode()))
    for pid in range(101, 130):
        of(ADA, shown(tmp_path, pid, f"{MARK}a\0MIGSPAWNER_PROFILE=7g.40gb\0".encode()))
    (found,) = read_marks(tmp_path).found
    assert found.profile == "1g.5gb"
    assert found.pids == tuple(range(100, 100 + orphans.MOST_PIDS))


def test_the_shares_are_what_the_documentation_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "explanation" / "architecture.md"
    text = " ".join(page.read_text(encoding="utf-8").split())
    share = Share()
    assert replace(share) == Share(256, 4 << 20, 1024, 16 << 20)
    assert "256 processes and 4 MiB of each user, 1,024 processes and 16 MiB of all" in text
