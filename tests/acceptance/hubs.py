"""Real hubs for black-box tests: ``jupyterhub -f`` with its proxy, service and servers."""

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.errors import ConfigError, DatabaseError
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.databases import Databases
from tests.ports import free_ports

#: Seconds to wait for a process to end; the limit only ends a test that has failed. A hub first
#: stops its service and its servers, one after the other, each with timeouts of its own.
END_LIMIT = 600

CONFIG = """
import sys
import jupyterhub_migspawner
import jupyterhub.spawner
sys.path.append({tests!r})
from tests.ports import free_ports
# No other process of a busy machine gets a server's port before the server has bound it.
jupyterhub.spawner.random_port = lambda: free_ports(1)[0]
c = get_config()  # noqa
jupyterhub_migspawner.setup(c)
c.JupyterHub.spawner_class = "mig-simple"
c.MigBroker.nvml = "sim:{directory}/cards.json"
c.MigBroker.tiers = [
    {{"name": "cpu", "profile": "none"}},
    {{"name": "small", "profile": "1g.5gb", "default": True}},
    {{"name": "large", "profile": "3g.20gb", "groups": ["vision"]}},
    {{"name": "card", "profile": "whole", "approval": True, "max_hours": 48}},
]
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"admin"}}
c.JupyterHub.bind_url = "http://127.0.0.1:{port}{base_url}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.auth_token = {token!r}
c.ConfigurableHTTPProxy.pid_file = "{directory}/proxy.pid"
c.ConfigurableHTTPProxy.should_start = True
c.JupyterHub.db_url = "sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie_secret"
c.JupyterHub.services = [{{"name": "test", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [
    {{
        "name": "test",
        "services": ["test"],
        "scopes": ["admin:users", "admin:servers", "access:servers", "tokens", "admin:groups"],
    }}
]
c.JupyterHub.concurrent_spawn_limit = 0
# A start or a stop is answered when it is done, or shortly before our calls would time out.
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 140, "slow_stop_timeout": 140}}
c.Spawner.cmd = [sys.executable, "-S", "-E", "{tiny}"]
c.Spawner.environment = {{"TINY_VERSION": "0"}}
c.Spawner.start_timeout = c.Spawner.http_timeout = 120
c.SimpleLocalProcessSpawner.home_dir_template = "{directory}/home/{{username}}"
{extra}
"""


