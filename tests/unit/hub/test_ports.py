"""The service's sockets: held by the hub, given to its own service, where nobody can take them."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from traitlets.config import Config

from jupyterhub_migspawner.hub import ports as held
from jupyterhub_migspawner.hub.ports import ServicePorts, ask_for_sockets, socket_folder
from jupyterhub_migspawner.hub.wiring import starts_own_proxy
from tests.unit.strangers import STRANGER, as_stranger, needs_root

SERVICE = """
import os, sys
from jupyterhub_migspawner.hub.ports import ask_for_sockets
given = ask_for_sockets(sys.argv[1], os.getppid())
print(" ".join(str(each.getsockname()) for each in given.listening), flush=True)
sys.stdin.read()
"""

TAKE = """
import socket, sys
for host in ("127.0.0.1", "0.0.0.0"):
    for option in (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        taken = socket.socket()
        if option:
            taken.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            taken.bind((host, int(sys.argv[1])))
            taken.listen()
        except OSError:
            continue
        print("taken", flush=True)
try:
    other = socket.socket(socket.AF_UNIX)
    other.connect("\\0" + sys.argv[2])
    if socket.recv_fds(other, 64, 8)[1]:
        print("given", flush=True)
except OSError:
    pass
print("done", flush=True)
"""


def start(ports: ServicePorts) -> subprocess.Popen[str]:
    """A service, as a child of this process."""
    return subprocess.Popen(
        [sys.executable, "-c", SERVICE, ports.asked_at],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def port_of(ports: ServicePorts) -> int:
    return int(ports.url.rpartition(":")[2])


def test_a_service_gets_the_same_sockets_again_and_its_end_is_heard(tmp_path: Path) -> None:
    ports = ServicePorts(tmp_path)
    gone: list[int] = []
    heard = threading.Event()

    def hear(pid: int) -> None:
        gone.append(pid)
        heard.set()

    ports.hand_over(hear)
    said = []
    for _ in range(2):
        service = start(ports)
        assert service.stdout is not None
        said.append(service.stdout.readline())
        heard.clear()
        service.kill()
        service.communicate()
        assert heard.wait(30)
        assert gone[-1] == service.pid
    assert said[0] == said[1]
    assert str(port_of(ports)) in said[0]
    assert str(tmp_path / held.WEB) in said[0]


def test_a_second_hub_of_the_same_configuration_takes_no_socket_away(tmp_path: Path) -> None:
    (tmp_path / f"{held.WEB}-99999999").touch()
    first = ServicePorts(tmp_path)
    code = (
        "import sys, pathlib; from jupyterhub_migspawner.hub.ports import ServicePorts; "
        "ServicePorts(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    path = tmp_path / f"{held.WEB}-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as proxy:
        proxy.connect(str(path))
        assert first.listening[1].accept()
    # What hubs left that have ended goes with the next start.
    ServicePorts.__init__(ServicePorts.__new__(ServicePorts), tmp_path)
    mine = {f"{name}-{os.getpid()}" for name in (held.ASK, held.WEB)}
    assert {each.name for each in tmp_path.iterdir()} == mine


def test_while_there_is_no_service_requests_wait() -> None:
    ports = ServicePorts(None)
    ports.hand_over(lambda pid: None)
    with socket.create_connection(("127.0.0.1", port_of(ports))) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
        waiting.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.recv(1)


def test_when_none_comes_back_they_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "PATIENCE", 0.0)
    ports = ServicePorts(None)
    ports.hand_over(lambda pid: None)
    service = start(ports)
    assert service.stdout is not None
    service.stdout.readline()
    service.kill()
    service.communicate()
    with socket.create_connection(("127.0.0.1", port_of(ports)), timeout=30) as waiting:
        waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
        answer = b""
        while more := waiting.recv(1000):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"Content-Length: {len(body)}".encode() in head


@needs_root
def test_another_user_takes_neither_the_port_nor_what_is_given_to_the_service() -> None:
    ports = ServicePorts(None)
    ports.hand_over(lambda pid: None)
    with as_stranger(TAKE, str(port_of(ports)), ports.asked_at) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "done\n"


def test_only_a_child_of_the_hub_gets_them() -> None:
    ports = ServicePorts(None)
    ports.hand_over(lambda pid: None)
    # This process is no child of its own.
    with pytest.raises(OSError, match="no sockets"):
        ask_for_sockets(ports.asked_at, os.getpid(), patience=0)


def spare_sockets(number: int) -> list[socket.socket]:
    """Sockets that are there before this process has no descriptor left."""
    made = [socket.socket(socket.AF_UNIX) for _ in range(number)]
    for each in made:
        each.settimeout(30)
    return made


@pytest.mark.parametrize("with_folder", [True, False])
def test_a_hub_without_descriptors_goes_on_giving_the_sockets(
    short_path: Path, caplog: pytest.LogCaptureFixture, with_folder: bool
) -> None:
    ports = ServicePorts(short_path if with_folder else None)
    taken, heard = [], threading.Event()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))

    def take_all(pid: int) -> None:
        if heard.is_set():
            return
        # The hub's other threads take whatever is let go of.
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 30, limit[1]))
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        heard.set()

    ports.hand_over(take_all)
    where = ports.asked_at if with_folder else f"\0{ports.asked_at}"
    (caller,) = spare_sockets(1)
    try:
        service = start(ports)
        assert service.stdout is not None
        first = service.stdout.readline()
        service.kill()
        service.communicate()
        assert heard.wait(30)
        caller.connect(where)
        thread = next(each for each in threading.enumerate() if each.name == "migspawner-ports")
        while "Too many open files" not in caplog.text and thread.is_alive():
            time.sleep(0.01)
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        caller.close()
    service = start(ports)
    assert service.stdout is not None
    assert service.stdout.readline() == first
    service.kill()
    service.communicate()
    said = [each for each in caplog.records if "Too many open files" in each.message]
    assert len(said) == 1


def test_a_full_queue_keeps_no_service_from_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may connect can fill the queue of an abstract socket, but not for long."""
    ports = ServicePorts(None)
    callers = []
    with suppress(BlockingIOError):
        while True:
            caller = socket.socket(socket.AF_UNIX)
            caller.setblocking(False)
            callers.append(caller)
            caller.connect(f"\0{ports.asked_at}")
    waits = []

    def sleep(seconds: float) -> None:
        if not waits:
            ports.hand_over(lambda pid: None)
        waits.append(seconds)
        time.sleep(0.01)

    monkeypatch.setattr(held, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    monkeypatch.setattr(held, "_parent", lambda pid: os.getpid())
    given = ask_for_sockets(ports.asked_at, os.getpid())
    assert waits
    assert given.listening[0].getsockname()[1] == port_of(ports)
    for each in (*callers, *given.listening, given.line):
        each.close()


def test_those_who_send_nothing_keep_no_service_from_its_sockets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held, "PATIENCE", 0.0)
    at_it, go_on = threading.Event(), threading.Event()

    def stuck(listening: socket.socket) -> None:
        at_it.set()
        go_on.wait()

    monkeypatch.setattr(held, "_say_away", stuck)
    ports = ServicePorts(None)
    ports.hand_over(lambda pid: None)
    service = start(ports)
    assert service.stdout is not None
    said = service.stdout.readline()
    service.kill()
    service.communicate()
    with socket.create_connection(("127.0.0.1", port_of(ports))):
        assert at_it.wait(30)
        service = start(ports)
        assert service.stdout is not None
        assert service.stdout.readline() == said
        service.kill()
        service.communicate()
        go_on.set()


def test_a_service_believes_no_other_process_than_its_hub() -> None:
    name = f"migspawner-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX) as impostor:
        impostor.bind(f"\0{name}")
        impostor.listen()
        with pytest.raises(OSError, match="another process"):
            ask_for_sockets(name, os.getpid() + 1)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which a unix socket's path fits, however deep the tests' own folders are."""
    with TemporaryDirectory(dir="/tmp") as made:
        yield Path(made)


def test_the_folder_is_this_users_alone_and_found_again(short_path: Path) -> None:
    short_path.chmod(0o755)
    found = socket_folder([short_path], "here")
    assert found is not None
    assert found.stat().st_mode & 0o777 == 0o700
    assert socket_folder([short_path], "here") == found
    assert socket_folder([short_path], "there") != found


def test_no_folder_is_made_where_others_could_replace_it(short_path: Path) -> None:
    for mode in (0o777, 0o1777, 0o775):
        short_path.chmod(mode)
        assert socket_folder([short_path], "here") is None
    short_path.chmod(0o755)
    missing = short_path / "missing"
    assert socket_folder([missing, "relative", short_path / ("long" * 30)], "here") is None
    below = short_path / "open"
    below.mkdir()
    short_path.chmod(0o777)
    assert socket_folder([below], "here") is None
    short_path.chmod(0o755)


@needs_root
def test_a_folder_that_another_user_made_is_not_used(short_path: Path) -> None:
    short_path.chmod(0o755)
    mine = socket_folder([short_path], "here")
    assert mine is not None
    os.chown(mine, STRANGER, STRANGER)
    assert socket_folder([short_path], "here") is None
    mine.rmdir()
    mine.symlink_to("/tmp")
    assert socket_folder([short_path], "here") is None


@pytest.mark.parametrize(
    ("section", "own"),
    [
        ("ConfigurableHTTPProxy", False),
        ("Proxy", False),
        ("TraefikFileProviderProxy", False),
        ("JupyterHub", True),
    ],
)
def test_it_is_known_whether_the_hub_starts_its_proxy(section: str, own: bool) -> None:
    assert starts_own_proxy(Config())
    assert starts_own_proxy(Config({section: {"should_start": False}})) is own
