"""What cannot be read of a process is unknown, and what is unknown releases nothing."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from jupyterhub_migspawner.agent import environments
from jupyterhub_migspawner.agent.environments import Environments
from jupyterhub_migspawner.agent.processes import (
    Environment,
    Process,
    Unreadable,
    is_alive,
    mark_of,
    parent_of,
    read_facts,
    start_time,
    uids_of,
)
from jupyterhub_migspawner.agent.snapshot import (
    belongs_to,
    family_processes,
    marked_processes,
    scan,
)
from jupyterhub_migspawner.agent.vacancy import KILL_AFTER, STUCK_SECONDS, Vacancy
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.broker.test_queue import held, join, offer
from tests.unit.agent.conftest import Node, NodeMaker

MARK = "MIGSPAWNER_ATTEMPT="


@contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open("/", os.O_RDONLY)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def shown(
    proc: Path,
    pid: int,
    environ: bytes | None = b"A=1\0",
    *,
    parent: int = 1,
    state: str = "S",
    threads: int = 1,
    flags: int = 0,
    size: tuple[int, int] | None = None,
) -> Path:
    """A process as /proc reports it; ``size`` is where the kernel has its environment."""
    entry = proc / str(pid)
    entry.mkdir(parents=True, exist_ok=True)
    fields = ["0"] * 50
    fields[0], fields[1], fields[6], fields[17] = state, str(parent), str(flags), str(threads)
    fields[19] = str(pid)
    if size is not None:
        fields[47], fields[48] = map(str, size)
    (entry / "stat").write_text(f"{pid} (py) thon) {' '.join(fields)}")
    if environ is not None:
        (entry / "environ").write_bytes(environ)
    return entry


def broken(path: Path) -> None:
    """Make a file one whose reading fails, and not because it is not there."""
    path.unlink(missing_ok=True)
    path.symlink_to(path)


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    node = make_node(("1g.5gb",))
    node.tick()
    return node


@pytest.fixture
def ended(node: Node) -> LeaseRow:
    """A lease whose server has ended, as the hub says."""
    lease = node.lab.start()
    node.broker.leases.activate(lease.attempt)
    node.stop(lease)
    return lease


def state(node: Node, lease: LeaseRow) -> tuple[str, str]:
    now = node.broker.leases.get(lease.id)
    return now.state, now.waiting_for


# -- what one process shows ----------------------------------------------------------------------


def test_only_what_is_not_there_is_gone(tmp_path: Path) -> None:
    entry = tmp_path / "4242"
    assert (read_facts(entry), start_time(entry), parent_of(entry)) == (None, None, 0)
    assert uids_of(entry) is None
    assert mark_of(entry) == ""
    assert not is_alive(Process(4242, 4242), tmp_path)


@pytest.mark.parametrize("name", ["stat", "environ"])
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str) -> None:
    entry = shown(tmp_path, 4242)
    broken(entry / name)
    with pytest.raises(Unreadable, match="cannot be read"):
        mark_of(entry)


def test_who_owns_a_process_that_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    entry = shown(tmp_path, 4242)
    broken(entry / "status")
    with pytest.raises(Unreadable):
        uids_of(entry)


@pytest.mark.parametrize("text", ["", "4242 (py", "4242 (py) S 1", "4242 (py) S one " + "0 " * 40])
def test_half_a_line_is_no_answer(tmp_path: Path, text: str) -> None:
    entry = shown(tmp_path, 4242)
    (entry / "stat").write_text(text)
    with pytest.raises(Unreadable):
        read_facts(entry)


@pytest.mark.parametrize(
    ("environ", "size", "known"),
    [
        (b"", (0, 0), False),  # just between fork and exec, or at its end
        (b"", (100, 100), True),  # as after `env -i`
        (b"", (100, 140), False),  # there ought to be more
        (b"A=1\0", (100, 140), False),
        (b"A=1\0", (100, 104), True),
        (b"A=1\0", (0, 0), True),  # the kernel does not say where it is
    ],
)
def test_an_environment_that_is_not_all_there_proves_nothing(
    tmp_path: Path, environ: bytes, size: tuple[int, int], known: bool
) -> None:
    entry = shown(tmp_path, 4242, environ, size=size)
    if known:
        assert mark_of(entry) == ""
    else:
        with pytest.raises(Unreadable):
            mark_of(entry)


def test_threads_of_the_kernel_and_zombies_have_none(tmp_path: Path) -> None:
    assert mark_of(shown(tmp_path, 2, b"", size=(0, 0), flags=0x00200000)) == ""
    assert mark_of(shown(tmp_path, 3, b"", size=(0, 0), state="Z")) == ""


def test_a_zombie_shows_the_mark_of_its_living_threads(tmp_path: Path) -> None:
    entry = shown(tmp_path, 4242, b"", size=(0, 0), state="Z", threads=2)
    for thread, environ in ((4242, b""), (4243, f"{MARK}a\0".encode())):
        (entry / "task" / str(thread)).mkdir(parents=True)
        (entry / "task" / str(thread) / "environ").write_bytes(environ)
    assert mark_of(entry) == "a"
    assert is_alive(Process(4242, 4242), tmp_path)
    (entry / "task" / "4243" / "environ").write_bytes(b"")
    with pytest.raises(Unreadable):
        mark_of(entry)


@pytest.mark.parametrize("before", [0, 65_500, 65_519, 65_535, 65_536, 200_000, 3_000_000])
def test_a_mark_is_found_wherever_it_stands(tmp_path: Path, before: int) -> None:
    padding = b"X=" + b"x" * before + b"\0" if before else b""
    environ = b"NOT_" + MARK.encode() + b"b\0" + MARK.encode() + b"\0" + padding
    entry = shown(tmp_path, 4242, environ + f"{MARK}attempt-1\0Z=1\0".encode())
    assert mark_of(entry) == "attempt-1"
    assert mark_of(shown(tmp_path, 4243, environ)) == ""


def test_a_mark_of_any_length_and_bytes_is_read_without_problems(tmp_path: Path) -> None:
    assert len(mark_of(shown(tmp_path, 1, MARK.encode() + b"\xff" * 300_000))) == 256


# -- all of them ---------------------------------------------------------------------------------


def test_what_cannot_be_read_of_one_process_is_said_of_it_alone(tmp_path: Path) -> None:
    shown(tmp_path, 100, f"{MARK}a\0".encode())
    broken(shown(tmp_path, 200, parent=100) / "environ")
    broken(shown(tmp_path, 300) / "environ")
    broken(shown(tmp_path, 400) / "stat")
    found = scan(tmp_path)
    assert sorted(found.unknown) == [300, 400]
    # Whatever its own environment says, it descends from one that is known.
    assert [each.pid for each in found.family("a")] == [100, 200]
    assert [each.pid for each in family_processes(tmp_path)["a"]] == [100, 200]
    with pytest.raises(Unreadable):
        marked_processes(tmp_path)
    with pytest.raises(Unreadable):
        belongs_to(300, tmp_path)


def test_a_mark_that_was_read_is_not_read_again_until_the_program_changes(tmp_path: Path) -> None:
    entry = shown(tmp_path, 100, b"A=1\0", size=(10, 14))
    reader = Environments(tmp_path)
    assert scan(tmp_path, environments=reader).owners == {100: ""}
    broken(entry / "environ")
    reader.begin()
    again = scan(tmp_path, environments=reader)
    assert (again.owners, again.unknown) == ({100: ""}, {})
    shown(tmp_path, 100, None, size=(20, 24))
    assert list(scan(tmp_path, environments=reader).unknown) == [100]


def test_a_process_that_is_remembered_is_not_read_again(tmp_path: Path) -> None:
    broken(shown(tmp_path, 100) / "environ")
    found = scan(tmp_path, {Process(100, 100): "a"})
    assert [each.pid for each in found.family("a")] == [100]
    assert not found.unknown
    # What it itself reports later takes it from nobody.
    for environ in (b"A=1\0", f"{MARK}b\0".encode()):
        (tmp_path / "100" / "environ").unlink()
        (tmp_path / "100" / "environ").write_bytes(environ)
        assert scan(tmp_path, {Process(100, 100): "a"}).owners == {100: "a"}
    broken(tmp_path / "100" / "environ")
    # Another process with that pid is not the one that is known.
    assert list(scan(tmp_path, {Process(100, 99): "a"}).unknown) == [100]


def test_a_scan_during_which_nothing_ended_is_complete(tmp_path: Path) -> None:
    shown(tmp_path, 100, f"{MARK}a\0".encode())
    assert scan(tmp_path).complete
    # One that is gone between the list and the look may have started another.
    (tmp_path / "200").mkdir()
    assert not scan(tmp_path).complete


def test_marked_processes_are_those_that_carry_a_mark(tmp_path: Path) -> None:
    shown(tmp_path, 100, f"{MARK}a\0".encode())
    shown(tmp_path, 200, parent=100)
    shown(tmp_path, 300, f"{MARK}b\0".encode())
    (tmp_path / "400").mkdir()
    found = marked_processes(tmp_path)
    assert found == {"a": [Process(100, 100)], "b": [Process(300, 300)]}
    assert list(family_processes(tmp_path)) == ["a", "b"]


def test_processes_that_cannot_be_listed_are_not_none(tmp_path: Path) -> None:
    for read in (scan, marked_processes, family_processes):
        with pytest.raises(Unreadable):
            read(tmp_path / "nowhere")


# -- the proof -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stat", "environ"])
def test_a_process_that_may_be_the_sessions_keeps_the_slice(
    node: Node, ended: LeaseRow, name: str
) -> None:
    broken(shown(node.proc, 4242) / name)
    node.tick()
    now, why = state(node, ended)
    assert now == "releasing"
    assert "the session of a process cannot be determined: process 4242" in why
    node.tick()
    node.seconds += KILL_AFTER + STUCK_SECONDS
    node.tick()
    (status,) = node.broker.slices.find()
    assert "process 4242" in status.row.quarantined
    shutil.rmtree(node.proc / "4242")
    node.tick()
    assert state(node, ended)[0] == "released"
    node.tick()
    assert set(node.states().values()) == {"free"}


def test_nobody_keeps_a_slice_that_was_only_held_for_a_place_in_the_waiting_list(
    make_node: NodeMaker,
) -> None:
    """No server ran on it, whose process one that cannot be read might be."""
    node = make_node(("1g.5gb",))
    node.tick()
    first = node.lab.start("ada")
    ticket = join(node.lab, "grace", "small")
    node.stop(first)
    node.tick()
    lease = held(offer(node.lab, ticket))
    broken(shown(node.proc, 4242) / "environ")
    node.broker.leases.release(lease.id, "needed", "root")
    node.tick()
    assert state(node, lease) == ("released", "")


def test_a_process_that_is_older_than_the_session_is_none_of_it(make_node: NodeMaker) -> None:
    node = make_node(("1g.5gb",))
    node.tick()
    lease = node.lab.start()
    node.broker.leases.activate(lease.attempt)
    shown(node.proc, 5000, f"{MARK}{lease.attempt}\0".encode())
    node.tick()
    broken(shown(node.proc, 4999) / "environ")
    node.stop(lease)
    shutil.rmtree(node.proc / "5000")
    node.tick()
    assert state(node, lease)[0] == "released"


def test_without_descriptors_nothing_is_proven(make_node: NodeMaker) -> None:
    node = make_node(("1g.5gb",), real_processes=True)
    node.tick()
    lease = node.lab.start()
    node.broker.leases.activate(lease.attempt)
    node.stop(lease)
    node.seconds += 1  # no reading of the cards in this round
    with no_descriptors():
        node.agent.tick()
    now, why = state(node, lease)
    assert now == "releasing"
    assert "the processes of node n1 cannot be read" in why
    assert "Too many open files" in why
    node.tick()
    assert state(node, lease)[0] == "released"


def test_a_process_folder_that_is_away_proves_nothing(node: Node, ended: LeaseRow) -> None:
    hidden = node.proc.rename(node.proc.with_name("away"))
    node.tick()
    assert state(node, ended)[0] == "releasing"
    hidden.rename(node.proc)
    node.tick()
    assert state(node, ended)[0] == "released"


class Listings:
    """Counts how often the processes are listed; ``then`` is called in a listing, by its number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, proc: Path) -> None:
        self.number = 0
        self.then: dict[int, Callable[[], list[str]]] = {}
        real = os.listdir

        def listdir(path: object) -> list[str]:
            names = list(real(path))  # type: ignore[call-overload]
            if path != proc:
                return names
            self.number += 1
            return [*names, *self.then.get(self.number, list)()]

        monkeypatch.setattr(os, "listdir", listdir)


