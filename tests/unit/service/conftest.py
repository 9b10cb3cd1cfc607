"""A hub that answers as each test says, and a broker over a real database and simulated cards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.netutil import bind_sockets
from tornado.web import Application, create_signed_value
from traitlets.config import Config

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.gpu.simulator import create_state
from jupyterhub_migspawner.keys import KeyFile
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.approval import parse_approvers
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import parse_tiers
from jupyterhub_migspawner.service.app import application
from jupyterhub_migspawner.service.clients.hub import HubApi
from jupyterhub_migspawner.service.http.auth import CheckedHubOAuth
from jupyterhub_migspawner.service.http.body import MOST_READ
from jupyterhub_migspawner.service.pages.theme import Theme
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.workers.sessions import Examiner
from tests.sealing import reach
from tests.unit.service import templates
from tests.unit.service.described import check_answer
from tests.unit.service.fake_hub import ACCESS, SERVICE_TOKEN, FakeHub
from tests.unit.service.notebook_servers import Notebook, serving

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=timezone.utc)

#: As a hub with an awkward base_url tells its services; odd, and legal.
PREFIX = "/@/space%20word/services/migspawner/"
HUB_PREFIX = "/@/space%20word/hub/"

SETTINGS = Settings(
    tiers=parse_tiers(
        [
            {"name": "cpu", "title": "No GPU", "profile": "none", "default": True},
            {"name": "small", "title": "Small <b>&</b>", "profile": "1g.5gb", "max_hours": 8},
            {"name": "large", "profile": "3g.20gb", "groups": ["vision"]},
            {"name": "card", "profile": "whole", "approval": True, "max_hours": 48},
            {"name": "course", "profile": "1g.5gb", "seats": 4, "users": ["zoe"]},
        ]
    ),
    approvers=parse_approvers(["group:pi"]),
)


@dataclass
class World:
    """One broker with the time in the test's hand."""

    broker: Broker
    hub: FakeHub
    parts: Parts
    now: datetime = NOON
    attempts: int = field(default=0)

    def acquire(self, user: str, server: str = "", tier: str = "small") -> LeaseRow:
        """A pending lease, as a starting server takes it."""
        self.attempts += 1
        lease = self.broker.leases.acquire(Person(user), server, tier, f"attempt-{self.attempts}")
        assert lease is not None
        return lease

    def lend(self, user: str, server: str = "", tier: str = "small") -> LeaseRow:
        """An active lease, as a running server holds it."""
        lease = self.broker.leases.activate(self.acquire(user, server, tier).attempt)
        assert lease is not None
        return lease

    def reach(self, lease: LeaseRow, url: str, token: str) -> None:
        """What the spawner stores when the server of a lease runs."""
        reach(self.broker, self.parts.key_file, lease, url, token)

    def pass_by(self, **time: float) -> None:
        """Let time go by, which the node spends alive."""
        self.now += timedelta(**time)

    def live(self) -> dict[int, str]:
        """The state of every live lease."""
        return {lease.id: lease.state for lease in self.broker.leases.find()}


@pytest.fixture(scope="session", autouse=True)
def templates_shared() -> Iterator[None]:
    with templates.shared():
        yield


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    fake = FakeHub()
    fake.listen()
    yield fake
    fake.hang_up()


@pytest.fixture
def world(tmp_path: Path, hub: FakeHub) -> Iterator[World]:
    state = tmp_path / "cards.json"
    create_state(state, cards=1, layouts=[["3g.20gb", "1g.5gb", "1g.5gb", "1g.5gb"]])
    nvml = Nvml(f"sim:{state}")
    made: list[Any] = []
    broker = Broker(
        Store.open(f"sqlite:///{tmp_path}/leases.sqlite", create=True),
        SETTINGS,
        clock=lambda: made[0].now if made else NOON,
    )
    with ThreadPoolExecutor(2) as database:
        parts = Parts(
            broker=broker,
            settings=SETTINGS,
            hub=HubApi(hub.url, SERVICE_TOKEN),
            database=database,
            key_file=KeyFile(tmp_path / "migspawner_key"),
            home="here",
            prefix=PREFIX,
            hub_prefix=HUB_PREFIX,
        )
        made.append(World(broker, hub, parts))
        broker.nodes.record_inventory("node1", nvml.inventory())
        yield made[0]
    broker.store.close()
    nvml.close()


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: HTTPHeaders
    text: str

    @property
    def json(self) -> Any:
        """The body as JSON."""
        assert self.headers["Content-Type"].startswith("application/json")
        return json.loads(self.text)


@dataclass
class Site:
    """The service's tornado application behind a real port."""

    world: World
    application: Application
    origin: str

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: Any = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """One request below the service's prefix; a body that is not bytes yet is made JSON.

        Every answer of the REST API has to be as it is declared.
        """
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"token {token}"
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
        response = await AsyncHTTPClient().fetch(
            HTTPRequest(
                self.origin + PREFIX + path,
                method=method,
                body=body,
                headers=sent,
                follow_redirects=False,
                allow_nonstandard_methods=True,
            ),
            raise_error=False,
        )
        reply = Reply(response.code, response.headers, (response.body or b"").decode())
        if path.startswith("api") and method != "HEAD":
            check_answer(method, path.removeprefix("api"), reply.status, reply.json)
        return reply

    def cookie(self, token: str) -> str:
        """The cookie that signing in sets."""
        auth = self.application.settings["hub_auth"]
        value = create_signed_value(
            self.application.settings["cookie_secret"], auth.cookie_name, token
        )
        return f"{auth.cookie_name}={value.decode()}"


@pytest.fixture
async def site(world: World) -> AsyncIterator[Site]:
    auth = CheckedHubOAuth(
        api_url=world.hub.url,
        api_token=SERVICE_TOKEN,
        oauth_client_id="service-migspawner",
        base_url=PREFIX,
        hub_prefix=HUB_PREFIX,
        access_scopes={ACCESS, "access:services"},
        cache_max_age=300,
    )
    made = application(world.parts, auth, Theme(world.parts, Config()))
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(made, max_body_size=MOST_READ)
    server.add_sockets(sockets)
    yield Site(world, made, f"http://127.0.0.1:{sockets[0].getsockname()[1]}")
    server.stop()


def settle(world: World, **changes: Any) -> None:
    """Give the service other settings, as its configuration file would."""
    settings = replace(world.parts.settings, **changes)
    object.__setattr__(world.parts, "settings", settings)
    world.broker.context.settings = settings


@pytest.fixture
async def notebook() -> AsyncIterator[Notebook]:
    async with serving() as made:
        yield made


@pytest.fixture
async def examiner(world: World) -> AsyncIterator[Examiner]:
    settle(
        world,
        tiers=parse_tiers(
            [
                {"name": "small", "profile": "1g.5gb", "idle_minutes": 60},
                {"name": "large", "profile": "3g.20gb"},
                {"name": "timed", "profile": "1g.5gb", "max_hours": 1},
            ]
        ),
    )
    made = Examiner(world.parts)
    yield made
    made.close()
