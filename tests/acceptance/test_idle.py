"""Idle sessions end and working ones never do: a real hub, real Jupyter servers, real kernels.

Minutes are short by configuration; what is tested is who outlives whom.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from jupyterhub_migspawner.agent.vacancy import marked_processes, parent_of
from jupyterhub_migspawner.gpu import simulator
from tests.acceptance.hubs import Hub
from tests.acceptance.test_notebooks_stay import Notebook
from tests.exporters import HEAD, Answer, Site, line, page

EXTRA = """
c.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb", "idle_minutes": 0.6, "extend_hours": 1}]
c.MigBroker.dcgm_url = "{exporter}"
c.MigBroker.examine_seconds = 4
c.MigBroker.tick_seconds = 0.2
c.MigBroker.reconcile_seconds = 1
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/api"
"""

SILENT = "import time\nwhile True: time.sleep(0.5)"
LONG = "import time; time.sleep(3000)"
MEMORY = "weights = bytearray(50_000_000)"


@pytest.fixture(scope="module")
def exporter() -> Iterator[Site]:
    """The node's dcgm-exporter."""
    made = Site()
    yield made
    made.close()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, exporter: Site) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("idle")
    extra = EXTRA.replace("{exporter}", exporter.url)
    hub = Hub(folder, layouts=[["1g.5gb"] * 7] * 2, extra=extra)
    with hub.running():
        yield hub