class Hub:
    """A hub in a folder of its own. It may be killed and started again in the same folder."""

    def __init__(
        self,
        directory: Path,
        *,
        layouts: list[list[str]],
        extra: str = "",
        base_url: str = "/",
        tree: Path | None = None,
    ) -> None:
        from jupyterhub_migspawner.gpu.simulator import create_state

        self.directory = directory
        # The tests may run as root, and every user of the machine reaches this hub.
        self.token, self.password = secrets.token_hex(16), secrets.token_hex(16)
        create_state(
            str(directory / "cards.json"),
            cards=len(layouts),
            model="A100-SXM4-40GB",
            layouts=layouts,
            tree=None if tree is None else str(tree),
        )
        port, hub_port, api_port = free_ports(3)
        self.config = directory / "jupyterhub_config.py"
        self.config.write_text(
            CONFIG.format(
                directory=directory,
                port=port,
                hub_port=hub_port,
                api_port=api_port,
                base_url=base_url,
                token=self.token,
                password=self.password,
                tests=str(Path(__file__).parents[2]),
                tiny=Path(__file__).parent.parent / "benchmarks" / "tiny_server.py",
                extra=extra,
            )
        )
        self.url = f"http://127.0.0.1:{port}{base_url}"
        self.process: subprocess.Popen[bytes] | None = None
        #: What the hub alone has: variables of its environment, settings of its command line.
        self.environ: dict[str, str] = {}
        self.overrides: dict[str, str] = {}
        #: The program that becomes the hub, with its arguments; none of its own.
        self.prefix: list[str] = []
        self._launched = datetime.min.replace(tzinfo=timezone.utc)
        self._broker: tuple[tuple[object, ...], Broker] | None = None
        self._databases = Databases()

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the hub's process, whatever comes of it."""
        self._launched = datetime.now(timezone.utc)
        bins = [str(Path(sys.prefix) / "bin"), str(Path(sys.prefix) / "proxy/node_modules/.bin")]
        environ = {k: v for k, v in os.environ.items() if k != "MIGSPAWNER_NVML"}
        with (self.directory / "hub.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self.prefix,
                    *(sys.executable, "-m", "jupyterhub", "-f", str(self.config)),
                    *(f"--MigBroker.{name}={value}" for name, value in self.overrides.items()),
                ],
                cwd=self.directory,
                env={**environ, **self.environ, "PATH": ":".join([*bins, os.environ["PATH"]])},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.process

    def start(self) -> None:
        """Start the hub and wait until it and its service answer and the cards are reported."""
        process = self.launch()

        def answers() -> bool:
            assert process.poll() is None, self.log()
            try:
                return self.api("GET", "users")[0] == 200
            except (OSError, ValueError):  # the proxy is up before it knows the hub
                return False

        self.until(answers)
        self.until(self.service_answers)
        self.until(self.agent_reports)

    @contextmanager
    def running(self) -> Iterator[Hub]:
        """The hub, started, until the end of the block; nothing of it is left then."""
        try:
            self.start()
            yield self
        finally:
            try:
                self.stop()
            finally:
                self.end_everything()

    def stop(self) -> None:
        """SIGTERM, and everything the hub started ends with it."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(END_LIMIT)

    def kill(self) -> None:
        """SIGKILL to the hub itself, and to nothing else."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(END_LIMIT)

    def service_pids(self) -> list[int]:
        """The processes of this hub's service; of a killed hub's, too, until it notices."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"jupyterhub_migspawner.service" in line and str(self.config).encode() in line:
                    found.append(int(entry.name))
        return found

    def service_answers(self) -> bool:
        """Whether the service has its route and runs: until then 404 comes from the hub itself."""
        return self.service("GET", "tiers")[0] not in (404, 503)

    def kill_service(self) -> None:
        """SIGKILL to the service, and so to the agent in it."""
        for pid in self.service_pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended by itself just now

    def restart(self) -> None:
        """Have a new hub read the configuration; servers go on meanwhile."""
        self.kill()
        self.until(lambda: not self.service_pids())
        self.start()

    def end_everything(self) -> None:
        """Whatever a killed hub left in its session or marked as its servers."""
        from tests.processes import marked_processes

        try:
            attempts = {lease.attempt for lease in self.rows(include_past=True)}
        except (ConfigError, DatabaseError):
            return  # such a hub never started, nor did a server of it
        for attempt, processes in marked_processes().items():
            if attempt in attempts:
                for process in processes:
                    process.signal(signal.SIGKILL, Path("/proc"))

    def log(self) -> str:
        """What the hub, its proxy and its service have printed."""
        return (self.directory / "hub.log").read_text(errors="replace")

    def until(self, holds: Callable[[], bool], seconds: float = 600) -> None:
        """Wait for something other processes do; its limit only ends a test that has failed."""
        give_up = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < give_up, self.log()[-6000:]
            time.sleep(0.1)

    def api(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """One call of the hub's REST API: status and JSON."""
        return self.call(method, f"{self.url}hub/api/{path}", body, token)

    def service(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """One call of the broker's REST API."""
        return self.call(method, f"{self.url}services/migspawner/api/{path}", body, token)

    def call(self, method: str, url: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """One HTTP call with JSON both ways."""
        data = body if isinstance(body, bytes) else None
        if body is not None and data is None:
            data = json.dumps(body).encode()
        request = urllib.request.Request(
            url,
            method=method,
            data=data,
            headers={
                "Authorization": f"token {token or self.token}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=150) as response:
                text = response.read()
                return response.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                return error.code, json.loads(text)
            except ValueError:  # a page: the proxy's own, before the hub is up
                return error.code, text.decode()

    def token_of(self, user: str, scopes: list[str] | None = None) -> str:
        """A token of one user, as they would make on the hub's token page."""
        body = {"scopes": scopes} if scopes else {}
        status, answer = self.api("POST", f"users/{user}/tokens", body)
        assert status == 201, answer
        return str(answer["token"])

    def agent_reports(self) -> bool:
        """Whether the agent has reported since the hub was launched.

        A process that looks for the first time sees it. On a slow machine what an earlier agent has
        said may be too old by now for new leases.
        """
        mig = self.mig()
        store = Store.open(mig.resolved_database_url())
        try:
            broker = Broker(store, mig.settings())
            reports = [node.heartbeat_at for node in broker.nodes.find()]
            return any(at > self._launched for at in reports) and bool(broker.slices.find())
        finally:
            store.close()

    def mig(self) -> MigBroker:
        """What the hub's file, environment and command line say now."""
        with patch.dict(os.environ, self.environ):
            config = load_config_file(self.config)
        config.MigBroker.update(self.overrides)
        return MigBroker(config=config)

    def broker(self) -> Broker:
        """The broker over the hub's lease database, in this process.

        The hub's file is read again only for a start of the hub and a change of the file: waits
        look every tenth of a second, and a look must cost next to nothing.
        """
        read = (
            self._launched,
            self.config.stat().st_mtime_ns,
            tuple(self.environ.items()),
            tuple(self.overrides.items()),
        )
        if self._broker is None or self._broker[0] != read:
            self._broker = read, self._databases.broker(self.mig())
        return self._broker[1]

    def rows(self, *, include_past: bool = False) -> tuple[LeaseRow, ...]:
        """The leases as the database has them."""
        return self.broker().leases.find(include_past=include_past)

    def kinds(self) -> list[str]:
        """The kinds of all events, oldest first."""
        return [event.kind for event in self.broker().events.find(limit=10_000)]

    def cli(self, *arguments: str) -> Any:
        """What ``migspawner ARGUMENTS --json`` says."""
        done = self.run_cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def run_cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``migspawner ARGUMENTS -f CONFIG``."""
        return subprocess.run(
            [sys.executable, "-m", "jupyterhub_migspawner.cli", *arguments, "-f", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
            env={k: v for k, v in os.environ.items() if k != "MIGSPAWNER_NVML"},
        )
