"""Idle sessions end and working ones never do: a real hub, real Jupyter servers, real kernels.

What is tested is who outlives whom, on a machine of any speed: while a scene is set nothing counts
as idle for hours, and only when all is as it should be does the limit become short.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from jupyterhub_migspawner.agent.vacancy import parent_of
from jupyterhub_migspawner.broker.views import standing_view
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.events import EventQuery, EventRow
from tests.acceptance.hubs import Hub
from tests.acceptance.test_notebooks_stay import Notebook
from tests.exporters import HEAD, Answer, Site, line, page
from tests.processes import marked_processes

EXTRA = """
import os
import jupyterhub.services.service as services
from traitlets import Integer

class Watched(services._ServiceSpawner):
    "A service that has ended is started again after a second."
    poll_interval = Integer(1)

services._ServiceSpawner = Watched
with open(os.path.join(os.path.dirname(__file__), "idle-minutes")) as file:
    minutes = float(file.read())
c.MigBroker.tiers = [
    {"name": "small", "profile": "1g.5gb", "idle_minutes": minutes, "extend_hours": 1}
]
c.MigBroker.dcgm_url = "{exporter}"
c.MigBroker.examine_seconds = 4
c.MigBroker.tick_seconds = 0.2
c.MigBroker.reconcile_seconds = 1
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/api"
"""

#: While a scene is set, and then. Half of a limit passes between the warning and the end.
LONG_MINUTES, SHORT_MINUTES = 600.0, 1.0

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
    write_limit(hub, LONG_MINUTES)
    with hub.running():
        yield hub


def write_limit(hub: Hub, minutes: float) -> None:
    """How long a session may be idle, for a hub that starts from now on."""
    (hub.directory / "idle-minutes").write_text(str(minutes))


def set_limit(hub: Hub, minutes: float) -> None:
    """The same, from now on; the sessions go on."""
    if float((hub.directory / "idle-minutes").read_text()) != minutes:
        write_limit(hub, minutes)
        hub.restart()


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
    """This person's session, as the command line lists it."""
    found = [standing_view(each) for each in hub.broker().standings(user)]
    return found[0] if found else None


def unknown(hub: Hub, user: str) -> list[str]:
    """The sources that say nothing of this person's session."""
    found = standing(hub, user)
    assert found is not None
    sources: list[str] = found["unknown"]
    return sources


def ends(hub: Hub, user: str) -> list[dict[str, Any]]:
    """How this person's sessions were ended, as the event log has it."""
    return [event.detail for event in events(hub, user, "lease.releasing")]


def events(hub: Hub, user: str, *kinds: str) -> tuple[EventRow, ...]:
    """The events of these kinds about this person, oldest first."""
    return hub.broker().events(query=EventQuery(user=user, kinds=kinds))


def warned(hub: Hub, user: str) -> bool:
    return bool(events(hub, user, "lease.ending"))


def seen_at_work(hub: Hub, user: str, since: datetime) -> bool:
    """Whether this person's session was examined since thenand was in use."""
    (found,) = hub.broker().standings(user)
    return found.used > since


def measured(hub: Hub, used: str = "") -> Answer:
    """An exporter's page on which one slice is at work and no other."""
    slices = [status.row for status in hub.broker().slices()]
    lines = [line(0.8 if row.uuid == used else 0, str(row.gi_id), row.card_uuid) for row in slices]
    return page((HEAD + "".join(lines)).encode())


async def test_who_works_stays_and_who_does_not_is_ended(hub: Hub, exporter: Site) -> None:
    cards = hub.directory / "cards.json"
    exporter.answer = measured(hub)
    set_limit(hub, LONG_MINUTES)
    working, sockets = {}, []
    for name, code in (("silent", SILENT), ("long", LONG)):
        working[name] = Notebook(hub, name)
        sockets.append(await working[name].execute(code))
    working["terminal"] = Notebook(hub, "terminal")
    await type_into_a_terminal(working["terminal"], "python3 -c 'while True: pass' & sleep 3000")
    # One long kernel on the GPU: nothing else of it is seen to work.
    working["gpu"] = Notebook(hub, "gpu")
    exporter.answer = measured(hub, str(working["gpu"].lease().slice_uuid))
    # It works until it hangs, so that it is not near its end by then.
    hangs = Notebook(hub, "hangs")
    sockets.append(await hangs.execute(LONG))
    idle = {name: Notebook(hub, name) for name in ("opened", "memory", "crashed", "extends")}
    sockets.append(await idle["memory"].execute(MEMORY))
    sockets.append(await idle["crashed"].execute(LONG))
    for notebook in (idle["memory"], working["silent"]):
        uuid, kernel = str(notebook.lease().slice_uuid), kernel_of(notebook)
        simulator.add_process(cards, uuid, kernel, 3000)
    os.kill(kernel_of(idle["crashed"]), signal.SIGKILL)
    stopped = server_of(hangs)
    begun = datetime.now(timezone.utc)
    for name in (*working, "hangs"):
        hub.until(lambda name=name: seen_at_work(hub, name, begun))  # type: ignore[misc]
    set_limit(hub, SHORT_MINUTES)
    os.kill(stopped, signal.SIGSTOP)
    try:
        hub.until(lambda: unknown(hub, "hangs") == ["kernels"])
        token = hub.token_of("extends")
        path = f"sessions/{idle['extends'].lease().id}/extend"
        with left_open(idle["opened"]):
            hub.until(lambda: warned(hub, "extends"))
            status, extended = hub.service("POST", path, {}, token)
            assert status == 200, extended
            words = events(hub, "extends", "lease.ending", "lease.extended")
            (kept,) = [n for n, word in enumerate(words) if word.kind == "lease.extended"]
            assert extended["extended_until"] > words[kept - 1].detail["until"]
            for name in ("opened", "memory", "crashed"):
                hub.until(lambda name=name: bool(ends(hub, name)))  # type: ignore[misc]
        hub.until(lambda: unknown(hub, "hangs") == ["kernels"])
        assert "hangs" in [each["user"] for each in hub.cli("sessions")]
        assert not warned(hub, "hangs")
        assert ends(hub, "hangs") == []
    finally:
        os.kill(stopped, signal.SIGCONT)

    for name in ("opened", "memory", "crashed"):
        (end,) = ends(hub, name)
        assert end["rule"] == "idle", end
        assert {each["source"] for each in end["signals"]} == {"kernels", "processes", "use"}
        assert warned(hub, name)
        # The hub has stopped the server itself, and its slice is free again.
        hub.until(lambda name=name: not [r for r in hub.rows() if r.user == name])  # type: ignore[misc]
        # The lease is given back while the hub is still at the stop: its own word comes later.
        hub.until(lambda name=name: not hub.api("GET", f"users/{name}")[1]["servers"])  # type: ignore[misc]
    for notebook in working.values():
        assert ends(hub, notebook.user) == [], hub.log()[-4000:]
        assert not warned(hub, notebook.user)
        assert notebook.runs()
    # Kept until the end in its warning, and ended when that is over, too.
    hub.until(lambda: bool(ends(hub, "extends")))
    (event,) = hub.cli("events", "--user", "extends", "--kind", "lease.releasing")
    assert event["detail"]["rule"] == "idle"
    assert event["at"] >= extended["extended_until"]
    for socket in sockets:
        socket.close()


