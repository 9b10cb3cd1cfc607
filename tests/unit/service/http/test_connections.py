"""The web server's connections: half-sent requests, other users, unread answers, no descriptors."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application, RequestHandler

from jupyterhub_migspawner.service.http import connections
from jupyterhub_migspawner.service.http.connections import Connections, connection_limit
from tests.unit.strangers import STRANGER, as_stranger, needs_root

HALF = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nhalf"

CONNECT = """
import socket, sys
kept = []
for number in range(int(sys.argv[2])):
    each = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    try:
        each.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        answer = each.recv(100)
    except OSError:
        answer = b""
    kept.append(each)
    print("answered" if answer.startswith(b"HTTP/1.1 200") else "refused", flush=True)
sys.stdin.read()
"""


class Page(RequestHandler):
    """As long as the query asks for."""

    def get(self) -> None:
        self.write(b"x" * int(self.get_argument("bytes", "1")))

    post = get


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HEADER_SECONDS": 0.4, "BODY_SECONDS": 0.4, "PAUSE_SECONDS": 0.05}.items():
        monkeypatch.setattr(connections, name, value)


_servers: list[Connections] = []


@pytest.fixture
async def listening() -> AsyncIterator[socket.socket]:
    made = socket.create_server(("127.0.0.1", 0))
    yield made
    # Also those of a test that failed: the event loop would go on with them in the next one.
    while _servers:
        _servers.pop().stop()
    made.close()


@pytest.fixture
def descriptors() -> Iterator[int]:
    """This process has few descriptors, for as long as the test lasts."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 40, before[1]))
    yield used
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def get(port: int, query: str = "") -> int:
    answer = await AsyncHTTPClient(force_instance=True).fetch(
        f"http://127.0.0.1:{port}/{query}", raise_error=False, request_timeout=20
    )
    return answer.code


async def half_sent(port: int, number: int) -> list[socket.socket]:
    made = []
    for _ in range(number):
        each = socket.socket()
        each.setblocking(False)
        with suppress(BlockingIOError):
            each.connect(("127.0.0.1", port))
        with suppress(OSError):
            each.send(HALF)
        made.append(each)
        await asyncio.sleep(0)
    return made


def serve(sock: socket.socket, **options: object) -> Connections:
    server = Connections(Application([("/.*", Page)]), **options)
    server.serve([sock])
    _servers.append(server)
    return server


