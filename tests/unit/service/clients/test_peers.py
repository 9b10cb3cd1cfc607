"""Who gets a token: the server and the hub that it belongs to, and no other local user."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jupyterhub_migspawner.clients import WrongPeer
from jupyterhub_migspawner.service.clients.alarms import Alarms
from jupyterhub_migspawner.service.clients.hub import HubApi, HubAway
from jupyterhub_migspawner.service.clients.notebooks import Notebooks, NotSaid
from jupyterhub_migspawner.service.clients.peers import ServerCheck
from jupyterhub_migspawner.service.clients.tokens import Reach
from jupyterhub_migspawner.service.http.auth import CheckedHubOAuth
from tests.unit.service.conftest import World
from tests.unit.strangers import STRANGER, as_stranger, needs_root

TOKEN = "the-servers-own-token"

SERVER = """
import socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    connection.settimeout(5)
    try:
        heard = connection.recv(65536)
        # As Jupyter Server without this package's extension.
        missing = b"migspawner" in heard.partition(b"\\r\\n")[0]
        status = b"404 Not Found" if missing else b"200 OK"
        connection.sendall(b"HTTP/1.0 " + status + b"\\r\\nContent-Length: 2\\r\\n\\r\\n[]")
    except OSError:
        heard = b""
    print(repr(heard), flush=True)
    connection.close()
"""

WAITING = """
import socket, sys
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""


async def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return await asyncio.get_running_loop().run_in_executor(None, process.stdout.readline)


@asynccontextmanager
async def session(attempt: str, user: int | None = None) -> AsyncIterator[tuple[int, object]]:
    """A session's server: its port, and its process."""
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", SERVER, "0"],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=user,
        env={"MIGSPAWNER_ATTEMPT": attempt},
    )
    try:
        yield int(await line(process)), process
    finally:
        process.kill()
        process.communicate()


def reach(port: int, attempt: str, user: str = "ada") -> Reach:
    return Reach(f"http://127.0.0.1:{port}/", TOKEN, user=user, attempt=attempt, lease_id=1)


async def test_a_session_is_asked_and_whoever_takes_its_port_is_not() -> None:
    """As anybody can on a machine where all servers are one user's."""
    alarms: list[WrongPeer] = []
    notebooks = Notebooks(wrong_peer=lambda reach, error: alarms.append(error))
    async with session("ada's attempt") as (port, _):
        said = await notebooks.runs(reach(port, "ada's attempt"))
        assert said.words == "0 kernels, 0 busy"
    other = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)],
        stdout=subprocess.PIPE,
        text=True,
        env={"MIGSPAWNER_ATTEMPT": "another attempt"},
    )
    await line(other)
    with pytest.raises(NotSaid, match="a process of another session"):
        await notebooks.runs(reach(port, "ada's attempt"))
    assert TOKEN not in await line(other)
    other.kill()
    other.communicate()
    assert [each.uid for each in alarms] == [None]
    notebooks.close()


@needs_root
@pytest.mark.parametrize("code", [SERVER, WAITING], ids=["accepts", "lets it wait"])
async def test_another_user_at_a_dead_servers_port_gets_no_token(code: str) -> None:
    alarms: list[WrongPeer] = []
    notebooks = Notebooks(wrong_peer=lambda reach, error: alarms.append(error))
    async with session("ada's attempt") as (port, _):
        await notebooks.runs(reach(port, "ada's attempt"))
    with as_stranger(code, str(port)) as stranger:
        await line(stranger)
        with pytest.raises(NotSaid, match=f"taken by a process of uid {STRANGER}"):
            await notebooks.runs(reach(port, "ada's attempt"))
        if code is SERVER:
            assert await line(stranger) == "b''\n"
        assert [each.uid for each in alarms] == [STRANGER]
        assert alarms[0].pids == {stranger.pid}
    notebooks.close()


@needs_root
async def test_a_session_of_another_system_user_is_known_by_what_it_carries() -> None:
    notebooks = Notebooks()
    async with session("ada's attempt", user=STRANGER) as (port, _):
        assert (await notebooks.runs(reach(port, "ada's attempt"))).words == "0 kernels, 0 busy"
        with pytest.raises(NotSaid, match="taken by a process"):
            await notebooks.runs(reach(port, "grace's attempt", "grace"))
    notebooks.close()


@needs_root
async def test_a_server_is_known_by_its_users_account_where_it_carries_nothing() -> None:
    """Such as one whose environment cannot be read."""
    import pwd

    account = pwd.getpwuid(65534)
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", SERVER, "0"],
        stdout=subprocess.PIPE, text=True, cwd="/", user=65534, env={},
    )  # fmt: skip
    port = int(await line(process))
    notebooks = Notebooks()
    assert (await notebooks.runs(reach(port, "x", account.pw_name))).words == "0 kernels, 0 busy"
    with pytest.raises(NotSaid, match=f"user '{account.pw_name}'"):
        await notebooks.runs(reach(port, "x", "ada"))
    process.kill()
    process.communicate()
    notebooks.close()


def test_without_certificates_a_server_elsewhere_is_sent_nothing() -> None:
    class Elsewhere(socket.socket):
        """A connection to another machine, which a test cannot open."""

        def getpeername(self) -> tuple[str, int]:
            return ("192.0.2.7", 8888)

    with Elsewhere() as far, pytest.raises(WrongPeer, match="internal_ssl"):
        ServerCheck().of("ada", "x")(far)


@needs_root
async def test_another_user_at_the_hubs_port_gets_no_token(world: World) -> None:
    alarms = Alarms(world.parts, "node1")
    with as_stranger(SERVER, "0") as stranger:
        url = f"http://127.0.0.1:{int(await line(stranger))}/hub/api"
        hub = HubApi(url, "the-services-token")
        hub.stranger = alarms.at_hub
        for _ in range(2):
            with pytest.raises(HubAway, match=f"uid {STRANGER}"):
                await hub.servers()
            assert await line(stranger) == "b''\n"
        auth = CheckedHubOAuth(
            api_url=url, api_token="the-services-token", base_url="/", oauth_client_id="service-x"
        )
        auth.stranger = alarms.at_hub
        with pytest.raises(Exception, match="does not answer"):
            await auth.user_for_token("a-visitors-token", sync=False)
        # It was connected to, and by that connection known before anything was sent.
        assert await line(stranger) == "b''\n"
        world.parts.database.shutdown(wait=True)
        (event,) = [
            each for each in world.broker.events.find(limit=100) if each.kind == "node.port-taken"
        ]
        assert event.detail is not None
        assert event.detail["uid"] == STRANGER
        assert event.detail["pids"] == [stranger.pid]
        assert "REST API" in event.detail["why"]


def test_an_alarm_is_raised_once_an_hour(world: World, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    alarms = Alarms(world.parts, "node1", monotonic=lambda: now[0])
    error = WrongPeer("the port of its server is taken by a process of uid 7", 7)
    for _ in range(5):
        alarms.at_server(reach(1, "x"), error)
    assert caplog.text.count("Nothing was sent to it") == 1
    alarms.at_server(reach(2, "x"), error)
    now[0] += 3601
    alarms.at_server(reach(1, "x"), error)
    assert caplog.text.count("Nothing was sent to it") == 3
    alarms.at_server(reach(1, "x"), WrongPeer("nobody else's"))
    world.parts.database.shutdown(wait=True)
    kinds = [each.kind for each in world.broker.events.find(limit=100)]
    assert kinds.count("node.port-taken") == 3
