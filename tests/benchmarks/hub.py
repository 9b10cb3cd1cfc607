"""Real hubs for the benchmarks: with the mixin, and the same without it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.launchers.engines import Engine, plain_settings, settings
from tests.launchers.systemd_machine import Inside, Machine
from tests.ports import free_ports

HERE = Path(__file__).parent

CONFIG = """
import json, os, sys
import jupyterhub
c = get_config()  # noqa
MIXIN = {mixin!r}
if MIXIN:
    import jupyterhub_migspawner
    jupyterhub_migspawner.setup(c)
    c.JupyterHub.spawner_class = "mig-simple"
    c.MigBroker.nvml = "sim:{directory}/cards.json"
    c.MigBroker.database_url = "sqlite:///{directory}/leases.sqlite"
    c.MigBroker.tiers = [{{"name": "small", "profile": "1g.5gb"}}]
else:
    c.JupyterHub.spawner_class = "simple"
if {shared!r}:
    # Servers that are all one process, started beforehand: what remains on the event loop is the
    # hub's own work and the acquiring, not forty launches.
    from jupyterhub.spawner import Spawner
    from jupyterhub_migspawner.spawner import MigSpawnerMixin

    class Shared(Spawner):
        running = False
        async def start(self):
            self.get_env()
            self.running = True
            return "127.0.0.1", {shared!r}
        async def poll(self):
            return None if self.running else 0
        async def stop(self, now=False):
            self.running = False

    class MigShared(MigSpawnerMixin, Shared):
        pass

    c.JupyterHub.spawner_class = MigShared if MIXIN else Shared
if {units!r}:
    c.JupyterHub.spawner_class = "mig-systemd" if MIXIN else "systemd"
    c.SystemdSpawner.username_template = "root"
    c.MigSystemdSpawner.isolation = "systemd"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {token!r}
c.Authenticator.allow_all = True
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.auth_token = {token!r}
c.JupyterHub.db_url = "sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie_secret"
c.JupyterHub.services = [{{"name": "bench", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [
    {{"name": "bench", "services": ["bench"], "scopes": ["admin:users", "admin:servers"]}}
]
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 60}}
c.JupyterHub.log_level = "WARN"
if {notebook!r}:
    c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
    c.Spawner.args = ["--allow-root"]
    c.Spawner.http_timeout = c.Spawner.start_timeout = 120
    c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 120}}
else:
    c.Spawner.cmd = [sys.executable, "-S", "-E", "{tiny}"]
c.Spawner.environment = {{"TINY_VERSION": jupyterhub.__version__}}
c.SimpleLocalProcessSpawner.home_dir_template = "{directory}/home/{{username}}"
{extra}

# How long the event loop is away at most, by the wall clock, callback by callback.
import asyncio.events, time
longest = [0.0]
run = asyncio.events.Handle._run

def timed(self):
    begin = time.perf_counter()
    try:
        return run(self)
    finally:
        longest[0] = max(longest[0], time.perf_counter() - begin)
        if os.path.exists("{directory}/measure"):
            os.unlink("{directory}/measure")
            longest[0] = 0.0
        if os.path.exists("{directory}/report"):
            os.unlink("{directory}/report")
            with open("{directory}/longest.tmp", "w") as file:
                json.dump(longest[0], file)
            os.replace("{directory}/longest.tmp", "{directory}/longest")