async def test_half_sent_requests_keep_nobody_out(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    server = serve(listening, most=20)
    slow = await half_sent(port, 200)
    assert await get(port) == 200
    assert server.open_connections <= 20
    for each in slow:
        each.close()
    server.stop()


@pytest.mark.usefixtures("limits")
async def test_a_request_that_trickles_in_is_ended(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    server = serve(listening)
    for begin in (b"GET / HT", HALF):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)

        async def trickle(writer: asyncio.StreamWriter = writer) -> None:
            # One byte now and then is no way around the deadline.
            while True:
                await asyncio.sleep(0.05)
                writer.write(b"x")

        trickling = asyncio.ensure_future(trickle())
        with suppress(ConnectionError):
            assert await reader.read() == b""
        trickling.cancel()
        writer.close()
    server.stop()


@pytest.mark.parametrize("left", [0, 1, 2])
async def test_without_descriptors_it_waits_and_goes_on(
    listening: socket.socket,
    descriptors: int,
    limits: None,
    caplog: pytest.LogCaptureFixture,
    left: int,
) -> None:
    port = listening.getsockname()[1]
    server = serve(listening)
    caller = socket.socket()
    held = []
    with suppress(OSError):
        while True:  # until this process has none left
            held.append(os.dup(caller.fileno()))
    for _ in range(left):
        os.close(held.pop())
    caller.connect(("127.0.0.1", port))
    caller.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    caller.setblocking(False)
    with caplog.at_level(logging.ERROR):
        await asyncio.sleep(0.5)
    said = [each for each in caplog.records if "No connection can be accepted" in each.message]
    # Not at each turn of the event loop.
    assert len(said) <= 12
    # It takes two to serve a caller: one more is needed to look up who that is.
    assert bool(said) is (left < 2)
    for each in held:
        os.close(each)
    answer = b""
    while b"200 OK" not in answer:
        answer += await asyncio.get_running_loop().sock_recv(caller, 1000)
    caller.close()
    server.stop()


@needs_root
async def test_only_the_hubs_user_gets_in_where_only_its_proxy_calls(
    listening: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    port = listening.getsockname()[1]
    server = serve(listening, callers=())
    with as_stranger(CONNECT, str(port), "2") as stranger:
        assert stranger.stdout is not None
        loop = asyncio.get_running_loop()
        for _ in range(2):
            said = await loop.run_in_executor(None, stranger.stdout.readline)
            assert said.strip() == "refused"
    assert f"uid {STRANGER} is refused" in caplog.text
    assert await get(port) == 200
    server.stop()


@needs_root
async def test_another_local_user_has_a_share_of_the_connections_at_most(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_OF_ONE", 5)
    port = listening.getsockname()[1]
    server = serve(listening, callers=None)
    with as_stranger(CONNECT, str(port), "8") as stranger:
        assert stranger.stdout is not None
        loop = asyncio.get_running_loop()
        for _ in range(8):
            await loop.run_in_executor(None, stranger.stdout.readline)
            theirs = [each for each in server._open.values() if each.uid == STRANGER]
            assert len(theirs) <= 5
        assert await get(port) == 200
    server.stop()


async def test_who_does_not_read_the_answer_is_let_go(listening: socket.socket) -> None:
    now = [0.0]
    server = serve(listening, clock=lambda: now[0])
    port = listening.getsockname()[1]
    # More than the kernel keeps for a client that does not read.
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.connect(("127.0.0.1", port))
    caller.sendall(b"GET /?bytes=30000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    while server.open_connections != 1 or not all(
        each.stream.writing() for each in server._open.values()
    ):
        await asyncio.sleep(0.01)
    server.end_unread()
    assert server.open_connections == 1
    now[0] += connections.ANSWER_SECONDS + 1
    server.end_unread()
    assert server.open_connections == 0
    caller.close()
    server.stop()


async def test_slow_callers_of_a_proxy_keep_no_other_caller_of_it_out(
    listening: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All people come as one user where a proxy of another user calls."""
    monkeypatch.setattr(connections, "MOST_OF_ONE", 5)
    monkeypatch.setattr(connections, "uid_of", lambda connection: STRANGER)
    server = serve(listening, callers=None)
    port = listening.getsockname()[1]
    slow = await half_sent(port, 20)
    assert await get(port) == 200
    assert server.open_connections <= 5
    for each in slow:
        each.close()


async def unread(port: int, number: int, size: int) -> list[socket.socket]:
    """Callers that ask for so many bytes and read none."""
    loop, made = asyncio.get_running_loop(), []
    for _ in range(number):
        caller = socket.socket()
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.setblocking(False)
        await loop.sock_connect(caller, ("127.0.0.1", port))
        await loop.sock_sendall(caller, b"GET /?bytes=%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
        made.append(caller)
    return made


async def test_answers_that_nobody_reads_take_a_bounded_memory(listening: socket.socket) -> None:
    server = serve(listening)
    port = listening.getsockname()[1]
    waiting = await unread(port, 10, 16 * 1024 * 1024)
    # The last to come is served, and those who have kept it waiting longest make room.
    assert await get(port, "?bytes=1000000") == 200
    kept = sum(len(each.stream._write_buffer) for each in server._open.values())
    assert 0 < kept <= connections.MOST_UNREAD
    for each in waiting:
        each.close()
    server.stop()


async def test_a_body_is_bounded_before_it_is_known_whose_it_is(listening: socket.socket) -> None:
    serve(listening)
    port = listening.getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    answer = await reader.read()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_proxy_reads_an_answer_after_which_the_unix_socket_ends(tmp_path: Path) -> None:
    """Node.js writes once more, nothing, after the request; see ``_LingeringStream``."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(tmp_path / "web"))
    made.listen()
    server = serve(made)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as proxy:
        proxy.setblocking(False)
        await loop.sock_connect(proxy, str(tmp_path / "web"))
        proxy.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while more := await loop.sock_recv(proxy, 1000):
            answer += more
        assert b"200 OK" in answer
        # A socket that is closed would refuse even nothing.
        assert proxy.send(b"") == 0
    server.stop()


def test_the_connections_fit_into_what_may_be_open() -> None:
    assert connection_limit(65536) == connections.MOST_OPEN
    assert connection_limit(256) == 256 - connections.OTHER_FILES
    assert connection_limit(64) == 16
