"""What a spawner that lends something must get right, each in a real hub with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bs4 import BeautifulSoup
from jupyterhub import orm
from jupyterhub.handlers import pages
from jupyterhub.tests import mocking
from jupyterhub.tests.test_api import add_user, api_request
from jupyterhub.tests.utils import AsyncSession, async_requests, get_page, public_url
from migspawner_plugin import LeaseTaking
from traitlets.config import Config

from jupyterhub_migspawner.agent import Agent
from jupyterhub_migspawner.agent.vacancy import start_time
from jupyterhub_migspawner.broker import Broker, utc_now
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.gpu.simulator import create_state
from jupyterhub_migspawner.spawner.form.fields import own_options
from jupyterhub_migspawner.spawner.launchers.local import MigSimpleSpawner
from tests.processes import marked_processes

TIERS = [
    {"name": "cpu", "profile": "none"},
    {"name": "small", "profile": "1g.5gb", "default": True},
    {"name": "large", "profile": "3g.20gb", "groups": ["vision"]},
    {"name": "card", "profile": "whole", "approval": True, "max_hours": 48},
]


#: Seconds; the limit of a wait only ends a test that has failed.
PATIENCE = 300.0


async def until(holds: Callable[[], Any]) -> None:
    """Wait for something that the hub or a server does."""
    give_up = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < give_up, "it did not happen"
        await asyncio.sleep(0.05)


class Lab:
    """A lab of its own for one test: cards, lease database, broker and agent."""

    def __init__(self, directory: Path, layouts: list[list[str]]) -> None:
        self.directory = directory
        state = directory / "cards.json"
        create_state(str(state), cards=len(layouts), model="A100-SXM4-40GB", layouts=layouts)
        config = Config()
        config.MigBroker.tiers = TIERS
        config.MigBroker.database_url = f"sqlite:///{directory}/leases.sqlite"
        config.MigBroker.nvml = f"sim:{state}"
        config.MigBroker.heartbeat_seconds = 24 * 3600
        self.config = config
        settings = MigBroker(config=config)
        self.broker: Broker = settings.open_broker()
        self.seconds = 0.0
        self.agent = Agent(
            self.broker,
            settings.open_nvml(),
            node=settings.node,
            inventory_seconds=0,
            monotonic=lambda: self.seconds,
        )
        self.agent.take_inventory()

    def leases(self, user: str) -> list[Any]:
        return list(self.broker.leases.find(user=user))

    def free(self) -> int:
        return sum(status.state == "free" for status in self.broker.slices.find())

    async def until_empty(self, user: str) -> None:
        """Let the agent look until nothing of the user is live; its clock jumps past all graces."""
        for _ in range(100):
            await asyncio.to_thread(self.agent.tick)
            if not self.leases(user):
                return
            self.seconds += 30
            await asyncio.sleep(0.1)
        raise AssertionError(f"still live: {self.leases(user)}")


@pytest.fixture
def several_servers(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.tornado_settings, "allow_named_servers", True)
    monkeypatch.setitem(app.tornado_settings, "named_server_limit_per_user", 0)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path, [["3g.20gb", "2g.10gb", "1g.5gb", "1g.5gb"]])
    monkeypatch.setattr(LeaseTaking, "mig_settings", lab.config)
    return lab


async def start(
    app: Any, name: str, options: dict[str, Any] | None = None, server: str = ""
) -> Any:
    path = ("servers", server) if server else ("server",)
    body = None if options is None else json.dumps(options)
    return await api_request(app, "users", name, *path, method="post", data=body)


async def stop(app: Any, name: str, server: str = "") -> Any:
    path = ("servers", server) if server else ("server",)
    return await api_request(app, "users", name, *path, method="delete")


async def end(app: Any, lab: Lab, name: str, server: str = "") -> Any:
    """Stop a server of which nothing is left, and let the agent prove that."""
    answer = await stop(app, name, server)
    for _ in range(600):
        if not any(lease.server == server for lease in lab.leases(name)):
            return answer
        await asyncio.to_thread(lab.agent.tick)
        await asyncio.sleep(0.1)
    raise AssertionError(f"still live: {lab.leases(name)}")


async def environment_of(app: Any, user: Any, server: str = "") -> dict[str, str]:
    """What the running server itself says its environment is."""
    cookies = await app.login_user(user.name)
    url = public_url(app, user)
    if server:
        url += server + "/"
    response = await async_requests.get(url + "env", cookies=cookies)
    response.raise_for_status()
    return dict(response.json())


async def test_a_server_is_told_its_slice_and_gives_it_back(app: Any, lab: Lab) -> None:
    user = add_user(app.db, app=app, name="ada")
    assert (await start(app, "ada")).status_code == 201
    (lease,) = lab.leases("ada")
    assert lease.state == "active"
    assert lease.profile == "1g.5gb"
    env = await environment_of(app, user)
    assert env["CUDA_VISIBLE_DEVICES"] == env["NVIDIA_VISIBLE_DEVICES"] == lease.slice_uuid
    assert env["MIGSPAWNER_TIER"] == "small"
    assert env["MIGSPAWNER_MEMORY_MIB"] == str(lease.memory_mib)
    assert (await end(app, lab, "ada")).status_code == 204
    assert lab.leases("ada") == []
    assert lab.free() == 4


async def test_no_gpu_hides_every_card_also_after_a_gpu_session(app: Any, lab: Lab) -> None:
    user = add_user(app.db, app=app, name="cathy")
    assert (await start(app, "cathy", {"tier": "small"})).status_code == 201
    await end(app, lab, "cathy")
    assert (await start(app, "cathy", {"tier": "cpu"})).status_code == 201
    env = await environment_of(app, user)
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert lab.leases("cathy") == []
    await end(app, lab, "cathy")


async def test_a_server_that_dies_gives_its_slice_back(app: Any, lab: Lab) -> None:
    user = add_user(app.db, app=app, name="dora")
    assert (await start(app, "dora")).status_code == 201
    spawner = user.spawner
    os.kill(spawner.pid, signal.SIGKILL)
    spawner.proc.wait(10)
    await spawner.poll_and_notify()
    await until(lambda: not spawner.active)
    await lab.until_empty("dora")
    assert lab.free() == 4
    past = lab.broker.leases.find(user="dora", include_past=True)
    assert [lease.state for lease in past] == ["released"]


async def test_a_stop_that_raised_keeps_the_slice_until_the_process_is_gone(
    app: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = add_user(app.db, app=app, name="erin")
    assert (await start(app, "erin")).status_code == 201
    process = user.spawner.proc

    async def cannot_stop(self: Any, now: bool = False) -> None:
        raise RuntimeError("the machine did not listen")

    monkeypatch.setattr(mocking.MockSpawner, "stop", cannot_stop)
    await stop(app, "erin")
    (lease,) = lab.leases("erin")
    assert lease.state == "releasing"
    assert process.poll() is None
    assert lab.free() == 3

    await asyncio.to_thread(lab.agent.tick)
    (lease,) = lab.leases("erin")
    assert str(process.pid) in lease.waiting_for

    await lab.until_empty("erin")
    process.wait(10)
    assert lab.free() == 4


async def test_what_a_stopped_server_left_running_keeps_the_slice_and_is_ended(
    app: Any, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job with nohup in a terminal: in a session of its own, and it ignores the hang-up."""
    user = add_user(app.db, app=app, name="fay")
    pid_file = tmp_path / "pid"
    job = tmp_path / "job.sh"
    job.write_text(
        f"trap '' HUP INT TERM\necho $$ > {pid_file}.new\nmv {pid_file}.new {pid_file}\n"
        "while :; do sleep 0.2; done\n"
    )
    launch = f'setsid bash {job} & exec "$@"'
    monkeypatch.setattr(user.spawner, "cmd", ["bash", "-c", launch, "-", *user.spawner.cmd])
    assert (await start(app, "fay")).status_code == 201
    await until(pid_file.exists)
    left = int(pid_file.read_text())
    await stop(app, "fay")
    (lease,) = lab.leases("fay")
    assert lease.state == "releasing"
    assert any(p.pid == left for p in marked_processes()[lease.attempt])
    await lab.until_empty("fay")
    assert lease.attempt not in marked_processes()


