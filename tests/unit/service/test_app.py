"""How the service starts, and how it does not."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient

from jupyterhub_migspawner.broker.sessions import Sessions
from jupyterhub_migspawner.errors import ConfigError, DatabaseError
from jupyterhub_migspawner.gpu.simulator import create_state
from jupyterhub_migspawner.hub.ports import ServicePorts
from jupyterhub_migspawner.hub.wiring import HUB_PID, service_entry
from jupyterhub_migspawner.service.address import Address, listening_address
from jupyterhub_migspawner.service.app import from_environment, main

HUB_ENVIRONMENT = {
    "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:10101",
    "JUPYTERHUB_SERVICE_PREFIX": "/services/migspawner/",
    "JUPYTERHUB_API_URL": "http://127.0.0.1:8081/hub/api",
    "JUPYTERHUB_API_TOKEN": "secret",
    "JUPYTERHUB_CLIENT_ID": "service-migspawner",
}


def test_a_hub_that_was_killed_before_its_service_looked_is_noticed(tmp_path: Path) -> None:
    """A process whose parent has died has another parent, from its first line on perhaps."""
    create_state(tmp_path / "cards.json", cards=1, layouts=[["1g.5gb"] * 7])
    config = config_file(
        tmp_path,
        "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
        "c.MigBroker.nvml = 'sim:cards.json'",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hub = subprocess.Popen(["true"])
    hub.wait()
    done = subprocess.run(
        [sys.executable, "-m", "jupyterhub_migspawner.service", "--config", config],
        env={
            **os.environ,
            **HUB_ENVIRONMENT,
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
            HUB_PID: str(hub.pid),
        },
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    assert "The hub that started this service is gone." in done.stderr
    assert done.returncode == 0


def test_setup_tells_the_service_which_process_the_hub_is(tmp_path: Path) -> None:
    entry = service_entry(tmp_path, ServicePorts(None))
    assert entry["environment"][HUB_PID] == str(os.getpid())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:10101", Address("127.0.0.1", 10101)),
        ("http://127.8.0.1:1", Address("127.8.0.1", 1)),
        ("http://localhost:443/", Address("localhost", 443)),
        ("http://[::1]:80", Address("::1", 80)),
    ],
)
def test_it_listens_where_the_hub_says(url: str, address: Address) -> None:
    assert listening_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "http://0.0.0.0:10101",
        "http://10.0.0.5:10101",
        "http://[::]:80",
        "http://example.org:80",
        "http://127.0.0.1",
        "http://127.0.0.1:port",
        "http://127.0.0.1:99999",
        "",
        "nonsense",
        "https://127.0.0.1:10101",
    ],
)
def test_it_listens_nowhere_else(url: str) -> None:
    with pytest.raises(ConfigError, match=r"'url' in JupyterHub\.services"):
        listening_address(url)


def test_without_a_hub_it_says_who_starts_it() -> None:
    with pytest.raises(ConfigError, match=r"JUPYTERHUB_API_TOKEN.*the hub has to start"):
        from_environment("config.py", {})


def config_file(folder: Path, text: str) -> str:
    path = folder / "jupyterhub_config.py"
    path.write_text("c = get_config()\n" + text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("c.MigBroker.tiers = [{'name': 'small', 'profil': '1g.5gb'}]", "profil"),
        ("c.MigBroker.tiers = []", "tiers"),
        ("1 / 0", "ZeroDivisionError"),
        (
            "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
            "c.MigBroker.database_url = 'sqlite:////nowhere/at/all.sqlite'",
            "/nowhere/at/all.sqlite",
        ),
    ],
)
def test_what_is_wrong_is_a_sentence_and_no_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
    says: str,
) -> None:
    for name, value in HUB_ENVIRONMENT.items():
        monkeypatch.setitem(os.environ, name, value)
    with caplog.at_level(logging.CRITICAL):
        assert main(["--config", config_file(tmp_path, text)]) == 1
    assert "cannot start" in caplog.text
    assert says in caplog.text
    assert "Traceback" not in caplog.text


async def test_it_leaves_the_garbage_collector_little_to_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**HUB_ENVIRONMENT, "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}"}
    create_state(tmp_path / "cards.json", cards=1, layouts=[["1g.5gb"]])
    service = from_environment(
        config_file(
            tmp_path,
            "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
            "c.MigBroker.nvml = 'sim:cards.json'\n"
            "c.MigBroker.examine_seconds = 0.05",
        ),
        environment,
    )
    rounds = asyncio.Event()
    standings, asked = Sessions.standings, list[int]()

    def count(sessions: Sessions, *given: Any, **named: Any) -> Any:
        asked.append(1)
        if len(asked) >= 6:
            loop.call_soon_threadsafe(rounds.set)
        return standings(sessions, *given, **named)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Sessions, "standings", count)
    gc.unfreeze()
    there = len(gc.get_objects())
    stop = asyncio.Event()
    running = asyncio.ensure_future(service.run(stop))
    await asyncio.sleep(0)
    assert len(gc.get_objects()) < there / 2
    frozen = gc.get_freeze_count()
    await asyncio.wait_for(rounds.wait(), 60)
    assert gc.get_freeze_count() <= frozen  # what came later may be let go of
    stop.set()
    assert await running


async def test_it_serves_until_it_is_told_to_end_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**HUB_ENVIRONMENT, "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}"}
    for name, value in environment.items():
        monkeypatch.setitem(os.environ, name, value)
    create_state(tmp_path / "cards.json", cards=1, layouts=[["1g.5gb"]])
    events = tmp_path / "events.log"
    service = from_environment(
        config_file(
            tmp_path,
            "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
            "c.MigBroker.nvml = 'sim:cards.json'\n"
            "c.MigBroker.tick_seconds = 0.05\n"
            "import logging\n"
            f"c.EventLogger.handlers = [logging.FileHandler({str(events)!r}, delay=True)]",
        ),
        environment,
    )
    stop = asyncio.Event()
    running = asyncio.ensure_future(service.run(stop))
    broker = service.application.settings["parts"].broker
    while not broker.slices.find():
        await asyncio.sleep(0.01)
    while not events.exists():
        broker.layouts.record_step(broker.cards.find()[0].uuid, "n1", "nothing")
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{port}/services/migspawner/api/tiers"
    answer = await AsyncHTTPClient().fetch(url, raise_error=False)
    assert answer.code == 401
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}"):
        await from_environment(str(tmp_path / "jupyterhub_config.py"), environment).run(
            asyncio.Event()
        )
    stop.set()
    assert await running
    with pytest.raises(OSError):  # noqa: PT011 (refused, by whatever name)
        socket.create_connection(("127.0.0.1", port), timeout=5)


async def test_a_hub_without_cards_runs_no_agent(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    service = from_environment(
        config_file(
            tmp_path,
            "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
            "c.MigBroker.agent = False\n"
            "c.MigBroker.nvml = 'sim:there-are-no-cards.json'\n",
        ),
        {**HUB_ENVIRONMENT, "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}"},
    )
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = children.read_text()
    stop = asyncio.Event()
    running = asyncio.ensure_future(service.run(stop))
    url = f"http://127.0.0.1:{port}/services/migspawner/api/tiers"
    while (await AsyncHTTPClient().fetch(url, raise_error=False)).code != 401:
        await asyncio.sleep(0.01)
    assert children.read_text() == before
    stop.set()
    assert await running
    assert service.application.settings["parts"].broker.nodes.find() == ()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.py"):
        from_environment(str(tmp_path / "missing.py"), HUB_ENVIRONMENT)


def test_a_database_that_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "theirs.sqlite") as connection:
        connection.execute("create table recipes (name text)")
    text = (
        "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
        "c.MigBroker.database_url = 'sqlite:///theirs.sqlite'"
    )
    with pytest.raises(DatabaseError):
        from_environment(config_file(tmp_path, text), HUB_ENVIRONMENT)
    with sqlite3.connect(tmp_path / "theirs.sqlite") as connection:
        names = [row[0] for row in connection.execute("select name from sqlite_master")]
    assert names == ["recipes"]
