"""Nobody stops a node by what their process shows as its environment."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jupyterhub_migspawner.agent import processes
from jupyterhub_migspawner.agent.deadlines import MOST_LATE, PAUSE_SECONDS, Deadlines, Late
from jupyterhub_migspawner.agent.orphans import read_marks
from jupyterhub_migspawner.agent.processes import LONGEST_ENVIRONMENT, Unreadable, mark_of
from tests.unit.agent.conftest import Node, NodeMaker
from tests.unit.agent.test_unknown_processes import MARK, shown

#: Points its environment at so many terabytes of zeros, which needs no privilege.
ENDLESS = """
    import ctypes, os, sys
    if not os.geteuid():
        os.setuid(64_322)  # not to be in doubt for sessions of other tests, which run as root
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.sbrk.restype = ctypes.c_void_p
    size = 16 << 40
    start = libc.mmap(None, size, 1, 0x4022, -1, 0)  # private, anonymous, not reserved
    words = open("/proc/self/stat").read().rpartition(")")[2].split()
    at = lambda number: int(words[number - 3])
    values = [at(26), at(27), at(45), at(46), at(47), libc.sbrk(0), at(28), at(48), at(49)]
    map = (ctypes.c_uint64 * 13)(*values, start, start + size, 0, 0xFFFFFFFF << 32)
    done = libc.prctl(35, 14, map, ctypes.sizeof(map), 0)  # PR_SET_MM, PR_SET_MM_MAP
    print(done, flush=True)
    sys.stdin.read()
"""

Silent = Callable[[Path], None]


@pytest.fixture
def silent() -> Iterator[Silent]:
    """Make an environment one that is opened and never answers, as on a file system of a user's."""
    made: list[Path] = []

    def make(entry: Path) -> None:
        environ = entry / "environ"
        environ.unlink(missing_ok=True)
        os.mkfifo(environ)
        made.append(environ)

    yield make
    for each in made:
        # Readers that wait for it wait no longer.
        with suppress(OSError):
            os.close(os.open(each, os.O_WRONLY | os.O_NONBLOCK))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "DEADLINES", Deadlines(seconds=0.05))


@pytest.fixture
def node(make_node: NodeMaker) -> Node:
    node = make_node(("1g.5gb",))
    node.tick()
    return node


def test_an_environment_that_never_answers_stops_no_agent(
    node: Node, silent: Silent, impatient: None
) -> None:
    lease = node.lab.start()
    node.broker.leases.activate(lease.attempt)
    node.stop(lease)
    silent(shown(node.proc, 4242))
    node.tick()
    found = node.broker.leases.get(lease.id)
    assert found.state == "releasing"
    assert "process 4242" in found.waiting_for
    assert "takes too long" in found.waiting_for
    assert not node.card().problem
    (entry,) = node.broker.nodes.find()
    assert entry.heartbeat_at == node.lab.clock()


def test_what_never_answers_is_unreadable_to_whoever_looks_for_marks(
    tmp_path: Path, silent: Silent, impatient: None
) -> None:
    silent(shown(tmp_path, 4242))
    assert read_marks(tmp_path).unreadable == {4242}


def test_only_so_many_reads_of_a_users_processes_are_late_in_a_minute() -> None:
    now = [0.0]
    deadlines = Deadlines(seconds=0.01, monotonic=lambda: now[0])
    answers = [threading.Event() for _ in range(MOST_LATE)]
    for each in answers:
        with pytest.raises(Late):
            deadlines.run(each.wait, lambda: 1)
    deadlines.seconds = 60.0
    now[0] += PAUSE_SECONDS
    with pytest.raises(Late):
        deadlines.run(lambda: pytest.fail("those before are not back yet"), lambda: 1)
    assert deadlines.run(lambda: "other users' are read", lambda: 2) == "other users' are read"
    for each in answers:
        each.set()
    found = ""
    while not found:  # until their threads have seen it
        with suppress(Late):
            found = deadlines.run(lambda: "again", lambda: 1)
    assert found == "again"


def test_late_reads_count_for_a_while_after_they_came_back() -> None:
    now, answer = [0.0], threading.Event()
    deadlines = Deadlines(seconds=0.01, monotonic=lambda: now[0])
    for _ in range(MOST_LATE):
        with pytest.raises(Late):
            deadlines.run(answer.wait, lambda: 1)
    answer.set()
    deadlines.seconds = 60.0
    with pytest.raises(Late):
        deadlines.run(lambda: None, lambda: 1)


def test_a_read_that_fails_fails_for_whoever_asked() -> None:
    def fail() -> None:
        raise Unreadable(Path("/proc/1/environ"), OSError(5, "Input/output error"))

    with pytest.raises(Unreadable, match="Input/output error"):
        Deadlines(seconds=60.0).run(fail, lambda: 1)


def test_an_environment_that_is_too_long_proves_nothing(tmp_path: Path) -> None:
    entry = shown(tmp_path, 4242, b"A" * (LONGEST_ENVIRONMENT + 1))
    with pytest.raises(Unreadable, match="longer than any program's"):
        mark_of(entry)
    assert read_marks(tmp_path).unreadable == {4242}
    marked = shown(tmp_path, 4243, f"{MARK}a\0".encode() + b"A" * (LONGEST_ENVIRONMENT + 1))
    assert mark_of(marked) == "a"


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_void_p) != 8, reason="needs the room of 64 bits")
def test_a_process_with_terabytes_of_environment_is_not_read_to_the_end() -> None:
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", textwrap.dedent(ENDLESS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        if child.stdout.readline() != b"0\n":
            pytest.skip("this kernel lets no process move its environment")
        with pytest.raises(Unreadable):
            mark_of(Path(f"/proc/{child.pid}"))
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