async def test_a_start_cancelled_at_its_timeout_leaves_no_lease_behind(app: Any, lab: Lab) -> None:
    """The database is locked past the start's timeout; the thread commits after everything."""
    user = add_user(app.db, app=app, name="gina")
    user.spawner.start_timeout = 1
    blocker = sqlite3.connect(lab.directory / "leases.sqlite", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    request = asyncio.ensure_future(start(app, "gina"))
    await until(lambda: user.spawner._spawn_future and user.spawner._spawn_future.done())
    blocker.execute("ROLLBACK")
    blocker.close()
    assert (await request).status_code >= 400
    # Whatever the late threads wrote, nothing may be live once they have.
    await asyncio.sleep(0)
    await lab.until_empty("gina")
    assert lab.free() == 4
    user.spawner.start_timeout = 60
    assert (await start(app, "gina")).status_code == 201
    await end(app, lab, "gina")


async def test_a_start_cancelled_by_its_user_leaves_no_lease_behind(
    app: Any, lab: Lab, no_patience: None
) -> None:
    user = add_user(app.db, app=app, name="hope")
    held = asyncio.Event()
    spawner = user.spawner

    async def hang(self: Any) -> Any:
        held.set()
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patch:
        # The spawner below the mixin: the lease is taken by the time its start is called.
        patch.setattr(mocking.MockSpawner.__bases__[1], "start", hang)
        assert (await start(app, "hope")).status_code == 202
        await held.wait()
        assert len(lab.leases("hope")) == 1
        await stop(app, "hope")
        await until(lambda: not spawner.active)
    await lab.until_empty("hope")


async def test_whom_a_server_runs_as_is_known_though_its_start_fails(
    app: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Any) -> Any:
        raise OSError("there is no such program")

    monkeypatch.setattr(LeaseTaking, "_mig_server_uid", lambda self: 4321)
    monkeypatch.setattr(mocking.MockSpawner.__bases__[1], "start", fail)
    add_user(app.db, app=app, name="ida")
    assert (await start(app, "ida")).status_code == 500
    (known,) = lab.broker.processes.of_node(lab.broker.nodes.find()[0].name).values()
    assert (known.uid, known.known) == (4321, ())


async def test_a_lease_that_ended_during_the_start_ends_the_start(
    app: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two servers would run on one slice as soon as another user leases it."""
    user = add_user(app.db, app=app, name="ivy")
    start_below = mocking.MockSpawner.__bases__[1].start
    pids = []

    async def lose_the_lease(self: Any) -> Any:
        url = await start_below(self)
        pids.append(self.proc)
        await asyncio.to_thread(lab.broker.leases.release_server, "ivy", "", "taken", actor="test")
        return url

    monkeypatch.setattr(mocking.MockSpawner.__bases__[1], "start", lose_the_lease)
    response = await start(app, "ivy")
    assert response.status_code == 409
    assert "was released" in response.json()["message"]
    assert pids[0].wait(30) is not None
    assert not user.running
    await lab.until_empty("ivy")


async def test_a_hundred_thousand_options_are_not_all_looked_at(app: Any, lab: Lab) -> None:
    add_user(app.db, app=app, name="jane")
    looked_at = own_options({f"tie{n}": n for n in range(100_000)} | {"tier": "small"})
    assert looked_at["tier"] == "small"
    assert len(looked_at) <= 101


async def test_a_pid_that_is_another_process_by_now_is_no_server(app: Any, lab: Lab) -> None:
    """After a reboot: signalling it would end another user's process."""
    user = add_user(app.db, app=app, name="june")
    spawner = MigSimpleSpawner(user=user, config=lab.config)
    started = start_time(Path(f"/proc/{os.getpid()}"))
    spawner.load_state({"pid": os.getpid(), "pid_started": started})
    assert await spawner.poll() is None
    assert spawner.get_state()["pid_started"] == started
    spawner.load_state({"pid": os.getpid(), "pid_started": (started or 0) + 1})
    assert await spawner.poll() == 0


async def test_a_late_release_never_ends_the_next_start(app: Any, lab: Lab) -> None:
    """The database is away while a server stops; it is back only after the next one runs."""
    add_user(app.db, app=app, name="iris")
    assert (await start(app, "iris")).status_code == 201
    await end(app, lab, "iris")
    ended = utc_now()
    assert (await start(app, "iris")).status_code == 201
    late = lab.broker.leases.release_server("iris", "", "late", actor="hub", taken_before=ended)
    assert late == ()
    assert [lease.state for lease in lab.leases("iris")] == ["active"]
    await end(app, lab, "iris")


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ({"tier": "tiny"}, 400, "'tiny'"),
        ({"tier": 7}, 400, "tier"),
        ({"tier": ["small", "large"]}, 400, "tier"),
        ({"tier": "<script>alert(1)</script>"}, 400, "tier"),
        ({"tier": "x" * 1_000_000}, 400, "tier"),
        ({"teir": "small"}, 400, "teir"),
        ({"tier": "large"}, 403, "large"),
        ({"tier": "card"}, 403, "approv"),
    ],
)
async def test_rest_options_are_checked_like_the_form(
    app: Any, lab: Lab, options: dict[str, Any], status: int, says: str
) -> None:
    add_user(app.db, app=app, name="judy")
    response = await start(app, "judy", options)
    assert response.status_code == status
    message = response.json()["message"]
    assert says in message
    assert len(message) < 600
    assert lab.leases("judy") == []