async def test_a_hub_that_starts_anew_goes_on_where_it_was(hub: Hub, exporter: Site) -> None:
    exporter.answer = measured(hub)
    set_limit(hub, LONG_MINUTES)
    notebook = Notebook(hub, "restart")
    busy = Notebook(hub, "restart-busy")
    socket = await busy.execute(LONG)
    begun = datetime.now(timezone.utc)
    hub.until(lambda: seen_at_work(hub, "restart-busy", begun))
    # So that it is not over before it has been seen to be near its end.
    set_limit(hub, 4 * SHORT_MINUTES)
    told: dict[str, Any] = {}

    def seen_near_its_end() -> bool:
        found = standing(hub, "restart")
        if found is None or found["idle_since"] is None or not warned(hub, "restart"):
            return False
        told.update(found)
        return True

    hub.until(seen_near_its_end)
    hub.kill()
    hub.until(lambda: not hub.service_pids())
    hub.start()
    again = standing(hub, "restart")
    assert again is None or again["idle_since"] in (told["idle_since"], None)
    hub.until(lambda: bool(ends(hub, "restart")))
    (end,) = ends(hub, "restart")
    assert end["rule"] == "idle"
    # Warned again if it was unknown meanwhile because the hub was away; never ended before that.
    words = hub.cli("events", "--user", "restart", "--kind", "lease.ending")
    (event,) = hub.cli("events", "--user", "restart", "--kind", "lease.releasing")
    assert words
    assert all(word["detail"]["until"] <= event["at"] for word in words)
    assert ends(hub, "restart-busy") == []
    assert busy.runs()
    hub.until(lambda: not notebook.runs())
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
    write_limit(hub, LONG_MINUTES)
    with hub.running():
        works, idle = Notebook(hub, "works"), Notebook(hub, "idle")
        socket = await works.execute(LONG)
        begun = datetime.now(timezone.utc)
        hub.until(lambda: seen_at_work(hub, "works", begun))
        set_limit(hub, SHORT_MINUTES)
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
        # Not before a user is at work: what the hub knows of is older than that.
        "command": [
            "/bin/sh",
            "-c",
            "until [ -e {directory}/begin ]; do sleep 0.2; done; exec "
            + sys.executable
            + " -m jupyterhub_idle_culler --timeout=60 --cull-every=3",
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


def hub_knows_of_use(hub: Hub, user: str, since: datetime) -> bool:
    """Whether the hub has a report of use after then, by which the other culler goes."""
    activity = hub.api("GET", f"users/{user}")[1]["servers"][""]["last_activity"]
    return datetime.fromisoformat(activity.replace("Z", "+00:00")) > since


async def test_another_culler_lets_alone_what_is_seen_to_work(tmp_path: Path) -> None:
    """The hub's own culler ends what the hub thinks idle: a silent kernel among it, but for us."""
    extra = CULLER.replace("{directory}", str(tmp_path))
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7], extra=extra)
    with hub.running():
        works = Notebook(hub, "works")
        socket = await works.execute(LONG)
        begun = datetime.now(timezone.utc)
        hub.until(lambda: hub_knows_of_use(hub, "works", begun))
        (tmp_path / "begin").touch()
        for name in ("first", "second"):
            idle = Notebook(hub, name)
            hub.until(lambda idle=idle: not idle.runs())  # type: ignore[misc]
        # Both had begun later and are gone.
        assert works.runs()
        assert ends(hub, "works") == []
        socket.close()
