"""Notebooks run on while the machine's cards are re-cut around them.

A real hub, its service and agent, a real Jupyter server with a kernel that computes; the command
line goes through every configuration of a file of layouts for eight A100s.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.layout_reader import load_layouts
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.acceptance.hubs import Hub

EXAMPLE = Path(__file__).parents[1] / "data" / "mig-parted-example.yaml"

#: The layout that is applied last, for which the notebooks are in the way.
LAST = "all-disabled"

EXTRA = """
c.MigBroker.tick_seconds = 0.2
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.default_url = "/api"
"""

TRAINING = """
import os, time
from pathlib import Path
Path("pid").write_text(str(os.getpid()))
step = 0
while not Path("stop").exists():
    step += 1
    Path("step.new").write_text(str(step))
    os.replace("step.new", "step")
    time.sleep(0.02)
print(os.environ["CUDA_VISIBLE_DEVICES"])
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path, layouts=[["1g.5gb"] * 7] * 8, extra=EXTRA)
    with hub.running():
        yield hub


class Notebook:
    """A person's server with one kernel, and what the kernel has been told to run."""

    def __init__(self, hub: Hub, user: str) -> None:
        self.hub = hub
        self.user = user
        assert hub.api("POST", f"users/{user}")[0] == 201
        self.token = hub.token_of(user)
        assert hub.api("POST", f"users/{user}/server", {"tier": "small"})[0] in (201, 202)
        hub.until(self.runs)
        self.folder = hub.directory / "home" / user
        status, kernel = hub.call("POST", self.url("api/kernels"), {}, self.token)
        assert status == 201, kernel
        self.kernel = kernel["id"]

    def url(self, path: str) -> str:
        return f"{self.hub.url}user/{self.user}/{path}"

    def runs(self) -> bool:
        server = self.hub.api("GET", f"users/{self.user}")[1]["servers"].get("", {})
        return bool(server.get("ready"))

    def lease(self) -> LeaseRow:
        (lease,) = [each for each in self.hub.rows() if each.user == self.user]
        return lease

    async def execute(self, code: str) -> Any:
        """Send a cell to the kernel; the connection on which its answers come."""
        url = self.url(f"api/kernels/{self.kernel}/channels").replace("http:", "ws:")
        headers = {"Authorization": f"token {self.token}"}
        socket = await websocket_connect(HTTPRequest(url, headers=headers))
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "session": uuid.uuid4().hex,
            "username": self.user,
            "version": "5.3",
        }
        content = {"code": code, "silent": False, "store_history": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await socket.write_message(json.dumps({**message, "channel": "shell"}))
        return socket

    async def printed(self, socket: Any) -> str:
        """What the cell prints before it is done."""
        text = ""
        while True:
            raw = await socket.read_message()
            assert raw is not None, f"the connection was closed; printed so far: {text}"
            message = json.loads(raw)
            content = message["content"]
            if message["msg_type"] == "stream":
                text += content["text"]
            elif message["msg_type"] == "error":
                raise AssertionError(content["traceback"])
            elif message["msg_type"] == "execute_reply":
                return text

    def steps(self) -> int:
        """How far the training is."""
        file = self.folder / "step"
        return int(file.read_text()) if file.exists() else 0

    def goes_on(self) -> None:
        """Wait until it has done more; fail when it does not."""
        before = self.steps()
        self.hub.until(lambda: self.steps() > before)


async def test_notebooks_notice_nothing_of_any_layout(hub: Hub) -> None:
    notebooks = [Notebook(hub, user) for user in ("ada", "grace")]
    sockets = [await each.execute(TRAINING) for each in notebooks]
    # Meanwhile this thread answers the servers' pings: they close a connection that does not.
    leases = await asyncio.to_thread(go_through_layouts, hub, notebooks)
    for each, socket, lease in zip(notebooks, sockets, leases, strict=True):
        (each.folder / "stop").touch()
        assert (await each.printed(socket)).strip() == lease.slice_uuid
    for each in notebooks:
        assert hub.api("DELETE", f"users/{each.user}/server")[0] in (202, 204)
    # What had to wait for them is cut by the agent, and nobody has to ask again.
    hub.until(lambda: not hub.rows())
    hub.until(lambda: not any(card.mig_enabled for card in hub.broker().cards.find()))
    assert not any(card["mig_enabled"] for card in hub.cli("cards"))
    assert hub.run_cli("layout", "assert", str(EXAMPLE), LAST).returncode == 0


def go_through_layouts(hub: Hub, notebooks: list[Notebook]) -> list[LeaseRow]:
    """Apply every layout of the file while the notebooks train; their leases."""
    machine = hub.directory / "cards.json"
    for each in notebooks:
        hub.until(lambda each=each: each.steps() > 0)  # type: ignore[misc]
        pid = int((each.folder / "pid").read_text())
        simulator.add_process(machine, str(each.lease().slice_uuid), pid, 4000)
    leases = [each.lease() for each in notebooks]
    nvml = Nvml(f"sim:{machine}")
    layouts = load_layouts(EXAMPLE).layouts
    kept = waited = 0
    for name in [*sorted(layouts.keys() - {LAST}), LAST]:
        layout = layouts[name]
        cards = nvml.inventory().cards
        nvml.close()
        wanted = layout.for_cards(cards)
        stay = True
        for lease in leases:
            (card,) = [each for each in cards if each.uuid == lease.card_uuid]
            want = wanted[card.index]
            places = layout.places(card, want) if want.mig_enabled else ()
            stay = stay and (lease.profile, lease.start) in places
        done = hub.run_cli("layout", "apply", str(EXAMPLE), name)
        assert done.returncode == (0 if stay else 1), (name, done.stdout, done.stderr)
        if stay:
            kept += 1
            assert hub.run_cli("layout", "assert", str(EXAMPLE), name).returncode == 0
        else:
            waited += 1
            assert "is leased by " in done.stderr
        for each, lease in zip(notebooks, leases, strict=True):
            each.goes_on()
            assert each.runs()
            assert each.lease() == lease
            pid = int((each.folder / "pid").read_text())
            assert pid in [on.pid for on in nvml.processes(str(lease.slice_uuid))]
        nvml.close()  # a process with the driver open keeps an A100 from leaving MIG
    assert kept >= 2
    assert waited >= 1
    return leases