@pytest.mark.parametrize("options", [{}, None, {"tier": None}, {"unrelated": "option"}])
async def test_no_options_mean_the_default_tier(app: Any, lab: Lab, options: Any) -> None:
    name = f"kim{len(str(options))}"
    add_user(app.db, app=app, name=name)
    assert (await start(app, name, options)).status_code == 201
    assert [lease.tier for lease in lab.leases(name)] == ["small"]
    await end(app, lab, name)


async def test_each_named_server_has_a_slice_of_its_own(
    app: Any, lab: Lab, several_servers: None
) -> None:
    user = add_user(app.db, app=app, name="lena")
    for server in ("", "train"):
        assert (await start(app, "lena", {"tier": "small"}, server)).status_code == 201
    leases = {lease.server: lease for lease in lab.leases("lena")}
    assert set(leases) == {"", "train"}
    assert leases[""].slice_uuid != leases["train"].slice_uuid
    env = await environment_of(app, user, "train")
    assert env["CUDA_VISIBLE_DEVICES"] == leases["train"].slice_uuid
    await end(app, lab, "lena", "train")
    assert {lease.server for lease in lab.leases("lena")} == {""}
    await end(app, lab, "lena")


@pytest.fixture
def patient_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start by form may take a busy machine more than a second to be refused.

    The hub shows such a refusal later, on the page of the start that goes on
    (``jupyterhub.handlers.pages.SpawnHandler``).
    """
    wait = asyncio.wait

    async def wait_longer(tasks: Any, timeout: float) -> Any:
        return await wait(tasks, timeout=60 * timeout)

    theirs = SimpleNamespace(ensure_future=asyncio.ensure_future, wait=wait_longer)
    monkeypatch.setattr(pages, "asyncio", theirs)


@pytest.mark.parametrize("server", ["", "train"])
async def test_a_refused_form_says_why_and_shows_the_tiers_again(
    app: Any, lab: Lab, several_servers: None, patient_form: None, server: str
) -> None:
    """For a named server too, whose form the hub renders from the default server's spawner."""
    user = add_user(app.db, app=app, name="mona")
    cookies = await app.login_user("mona")
    session = AsyncSession()
    session.cookies = cookies
    path = f"spawn/mona/{server}" if server else "spawn"
    page = await get_page(path, app, cookies=cookies)
    assert page.status_code == 200
    form = BeautifulSoup(page.text, "html.parser")
    shown = {field["value"]: field for field in form.select("input[name=tier]")}
    assert set(shown) == {"cpu", "small", "card"}
    assert "disabled" not in shown["small"].attrs
    # What needs approval can be picked to ask for it.
    assert "disabled" not in shown["card"].attrs
    assert [field["name"] for field in form.select("textarea")] == ["migspawner-reason-card"]
    assert "2 of 2 free" in page.text
    action = form.find("form")["action"] if form.find("form").get("action") else page.url
    from urllib.parse import urljoin

    response = await async_requests.post(
        urljoin(page.url, action),
        data={"tier": "<b>large</b>", "_xsrf": cookies["_xsrf"]},
        cookies=cookies,
    )
    assert response.status_code == 400
    assert "&lt;b&gt;large" in response.text
    assert "<b>large" not in response.text
    again = BeautifulSoup(response.text, "html.parser")
    assert {field["value"] for field in again.select("input[name=tier]")} == set(shown)
    assert lab.leases("mona") == []
    assert user.spawners is not None