def kernel_of(notebook: Notebook) -> int:
    """The process of its kernel: a child of the server."""
    mine = marked_processes()[notebook.lease().attempt]
    pids = {each.pid for each in mine}
    (kernel,) = [
        pid
        for pid in pids
        if parent_of(Path(f"/proc/{pid}")) in pids
        and b"ipykernel" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return kernel


def server_of(notebook: Notebook) -> int:
    return parent_of(Path(f"/proc/{kernel_of(notebook)}"))


async def type_into_a_terminal(notebook: Notebook, line: str) -> None:
    status, made = notebook.hub.call("POST", notebook.url("api/terminals"), {}, notebook.token)
    assert status == 200, made
    url = notebook.url(f"terminals/websocket/{made['name']}").replace("http:", "ws:")
    headers = {"Authorization": f"token {notebook.token}"}
    socket = await websocket_connect(HTTPRequest(url, headers=headers))
    await socket.write_message(json.dumps(["stdin", line + "\r"]))
    # What the terminal shows comes back; then it is typed.
    await socket.read_message()


@contextmanager
def left_open(notebook: Notebook) -> Iterator[None]:
    """A page that nobody looks at, and that asks for its lists again and again."""
    over = threading.Event()

    def poll() -> None:
        while not over.wait(0.5):
            for path in ("api/kernels", "api/sessions", "api/terminals", "api/contents"):
                notebook.hub.call("GET", notebook.url(path), None, notebook.token)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def standing(hub: Hub, user: str) -> dict[str, Any] | None:
    found = [each for each in hub.cli("sessions") if each["user"] == user]
    return found[0] if found else None


def ends(hub: Hub, user: str) -> list[dict[str, Any]]:
    """How this person's sessions were ended, as the event log has it."""
    events = hub.cli("events", "--user", user, "--kind", "lease.releasing")
    return [event["detail"] for event in events]


def warned(hub: Hub, user: str) -> bool:
    return bool(hub.cli("events", "--user", user, "--kind", "lease.ending"))


def measured(hub: Hub, used: str = "") -> Answer:
    """An exporter's page on which one slice is at work and no other."""
    slices = [status.row for status in hub.broker().slices()]
    lines = [line(0.8 if row.uuid == used else 0, str(row.gi_id), row.card_uuid) for row in slices]
    return page((HEAD + "".join(lines)).encode())


async def test_who_works_stays_and_who_does_not_is_ended(hub: Hub, exporter: Site) -> None:
    cards = hub.directory / "cards.json"
    exporter.answer = measured(hub)
    working, sockets = {}, []
    # Each begins to work as soon as it runs: the time until it counts as idle is short.
    for name, code in (("silent", SILENT), ("long", LONG)):
        working[name] = Notebook(hub, name)
        sockets.append(await working[name].execute(code))
    working["terminal"] = Notebook(hub, "terminal")
    await type_into_a_terminal(working["terminal"], "python3 -c 'while True: pass' & sleep 3000")
    # One long kernel on the GPU: nothing else of it is seen to work.
    working["gpu"] = Notebook(hub, "gpu")
    exporter.answer = measured(hub, str(working["gpu"].lease().slice_uuid))
    working["hangs"] = Notebook(hub, "hangs")
    stopped = server_of(working["hangs"])
    os.kill(stopped, signal.SIGSTOP)
    idle = {name: Notebook(hub, name) for name in ("opened", "memory", "crashed", "extends")}
    sockets.append(await idle["memory"].execute(MEMORY))
    sockets.append(await idle["crashed"].execute(LONG))
    for notebook in (idle["memory"], working["silent"]):
        uuid, kernel = str(notebook.lease().slice_uuid), kernel_of(notebook)
        simulator.add_process(cards, uuid, kernel, 3000)
    os.kill(kernel_of(idle["crashed"]), signal.SIGKILL)
    try:
        with left_open(idle["opened"]):
            hub.until(lambda: warned(hub, "extends"))
            before = standing(hub, "extends")
            assert before is not None
            token = hub.token_of("extends")
            path = f"sessions/{before['lease']}/extend"
            status, extended = hub.service("POST", path, {}, token)
            assert status == 200, extended
            assert extended["extended_until"] > before["ends_at"]
            for name in ("opened", "memory", "crashed"):
                hub.until(lambda name=name: bool(ends(hub, name)))  # type: ignore[misc]
        hub.until(lambda: standing(hub, "hangs")["unknown"] == ["kernels"])  # type: ignore[index]
        assert not warned(hub, "hangs")
    finally:
        os.kill(stopped, signal.SIGCONT)

    for name in ("opened", "memory", "crashed"):
        (end,) = ends(hub, name)
        assert end["rule"] == "idle", end
        assert {each["source"] for each in end["signals"]} == {"kernels", "processes", "use"}
        assert warned(hub, name)
        # The hub has stopped the server itself, and its slice is free again.
        hub.until(lambda name=name: not [r for r in hub.rows() if r.user == name])  # type: ignore[misc]
        assert hub.api("GET", f"users/{name}")[1]["servers"] == {}
    # It runs again, and is idle from now on.
    assert ends(hub, working.pop("hangs").user) == []
    for notebook in working.values():
        assert ends(hub, notebook.user) == [], hub.log()[-4000:]
        assert not warned(hub, notebook.user)
        assert notebook.runs()
    # Kept until the end that it was told, and ended when that is over, too.
    hub.until(lambda: bool(ends(hub, "extends")))
    (event,) = hub.cli("events", "--user", "extends", "--kind", "lease.releasing")
    assert event["detail"]["rule"] == "idle"
    assert event["at"] >= extended["extended_until"]
    for socket in sockets:
        socket.close()


async def test_a_hub_that_starts_anew_goes_on_where_it_was(hub: Hub, exporter: Site) -> None:
    exporter.answer = measured(hub)
    notebook = Notebook(hub, "restart")
    busy = Notebook(hub, "restart-busy")
    socket = await busy.execute(LONG)
    hub.until(lambda: warned(hub, "restart"))
    told = standing(hub, "restart")
    assert told is not None
    hub.kill()
    hub.start()
    again = standing(hub, "restart")
    assert again is None or again["idle_since"] in (told["idle_since"], None)
    hub.until(lambda: bool(ends(hub, "restart")))
    (end,) = ends(hub, "restart")
    assert end["rule"] == "idle"
    # Told anew if it was unknown meanwhile because the hub was away; never ended sooner than told.
    words = hub.cli("events", "--user", "restart", "--kind", "lease.ending")
    (event,) = hub.cli("events", "--user", "restart", "--kind", "lease.releasing")
    assert words
    assert all(word["detail"]["until"] <= event["at"] for word in words)
    assert ends(hub, "restart-busy") == []
    assert busy.runs()
    assert not notebook.runs()
    socket.close()


INTERNAL_SSL = """
c.JupyterHub.internal_ssl = True
c.JupyterHub.internal_certs_location = "{directory}/internal-ssl"
c.JupyterHub.hub_bind_url = c.JupyterHub.hub_bind_url.replace("http:", "https:")
c.ConfigurableHTTPProxy.api_url = c.ConfigurableHTTPProxy.api_url.replace("http:", "https:")
"""


async def test_servers_that_let_in_the_hub_only_are_asked_too(tmp_path: Path) -> None:
    extra = EXTRA.replace("{exporter}", "") + INTERNAL_SSL.replace("{directory}", str(tmp_path))
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=extra)
    with hub.running():
        works, idle = Notebook(hub, "works"), Notebook(hub, "idle")
        socket = await works.execute(LONG)
        hub.until(lambda: bool(ends(hub, idle.user)))
        (end,) = ends(hub, idle.user)
        assert end["rule"] == "idle"
        assert ends(hub, works.user) == []
        socket.close()


CULLER = """
c.MigBroker.tiers = [{"name": "small", "profile": "1g.5gb", "idle_minutes": 60}]
c.MigBroker.examine_seconds = 2
c.MigBroker.tick_seconds = 0.2
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/api"
c.JupyterHub.services += [
    {
        "name": "cull",
        "command": [
            *(sys.executable, "-m", "jupyterhub_idle_culler", "--timeout=30", "--cull-every=3")
        ],
    }
]
c.JupyterHub.load_roles += [
    {
        "name": "cull",
        "services": ["cull"],
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    }
]
"""


async def test_another_culler_lets_alone_what_is_seen_to_work(tmp_path: Path) -> None:
    """The hub's own culler ends what the hub thinks idle: a silent kernel among it, but for us."""
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=CULLER)
    with hub.running():
        works = Notebook(hub, "works")
        socket = await works.execute(LONG)
        for name in ("first", "second"):
            idle = Notebook(hub, name)
            hub.until(lambda idle=idle: not idle.runs())  # type: ignore[misc]
        # Both had begun later and are gone.
        assert works.runs()
        assert ends(hub, "works") == []
        socket.close()
