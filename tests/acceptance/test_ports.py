"""A hub among other local users: they take no port, get no token and keep nobody out."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.hubs import Hub
from tests.unit.strangers import as_stranger, needs_root

EXTRA = """
c.MigBroker.tick_seconds = 0.2
c.MigBroker.examine_seconds = 0.5
c.MigBroker.tiers += [{"name": "idle", "profile": "1g.5gb", "idle_minutes": 60}]
c.Spawner.poll_interval = 600
"""

#: Takes a port as soon as it can, for a while, and prints what it then hears.
TAKE = """
import socket, sys, time
until = time.monotonic() + float(sys.argv[2])
print("ready", flush=True)
while time.monotonic() < until:
    try:
        taken = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        time.sleep(0.002)
        continue
    print("taken", flush=True)
    taken.settimeout(0.5)
    while time.monotonic() < until:
        try:
            connection, _ = taken.accept()
            connection.settimeout(2)
            print(connection.recv(65536), flush=True)
            connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n[]")
            connection.close()
        except OSError:
            continue
print("done", flush=True)
"""

#: Opens connections, sends half a request on each, and keeps them.
FLOOD = """
import resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
kept = []
for number in range(int(sys.argv[2])):
    each = socket.socket()
    each.setblocking(False)
    try:
        each.connect(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        pass
    kept.append(each)
for again in range(3):
    for each in kept:
        try:
            each.send(b"POST /services/migspawner/ HTTP/1.1\\r\\nHost: x\\r\\n")
        except OSError:
            pass
print("sent", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    made = Hub(tmp_path_factory.mktemp("ports"), layouts=[["1g.5gb"] * 3], extra=EXTRA)
    try:
        made.start()
        made.api("POST", "users/ada")
        yield made
    finally:
        made.stop()
        made.end_everything()


def service_pid(hub: Hub) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"jupyterhub_migspawner.service" in words and str(hub.config).encode() in words:
                return int(entry.name)
    return 0


def service_port(hub: Hub) -> str:
    line = next(x for x in reversed(hub.log().splitlines()) if "The GPU service listens on" in x)
    return line.rpartition(" ")[2].rstrip(".")


def answers(hub: Hub, token: str) -> bool:
    return hub.service("GET", "tiers", token=token)[0] == 200


@needs_root
def test_half_sent_requests_keep_neither_people_nor_the_node_out(hub: Hub) -> None:
    token = hub.token_of("ada")
    size = len(hub.log())
    with as_stranger(FLOOD, service_port(hub), "2000") as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "sent\n"
        seen = hub.broker().nodes.find()[0].heartbeat_at
        assert answers(hub, token)
        hub.until(lambda: hub.broker().nodes.find()[0].heartbeat_at > seen)
        assert answers(hub, token)
    assert len(hub.log()) - size < 1_000_000


@needs_root
def test_a_killed_service_is_back_and_its_port_was_never_free(hub: Hub) -> None:
    """At the hub's default pace, which would take it half a minute."""
    token = hub.token_of("ada")
    before = service_pid(hub)
    with as_stranger(TAKE, service_port(hub), "15") as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        os.kill(before, signal.SIGKILL)
        # Sent while there is no service: it waits for the next one.
        assert answers(hub, token)
        assert service_pid(hub) not in (0, before)
        assert stranger.stdout.readline() == "done\n"


@needs_root
def test_a_killed_hubs_proxy_leads_nobody_astray(hub: Hub) -> None:
    token = hub.token_of("ada")
    with as_stranger(TAKE, service_port(hub), "20") as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        hub.kill()
        hub.until(lambda: not service_pid(hub))
        # The proxy lives on, and the port is anybody's now.
        for _ in range(3):
            assert hub.service("GET", "tiers", token=token)[0] == 503
        heard = stranger.stdout.read()
        assert token not in heard
        assert "HTTP" not in heard
    hub.start()
    hub.until(lambda: answers(hub, token))


@needs_root
def test_a_dead_servers_port_gets_no_token_and_admins_hear_of_it(hub: Hub) -> None:
    assert hub.api("POST", "users/ada/server", {"tier": "idle"})[0] == 201
    (lease,) = [each for each in hub.rows() if each.state == "active"]
    found = hub.api("GET", "users/ada")[1]["servers"][""]
    from tests.processes import marked_processes

    # bubblewrap's own process, and the server.
    pids = [each.pid for each in marked_processes()[lease.attempt]]
    from jupyterhub_migspawner import sockets

    ports = {
        port
        for port in range(1024, 65536)
        if (owner := sockets.listener_of("127.0.0.1", port)) and sockets.holders(owner.inode, pids)
    }
    (port,) = ports
    assert found["ready"]
    with as_stranger(TAKE, str(port), "60") as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        for each in marked_processes()[lease.attempt]:
            os.kill(each.pid, signal.SIGKILL)
        assert stranger.stdout.readline() == "taken\n"
        done = threading.Event()
        heard: list[str] = []

        def listen() -> None:
            assert stranger.stdout is not None
            heard.extend(stranger.stdout)
            done.set()

        threading.Thread(target=listen, daemon=True).start()
        hub.until(lambda: "node.port-taken" in hub.kinds())
        assert done.wait(120)
    # Connections are opened, to see who answers; nothing is sent.
    assert not [each for each in heard if "token" in each.lower() or "HTTP" in each]
    hub.until(lambda: "taken by a process of uid" in hub.log())