async def test_a_full_tier_is_refused_with_what_is_free(app: Any, lab: Lab) -> None:
    names = ["nina", "olga", "petra"]
    for name in names:
        add_user(app.db, app=app, name=name).spawner.acquire_wait_seconds = 0
    for name in names[:2]:
        assert (await start(app, name, {"tier": "small"})).status_code == 201
    response = await start(app, "petra", {"tier": "small"})
    assert response.status_code == 503
    message = response.json()["message"]
    assert "small" in message
    assert "cpu" in message
    assert "large" not in message  # not hers to know
    for name in names[:2]:
        await end(app, lab, name)


async def test_the_database_away_is_said_and_nothing_starts(
    app: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_user(app.db, app=app, name="rosa")
    config = Config(lab.config)
    config.MigBroker.database_url = "postgresql://migspawner:secret@127.0.0.1:9/leases"
    monkeypatch.setattr(LeaseTaking, "mig_settings", config)
    response = await start(app, "rosa", {"tier": "small"})
    assert response.status_code == 503
    message = response.json()["message"]
    assert "lease database" in message
    assert "secret" not in message


def without(lab: Lab, *names: str) -> Config:
    """The lab's configuration after its admin has taken tiers out of it."""
    config = Config(lab.config)
    config.MigBroker.tiers = [tier for tier in TIERS if tier["name"] not in names]
    return config


async def until_it_runs(spawner: Any) -> None:
    await until(lambda: spawner.ready or not spawner.active)
    assert spawner.ready


async def test_a_stored_choice_of_a_removed_tier_counts_as_none(
    app: Any, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the admin panel starts servers, and any script: without saying which tier."""
    user = add_user(app.db, app=app, name="sara")
    assert (await start(app, "sara", {"tier": "cpu", "kept": "option"})).status_code == 201
    await end(app, lab, "sara")
    monkeypatch.setattr(LeaseTaking, "mig_settings", without(lab, "cpu"))
    assert (await start(app, "sara")).status_code == 201
    assert [lease.tier for lease in lab.leases("sara")] == ["small"]
    # What others read of the server is what holds.
    assert user.spawner.user_options == {"kept": "option"}
    model = (await api_request(app, "users", "sara")).json()
    assert model["servers"][""]["user_options"] == {"kept": "option"}
    told = [event["message"] async for event in user.spawner.progress()]
    assert "no longer available" in told[0]
    assert "small" in told[0]
    await end(app, lab, "sara")
    # It is reported once: from here on the server has no choice stored.
    assert (await start(app, "sara")).status_code == 201
    told = [event["message"] async for event in user.spawner.progress()]
    assert not any("no longer available" in message for message in told)
    await end(app, lab, "sara")


async def test_a_stored_choice_ends_with_its_group(app: Any, lab: Lab) -> None:
    user = add_user(app.db, app=app, name="tara")
    group = orm.Group(name="vision", users=[user.orm_user])
    app.db.add(group)
    app.db.commit()
    assert (await start(app, "tara", {"tier": "large"})).status_code == 201
    await end(app, lab, "tara")
    app.db.delete(group)
    app.db.commit()
    assert (await start(app, "tara")).status_code == 201
    assert [lease.tier for lease in lab.leases("tara")] == ["small"]
    await end(app, lab, "tara")
    # Asked for by name it is refused, and the refused choice is not kept.
    assert (await start(app, "tara", {"tier": "large"})).status_code == 403
    assert (await start(app, "tara")).status_code == 201
    await end(app, lab, "tara")


async def test_a_stored_choice_ends_with_its_grant(app: Any, lab: Lab) -> None:
    user = add_user(app.db, app=app, name="uma")
    user.spawner.orm_spawner.user_options = {"tier": "card"}
    app.db.commit()
    assert (await start(app, "uma")).status_code == 201
    assert [lease.tier for lease in lab.leases("uma")] == ["small"]
    await end(app, lab, "uma")
    assert (await start(app, "uma", {"tier": "card"})).status_code == 403


@pytest.mark.parametrize("stored", [{"tier": ["small"]}, {"teir": "cpu"}])
async def test_whatever_is_stored_a_server_can_start(app: Any, lab: Lab, stored: Any) -> None:
    name = f"vera{len(str(stored))}"
    user = add_user(app.db, app=app, name=name)
    user.spawner.orm_spawner.user_options = stored
    app.db.commit()
    assert (await start(app, name)).status_code == 201
    assert [lease.tier for lease in lab.leases(name)] == ["small"]
    await end(app, lab, name)


@pytest.mark.parametrize("server", ["", "train"])
async def test_the_form_says_that_the_stored_choice_is_gone(
    app: Any, lab: Lab, several_servers: None, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    """Also where there is one tier, and so usually no form."""
    name = f"wilma{server}"
    user = add_user(app.db, app=app, name=name)
    assert (await start(app, name, {"tier": "cpu"}, server)).status_code == 201
    await end(app, lab, name, server)
    monkeypatch.setattr(LeaseTaking, "mig_settings", without(lab, "cpu", "card"))
    cookies = await app.login_user(name)
    path = f"spawn/{name}/{server}" if server else "spawn"
    page = await get_page(path, app, cookies=cookies)
    assert page.status_code == 200
    form = BeautifulSoup(page.text, "html.parser")
    assert "no longer available" in form.select_one("#migspawner-tiers [role=status]").text
    assert [field["value"] for field in form.select("input[name=tier][checked]")] == ["small"]
    response = await async_requests.post(
        page.url, data={"tier": "small", "_xsrf": cookies["_xsrf"]}, cookies=cookies
    )
    assert response.status_code == 200
    await until_it_runs(user.spawners[server])
    assert [lease.tier for lease in lab.leases(name)] == ["small"]
    await end(app, lab, name, server)
    # Now that one was chosen there is nothing to ask: it starts.
    page = await get_page(path, app, cookies=cookies)
    assert "migspawner-tiers" not in page.text
    await until_it_runs(user.spawners[server])
    await end(app, lab, name, server)


async def test_a_link_to_a_tier_that_is_gone_is_not_remembered(app: Any, lab: Lab) -> None:
    user = add_user(app.db, app=app, name="xenia")
    cookies = await app.login_user("xenia")
    # The hub answers with the form, or after a second with the page of a start that is pending.
    page = await get_page("spawn?tier=gone", app, cookies=cookies)
    assert page.status_code in (200, 400)
    await until(lambda: not user.spawner.active)
    assert lab.leases("xenia") == []
    page = await get_page("spawn", app, cookies=cookies)
    assert page.status_code == 200
    assert BeautifulSoup(page.text, "html.parser").select("input[name=tier]")
    assert "no longer available" not in page.text


async def test_a_server_remembers_its_tier(app: Any, lab: Lab, several_servers: None) -> None:
    add_user(app.db, app=app, name="yara")
    for server, tier in (("", "small"), ("notes", "cpu")):
        assert (await start(app, "yara", {"tier": tier}, server)).status_code == 201
        await end(app, lab, "yara", server)
    cookies = await app.login_user("yara")
    for path, tier in (
        ("spawn", "small"),
        ("spawn/yara/notes", "cpu"),
        ("spawn/yara/new", "small"),
    ):
        page = await get_page(path, app, cookies=cookies)
        form = BeautifulSoup(page.text, "html.parser")
        assert [field["value"] for field in form.select("input[name=tier][checked]")] == [tier]
