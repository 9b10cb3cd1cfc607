"""The mixin over the least of all spawners: one real process, started and stopped as the hub does.

The order of calls is the hub's own (``jupyterhub.user.User.spawn`` and ``.stop``).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from traitlets.config import Config, LoggingConfigurable

from jupyterhub_migspawner.gpu.simulator.processes import start_time
from jupyterhub_migspawner.spawner import MigSpawnerMixin
from tests.chaos.fuse import burn
from tests.chaos.reports import Process

# Ends when it is told to, and at the latest after the longest of tests.
SERVER = [sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"]


class LeastSpawner(LoggingConfigurable):
    """As much of a spawner as the mixin and the hub use."""

    start_timeout = http_timeout = 60
    _spawn_pending = False
    apply_user_options = None
    internal_ssl = False
    api_token = "a-token"
    cpu_limit = mem_limit = None

    def __init__(self, user: str, config: Config, options: dict[str, Any] | None = None) -> None:
        super().__init__(config=config)
        self.user = SimpleNamespace(
            name=user, groups=[], admin=False, spawners={"": self}, settings={}
        )
        self.orm_spawner = SimpleNamespace(started=None)
        self.name = ""
        self.server = SimpleNamespace(base_url=f"/user/{user}/")
        self.user_options = options or {}
        self._log_name = user
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> Process | None:
        """The server's process, when there is or was one."""
        if self._popen is None:
            return None
        return Process(self._popen.pid, start_time(self._popen.pid) or 0)

    def get_env(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"]}

    async def start(self) -> str:
        burn("before the launch")
        self._popen = subprocess.Popen(SERVER, env=self.get_env(), start_new_session=True)
        burn("after the launch")
        await asyncio.sleep(0)
        return "http://127.0.0.1:1"

    async def poll(self) -> int | None:
        return 0 if self._popen is None else self._popen.poll()

    async def stop(self, now: bool = False) -> None:
        assert self._popen is not None
        burn("before the signal")
        self._popen.send_signal(signal.SIGKILL)
        burn("after the signal")
        while self._popen.poll() is None:
            await asyncio.sleep(0.005)

    async def run_post_stop_hook(self) -> None:
        await asyncio.sleep(0)

    async def get_options_form(self) -> str:
        return ""

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        return
        yield {}

    def clear_state(self) -> None:
        return


class Spawner(MigSpawnerMixin, LeastSpawner):
    """Servers that are nothing but a process with a slice."""

    async def hub_starts(self) -> str:
        """The calls of ``User.spawn``."""
        self.clear_state()
        await self._run_apply_user_options(self.user_options)
        url: str = await self.start()
        return url

    async def hub_stops(self) -> None:
        """The calls of ``User.stop``."""
        try:
            if await self.poll() is None:
                await self.stop()
        finally:
            await self.run_post_stop_hook()
            self.clear_state()
