"""The node's agent beside the web server: it lives as long as the service, and not with its web."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.gpu.simulator import create_state
from jupyterhub_migspawner.service.node import AgentProcess


@pytest.fixture
def config(tmp_path: Path) -> str:
    create_state(tmp_path / "cards.json", cards=1, layouts=[["1g.5gb"]])
    path = tmp_path / "jupyterhub_config.py"
    path.write_text(
        "c = get_config()\n"
        "c.MigBroker.tiers = [{'name': 'small', 'profile': '1g.5gb'}]\n"
        "c.MigBroker.nvml = 'sim:cards.json'\n"
        "c.MigBroker.tick_seconds = 0.05\n"
    )
    return str(path)


def lives(pid: int) -> bool:
    try:
        return b") Z " not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


async def test_a_killed_agent_is_started_again_and_ends_with_the_service(
    config: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker = MigBroker(config=load_config_file(config)).open_broker()
    agent, stop = AgentProcess(config), asyncio.Event()
    running = asyncio.ensure_future(agent.run(stop))
    while not broker.slices.find():
        await asyncio.sleep(0.05)
    first = agent.pid
    with caplog.at_level(logging.ERROR):
        os.kill(first, signal.SIGKILL)
        while agent.pid == first:
            await asyncio.sleep(0.05)
    assert "The agent of this node ended (signal SIGKILL)" in caplog.text
    second = agent.pid
    stop.set()
    assert await running
    assert not lives(second)


async def test_it_ends_when_the_service_is_killed(config: str) -> None:
    """Nobody tells it then: the end of its input does."""
    code = (
        "import asyncio, sys\n"
        "from jupyterhub_migspawner.service.node import AgentProcess\n"
        "async def main():\n"
        "    agent = AgentProcess(sys.argv[1])\n"
        "    running = asyncio.ensure_future(agent.run(asyncio.Event()))\n"
        "    while not agent.pid:\n"
        "        await asyncio.sleep(0.05)\n"
        "    print(agent.pid, flush=True)\n"
        "    await running\n"
        "asyncio.run(main())\n"
    )
    service = subprocess.Popen(
        [sys.executable, "-c", code, config], stdout=subprocess.PIPE, text=True
    )
    assert service.stdout is not None
    pid = int(await asyncio.get_running_loop().run_in_executor(None, service.stdout.readline))
    service.kill()
    service.wait()
    service.stdout.close()
    while lives(pid):
        await asyncio.sleep(0.05)


async def test_it_knows_nothing_of_the_services_token(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "secret")
    agent, stop = AgentProcess(config), asyncio.Event()
    running = asyncio.ensure_future(agent.run(stop))
    while not agent.pid:
        await asyncio.sleep(0.05)
    assert b"JUPYTERHUB_API_TOKEN" not in Path(f"/proc/{agent.pid}/environ").read_bytes()
    stop.set()
    assert await running


async def test_an_agent_that_cannot_be_started_is_tried_again(
    config: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a machine with no process or descriptor left."""
    agent, stop, tries = AgentProcess(config), asyncio.Event(), []
    start = agent._start

    async def refused() -> asyncio.subprocess.Process:
        tries.append(agent.pid)
        if len(tries) == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return await start()

    agent._start = refused  # type: ignore[method-assign]
    running = asyncio.ensure_future(agent.run(stop))
    while not agent.pid and not running.done():
        await asyncio.sleep(0.01)
    assert not running.done()
    assert "The agent of this node cannot be started (Resource temporarily unav" in caplog.text
    stop.set()
    assert await running
