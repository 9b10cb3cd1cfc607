"""A single-user server's REST API, as it answers well, badly, late or at length."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.notebook import ACTIVITY_PATH, KERNELS_PATH, PATH
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reclaim import KERNELS, PROCESSES
from tests.broker.lab import card, inventory
from tests.unit.service.fake_hub import server

if TYPE_CHECKING:
    from tests.unit.service.conftest import World

TOKEN = "the-server-s-own-token"
KERNEL = {"id": "k1", "execution_state": "idle", "last_activity": "2026-11-22T11:00:00Z"}
TERMINAL = {"name": "1", "last_activity": "2026-11-22T11:00:00Z"}


@dataclass
class Notebook:
    """A single-user server's REST API; ``how`` is how it answers, ``where`` for which list, if not
    for all."""

    kernels: Any = field(default_factory=lambda: [dict(KERNEL)])
    terminals: Any = field(default_factory=list)
    # What its extension has heard from the kernels; None where it is not installed.
    watched: Any = None
    acts: Any = None
    how: str = "well"
    where: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    # Its extension: the last notice to it, what it says to that, and how many notices it got.
    told: dict[str, Any] = field(default_factory=dict)
    wish: Any = ""
    words: int = 0
    installed: bool = True


class Notices(RequestHandler):
    def initialize(self, notebook: Notebook) -> None:
        self.notebook = notebook

    async def put(self) -> None:
        notebook = self.notebook
        notebook.asked.append((self.request.uri or "", self.request.headers["Authorization"]))
        notebook.words += 1
        if notebook.how == "hangs":
            await notebook.go_on.wait()
        if not notebook.installed:
            self.set_status(404)
            return
        notebook.told = json.loads(self.request.body)
        if notebook.told.get("answer", {}).get("wish") == notebook.wish:
            notebook.wish = ""
        self.write(json.dumps({"wish": notebook.wish}))


class Lists(RequestHandler):
    def initialize(self, notebook: Notebook) -> None:
        self.notebook = notebook

    async def get(self, what: str) -> None:
        notebook = self.notebook
        notebook.asked.append((self.request.uri or "", self.request.headers["Authorization"]))
        notebook.at_once += 1
        notebook.most_at_once = max(notebook.most_at_once, notebook.at_once)
        try:
            await self.answer(what)
        finally:
            notebook.at_once -= 1

    async def answer(self, what: str) -> None:
        how = self.notebook.how if self.notebook.where in ("", what) else "well"
        if how == "hangs":
            await self.notebook.go_on.wait()
        elif how == "crowded":
            await asyncio.sleep(0.01)
        elif how == "trickles":
            stream = self.detach()
            await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            with suppress(StreamClosedError):
                while not self.notebook.go_on.is_set():
                    await stream.write(b" ")
                    await asyncio.sleep(0.01)
            stream.close()
            return
        elif how == "chunks":
            await self.flush()
        elif how == "floods":
            self.write("[" + " " * 10_000_000 + "]")
            return
        elif how == "floods without a length":
            stream = self.detach()
            await stream.write(b"HTTP/1.0 200 OK\r\n\r\n")
            with suppress(StreamClosedError):
                for _ in range(200):
                    await stream.write(b" " * 100_000)
            stream.close()
            return
        elif how == "crowds":
            self.write("[" + "{}," * 60_000 + "{}]")
            return
        elif how == "heads":
            for number in range(300):
                self.set_header(f"X-{number}", "a" * 100)
        elif how == "redirects":
            self.redirect(f"{self.notebook.url}elsewhere")
            return
        elif how == "garbage":
            self.write(b"\xff\xfe<html>")
            return
        elif how.isdigit():
            self.set_status(int(how))
            return
        elif how == "no terminals" and what == "api/terminals":
            self.set_status(404)
            return
        found = {
            "api/kernels": self.notebook.kernels,
            "api/terminals": self.notebook.terminals,
            KERNELS_PATH: self.notebook.watched,
            ACTIVITY_PATH: None if self.notebook.acts is None else {"acts": self.notebook.acts},
        }[what]
        if what in (KERNELS_PATH, ACTIVITY_PATH) and found is None:
            self.set_status(404)
            return
        self.write(json.dumps(found))


@asynccontextmanager
async def serving() -> AsyncIterator[Notebook]:
    made = Notebook()
    sockets = bind_sockets(0, "127.0.0.1")
    made.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/user/ada/"
    app = Application(
        [
            (
                rf"/user/[^/]+/(api/kernels|api/terminals|{KERNELS_PATH}|{ACTIVITY_PATH})",
                Lists,
                {"notebook": made},
            ),
            (rf"/user/[^/]+/{PATH}", Notices, {"notebook": made}),
        ],
        log_function=lambda handler: None,
    )
    http = HTTPServer(app)
    http.add_sockets(sockets)
    yield made
    made.go_on.set()
    http.stop()
    await http.close_all_connections()


def lend(world: World, notebook: Notebook, user: str = "ada", tier: str = "small") -> LeaseRow:
    lease = world.lend(user, tier=tier)
    world.reach(lease, notebook.url, TOKEN)
    world.hub.users[user] = {"": server(started=lease.since - timedelta(seconds=1))}
    quiet(world, lease)
    return lease


def lend_many(world: World, notebook: Notebook, count: int) -> list[LeaseRow]:
    """Active leases of as many people, on a node of ten cards in seven; one server for them all."""
    sevenths = tuple(("1g.5gb", start) for start in range(7))
    cards = (replace(card(index, sevenths), uuid=f"GPU-many-{index}") for index in range(10))
    world.broker.nodes.record_inventory("n9", inventory(*cards))
    leases = []
    for number in range(count):
        lease = world.broker.leases.acquire(
            Person(f"u{number}"), "", "small", f"many-{number}", "n9"
        )
        assert lease is not None
        world.broker.leases.activate(lease.attempt)
        world.reach(lease, notebook.url, TOKEN)
        leases.append(lease)
    return leases


def reading(world: World, lease: LeaseRow) -> Any:
    (standing,) = [each for each in world.broker.sessions.standings() if each.lease.id == lease.id]
    return next((row for row in standing.readings if row.source == KERNELS), None)


def quiet(world: World, lease: LeaseRow) -> None:
    """What the agent says: nothing works there."""
    world.broker.readings.note([Answer(lease.id, PROCESSES, fingerprint="", said="quiet")])


async def pass_by(world: World, examiner: Any, lease: LeaseRow, minutes: float) -> None:
    world.pass_by(minutes=minutes)
    quiet(world, lease)
    await examiner.round()