def looked(node: Node, lease: LeaseRow) -> tuple[str, str]:
    """What one look at a lease finds, without the other things that an agent does in a round."""
    Vacancy(node.broker, node.nvml, node="n1", proc=node.proc).look(
        node.broker.leases.get(lease.id)
    )
    return state(node, lease)


def test_one_that_ended_while_it_was_read_may_have_started_another(
    node: Node, ended: LeaseRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = Listings(monkeypatch, node.proc)

    def start_another() -> list[str]:
        shown(node.proc, 4243, f"{MARK}{ended.attempt}\0".encode())
        return ["4242"]  # it was there when the folder was read

    # The folder is listed before that process is made.
    listings.then[1] = start_another
    assert looked(node, ended) == (
        "releasing",
        "processes of the ended server are still running: pid 4243",
    )
    assert listings.number == 2


def test_where_the_second_look_fails_nothing_is_proven(
    node: Node, ended: LeaseRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    listings = Listings(monkeypatch, node.proc)

    def fail() -> list[str]:
        raise OSError(24, "Too many open files")

    listings.then = {1: lambda: ["4242"], 2: fail}
    now, why = looked(node, ended)
    assert now == "releasing"
    assert why == (
        f"the processes of node n1 cannot be read: {node.proc} cannot be read (Too many open files)"
    )


def test_where_the_processes_cannot_be_read_nothing_else_is_said(
    node: Node, ended: LeaseRow
) -> None:
    simulator.add_process(node.path, str(ended.slice_uuid), os.getpid())
    node.proc.rename(node.proc.with_name("away"))
    now, why = looked(node, ended)
    assert now == "releasing"
    assert why.startswith("the processes of node n1 cannot be read")
    assert "NVML" not in why


@pytest.mark.parametrize("found_in", [2, 5, 0])
def test_a_program_that_starts_another_and_ends_again_and_again_is_not_taken_for_gone(
    node: Node, ended: LeaseRow, monkeypatch: pytest.MonkeyPatch, found_in: int
) -> None:
    """Each list of processes names one that is gone by the time it is read, and not the next."""
    real, lists = os.listdir, [0]

    def listdir(path: object) -> list[str]:
        names = list(real(path))  # type: ignore[call-overload]
        if path == node.proc:
            lists[0] += 1
            if lists[0] == found_in:
                shown(node.proc, 9999, f"{MARK}{ended.attempt}\0".encode())
            names.append(str(5000 + lists[0]))
        return names

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", listdir)
        node.tick()
    now, why = state(node, ended)
    assert now == "releasing"
    if found_in:
        assert why == "processes of the ended server are still running: pid 9999"
        shutil.rmtree(node.proc / "9999")
    else:
        assert "faster than they can be read" in why
    node.tick()
    assert state(node, ended)[0] == "released"


def test_one_that_ends_while_its_mark_is_read_may_have_started_another(
    node: Node, ended: LeaseRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = environments.environment_of
    shown(node.proc, 4242)

    def environment_of(entry: Path, names: frozenset[bytes]) -> Environment:
        if entry.name == "4242":
            shutil.rmtree(entry)
            shown(node.proc, 4243, f"{MARK}{ended.attempt}\0".encode())
        return real(entry, names)

    monkeypatch.setattr(environments, "environment_of", environment_of)
    node.seconds += 1  # no reading of the cards in this round
    node.agent.tick()
    assert state(node, ended)[1] == "processes of the ended server are still running: pid 4243"


def test_a_card_that_does_not_answer_proves_nothing_of_its_slices(
    node: Node, ended: LeaseRow
) -> None:
    """A slice that is not found is gone only where its card says so."""
    simulator.lose_card(node.path, ended.card_uuid)
    node.seconds += 1
    node.agent.tick()
    now, why = state(node, ended)
    assert now == "releasing"
    assert why.startswith("NVML cannot say who is on it")


HIDDEN = """
    import ctypes, os, sys
    from pathlib import Path
    from tests.unit.agent.conftest import Node
    import jupyterhub_migspawner.agent.families
    # A user whom no other test runs anything as, also of those beside this one.
    USER = 40_000 + os.getpid() % 20_000
    folder = Path(sys.argv[1])
    node = Node(folder / "node", [("1g.5gb", "1g.5gb")], real_processes=True)
    node.tick()
    leases = [node.lab.start(user) for user in ("ada", "grace")]
    for lease in leases:
        node.broker.leases.activate(lease.attempt)
    for path in folder.rglob("*"):
        path.chmod(0o777)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    ready, go_on = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE, as a key agent does
        os.close(go_on[1])  # or it would outlive a test that fails
        os.write(ready[1], b"x")
        os.read(go_on[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        open(f"/proc/{child}/environ").close()
    except PermissionError:
        pass
    else:
        raise AssertionError("it can be read")
    node.stop(leases[0])
    node.tick()
    found = node.broker.leases.get(leases[0].id)
    why = found.waiting_for
    print(found.state, f"process {child} (" in why, why.count("/environ"))
    os.write(go_on[1], b"x")
    os.waitpid(child, 0)
    node.tick()
    print(node.broker.leases.get(leases[0].id).state)
    node.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_without_root_only_processes_of_the_hubs_own_user_are_in_doubt() -> None:
    """Whose environment nobody but root may read: other users' are none of the sessions'."""
    # Not tmp_path: the folders above it are closed to other users, and other tests need that.
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(HIDDEN), folder],
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["releasing True 1", "released"]
