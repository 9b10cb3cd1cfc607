"""Idle sessions end and working ones never do: a real hub, real Jupyter servers, real kernels."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from jupyterhub_migspawner.agent.vacancy import parent_of
from jupyterhub_migspawner.gpu import simulator
from tests.acceptance.hubs import Hub
from tests.acceptance.idle import (
    EXTRA,
    LONG,
    LONG_MINUTES,
    SHORT_MINUTES,
    ends,
    events,
    measured,
    seen_at_work,
    set_limit,
    unknown,
    warned,
    write_limit,
)
from tests.acceptance.test_notebooks_stay import Notebook
from tests.exporters import Site
from tests.processes import marked_processes

SILENT = "import time\nwhile True: time.sleep(0.5)"
MEMORY = "weights = bytearray(50_000_000)"
#: A program that computes half of the time: all of it would take a processor from the other tests.
COMPUTES = """python3 -c '
import time
while True:
    began = time.process_time()
    while time.process_time() - began < 0.2: pass
    time.sleep(0.2)
' & sleep 3000"""


@pytest.fixture
def exporter() -> Iterator[Site]:
    """The node's dcgm-exporter."""
    made = Site()
    yield made
    made.close()


@pytest.fixture
def hub(tmp_path: Path, exporter: Site) -> Iterator[Hub]:
    extra = EXTRA.replace("{exporter}", exporter.url)
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7] * 2, extra=extra)
    write_limit(hub, LONG_MINUTES)
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


async def test_who_works_stays_and_who_does_not_is_ended(hub: Hub, exporter: Site) -> None:
    cards = hub.directory / "cards.json"
    exporter.answer = measured(hub)
    working, sockets = {}, []
    for name, code in (("silent", SILENT), ("long", LONG)):
        working[name] = Notebook(hub, name)
        sockets.append(await working[name].execute(code))
    working["terminal"] = Notebook(hub, "terminal")
    await type_into_a_terminal(working["terminal"], COMPUTES)
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