asyncio.events.Handle._run = timed
"""


class Hub:
    """One hub with its proxy, as a process group of its own; ends with the ``with`` block."""

    def __init__(
        self,
        directory: Path,
        *,
        mixin: bool,
        cards: int = 2,
        shared_server: bool = False,
        notebook: bool = False,
        machine: Machine | None = None,
        engine: Engine | None = None,
    ) -> None:
        """``machine`` is one that systemd has booted, in which hub and servers run.

        ``engine`` is a container engine, whose containers the servers are.
        """
        self.directory = directory
        self.machine = machine
        self.engine = engine
        self.mixin = mixin
        self.cards = cards
        self.notebook = notebook
        self.shared_port = free_ports(1)[0] if shared_server else 0
        self.shared: subprocess.Popen[bytes] | None = None
        self.token = secrets.token_hex(16)
        directory.mkdir(parents=True)

    def __enter__(self) -> Hub:
        if self.mixin:
            from jupyterhub_migspawner.gpu.simulator import create_state

            create_state(
                str(self.directory / "cards.json"),
                cards=self.cards,
                model="A100-SXM4-40GB",
                layouts=[["1g.5gb"] * 7] * self.cards,
            )
        if self.shared_port:
            url = f"http://127.0.0.1:{self.shared_port}/"
            self.shared = subprocess.Popen(
                [sys.executable, "-S", "-E", str(HERE / "tiny_server.py")],
                env={"JUPYTERHUB_SERVICE_URL": url, "TINY_VERSION": version("jupyterhub")},
            )
        port, hub_port, api_port = free_ports(3)
        config = self.directory / "jupyterhub_config.py"
        config.write_text(
            CONFIG.format(
                mixin=self.mixin,
                directory=self.directory,
                port=port,
                hub_port=hub_port,
                api_port=api_port,
                token=self.token,
                shared=self.shared_port,
                tiny=HERE / "tiny_server.py",
                notebook=self.notebook,
                units=self.machine is not None,
                extra=self._containers(),
            )
        )
        self.url = f"http://127.0.0.1:{port}/hub/api/"
        bins = [str(Path(sys.prefix) / "bin"), str(Path(sys.prefix) / "proxy/node_modules/.bin")]
        self.log = (self.directory / "hub.log").open("wb")
        launch = subprocess.Popen if self.machine is None else Inside
        self.process = launch(
            self._there(sys.executable, "-m", "jupyterhub", "-f", str(config)),
            cwd=self.directory,
            env={**os.environ, "PATH": ":".join([*bins, os.environ["PATH"]])},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        give_up = time.monotonic() + 60
        while True:
            try:
                if self.api("GET", "users")[0] == 200:
                    break
            except OSError:
                pass  # the proxy is not up yet
            if time.monotonic() > give_up or self.process.poll() is not None:
                self.__exit__()
                raise RuntimeError((self.directory / "hub.log").read_text())
            time.sleep(0.1)
        if self.mixin:
            self._wait_for_slices()
        return self

    def _there(self, *command: str) -> list[str]:
        """The command line that runs a command where the hub runs."""
        if self.engine is not None:
            return [*self.engine.inside, *command]
        return (
            list(command)
            if self.machine is None
            else self.machine.entered(*command, cwd=self.directory)
        )

    def _containers(self) -> str:
        """What the hub's file has for servers in containers; empty for others."""
        if self.engine is None:
            return ""
        if self.mixin:
            return settings(self.engine, extra_host_config={"init": True})
        return plain_settings(self.engine, extra_host_config={"init": True})

    def _wait_for_slices(self) -> None:
        """The service's first inventory; before it there is nothing to lease."""
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            command = [sys.executable, "-m", "jupyterhub_migspawner.cli", "slices", "--json"]
            command += ["-f", str(self.directory / "jupyterhub_config.py")]
            done = subprocess.run(
                self._there(*command), capture_output=True, text=True, check=False
            )
            if done.returncode == 0 and len(json.loads(done.stdout)) == 7 * self.cards:
                return
            time.sleep(0.5)
        raise RuntimeError("the service never took its inventory")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()
        if self.shared is not None:
            self.shared.terminate()
            self.shared.wait()

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One call of the hub's REST API: status and JSON."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                text = response.read()
                return response.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                return error.code, json.loads(text)
            except ValueError:  # a page: the proxy's own, before the hub is up
                return error.code, text.decode()

    def spawn_seconds(self, user: str) -> float:
        """Seconds from request to ready of one server, which is stopped again."""
        begin = time.perf_counter()
        status, answer = self.api("POST", f"users/{user}/server", {})
        seconds = time.perf_counter() - begin
        if status != 201:
            raise RuntimeError(f"spawn answered {status}: {answer}")
        self.api("DELETE", f"users/{user}/server")
        while self.api("GET", f"users/{user}")[1]["servers"]:
            time.sleep(0.05)
        return seconds

    def longest_block(self) -> float:
        """Seconds of the longest single run of a callback since :meth:`measure`."""
        (self.directory / "report").touch()
        result = self.directory / "longest"
        while not result.exists():
            time.sleep(0.05)
        longest = float(json.loads(result.read_text()))
        result.unlink()
        return longest

    def measure(self) -> None:
        """Begin to look for the longest block, from zero."""
        (self.directory / "measure").touch()
        while (self.directory / "measure").exists():
            time.sleep(0.05)
