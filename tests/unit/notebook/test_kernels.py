"""What real kernels of a real server are at work on, whatever else is asked of them meanwhile."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.session import Session

from jupyterhub_migspawner.notebook import KERNELS_PATH
from jupyterhub_migspawner.notebook.kernels import Kernel, Kernels
from jupyterhub_migspawner.service.clients.notebooks import Notebooks, Said
from jupyterhub_migspawner.service.clients.tokens import Reach
from tests.unit.notebook.servers import TOKEN, Server

PANELS = ("usage_request", "create_subshell_request", "kernel_info_request")
"""What pages ask a kernel by themselves, on its control channel."""


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Person:
    """A user at one kernel of a server, who types."""

    def __init__(self, server: Server, runtime: Path) -> None:
        self.server = server
        status, made = server.call("POST", "api/kernels", {})
        assert status == 201, made
        self.kernel = made["id"]
        file = runtime / f"kernel-{self.kernel}.json"
        until(file.exists)
        self.client = BlockingKernelClient(connection_file=str(file))
        self.client.load_connection_file()
        # Without its heartbeat: on a busy machine that takes a slow kernel for a dead one.
        self.client.start_channels(hb=False)
        self.client.wait_for_ready(timeout=60)

    def panel(self, kind: str) -> None:
        """A page asks, and has its answer."""
        self.client.control_channel.send(self.client.session.msg(kind, {}))
        self.client.control_channel.get_msg(timeout=60)

    def state(self) -> dict[str, Any] | None:
        found = self.server.call("GET", KERNELS_PATH)[1]
        return next((each for each in found if each["id"] == self.kernel), None)

    def running(self) -> int:
        state = self.state()
        return -1 if state is None else int(state["running"])

    def close(self) -> None:
        self.client.stop_channels()
        self.server.call("DELETE", f"api/kernels/{self.kernel}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    made = Server(folder, "a1")
    yield made
    made.close()


@pytest.fixture
def person(server: Server, folder: Path) -> Iterator[Person]:
    made = Person(server, folder / "runtime")
    yield made
    made.close()


async def said(person: Person) -> Said:
    """What the service makes of it."""
    notebooks = Notebooks()
    try:
        return await notebooks.runs(Reach(person.server.url, TOKEN, attempt=person.server.attempt))
    finally:
        notebooks.close()


async def test_a_cell_computes_on_whatever_pages_ask_meanwhile(person: Person) -> None:
    person.client.execute("import time; time.sleep(600)")
    until(lambda: person.running() == 1)
    for kind in PANELS:
        person.panel(kind)
        assert person.running() == 1
        assert (await said(person)).busy, kind
    os.kill(kernel_process(person), signal.SIGINT)
    until(lambda: person.running() == 0)
    assert not (await said(person)).busy


async def test_what_pages_ask_by_themselves_is_no_use(person: Person) -> None:
    person.client.execute("1 + 1", reply=True, timeout=60)
    until(lambda: person.running() == 0)
    before = await said(person)
    for kind in PANELS * 2:
        person.panel(kind)
    assert await said(person) == before
    person.client.execute("1 + 1", reply=True, timeout=60)
    until(lambda: person.running() == 0)
    assert (await said(person)).fingerprint != before.fingerprint


async def test_a_kernel_that_died_is_at_work_on_nothing(person: Person) -> None:
    person.client.execute("import time; time.sleep(600)")
    until(lambda: person.running() == 1)
    os.kill(kernel_process(person), signal.SIGKILL)
    until(lambda: person.running() == 0)
    assert not (await said(person)).busy


def test_a_kernel_that_is_restarted_or_gone_leaves_nothing(person: Person) -> None:
    person.client.execute("import time; time.sleep(600)")
    until(lambda: person.running() == 1)
    assert person.server.call("POST", f"api/kernels/{person.kernel}/restart")[0] == 200
    until(lambda: person.running() == 0)
    person.server.call("DELETE", f"api/kernels/{person.kernel}")
    assert person.state() is None


class Elsewhere:
    """A manager of kernels that run on another machine."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def start_watching_activity(self, kernel_id: str) -> None:
        self.calls.append(("start", kernel_id))

    def stop_watching_activity(self, kernel_id: str) -> None:
        self.calls.append(("stop", kernel_id))

    def get_kernel(self, kernel_id: str) -> Any:
        raise KeyError(kernel_id)

    def list_kernel_ids(self) -> list[str]:
        return ["k1"]


def test_kernels_that_cannot_be_watched_start_all_the_same() -> None:
    manager = Elsewhere()
    kernels = Kernels(manager)
    manager.start_watching_activity("k1")
    manager.stop_watching_activity("k1")
    assert manager.calls == [("start", "k1"), ("stop", "k1")]
    assert kernels.said() == []
    assert Kernels(object()) is not None


def test_a_kernel_that_is_not_understood_is_left_to_its_servers_word() -> None:
    kernels, kernel = Kernels(Elsewhere()), Kernel()
    kernels._kernels["k1"] = kernel
    assert kernels.said() == [{"id": "k1", "running": 0, "heard": 0}]
    kernels._hear(kernel, Session(key=b"another"), [b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"])
    assert kernels.said() == []


def kernel_process(person: Person) -> int:
    """The pid of the kernel, which has its connection file among its arguments."""
    name = f"kernel-{person.kernel}.json".encode()
    (found,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and name in read(entry / "cmdline")
    ]
    return found


def read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
