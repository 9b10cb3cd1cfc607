"""A demo as people run it: ``migspawner demo`` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.demo.credentials import KEY, LINK_PATH, Links
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.file import load_config_file
from tests.databases import Databases
from tests.ports import free_ports

CLI = [sys.executable, "-m", "jupyterhub_migspawner.cli"]

#: The limit of a wait for other processes; it only ends a test that has failed.
PATIENCE = 600.0


class Demo:
    """``migspawner demo`` in a folder. It may be stopped and started again in the same one."""

    def __init__(self, directory: Path, port: int | None = None) -> None:
        self.directory = directory
        self.config = directory / "jupyterhub_config.py"
        self.port = port or free_ports(1)[0]
        self.process: subprocess.Popen[str] | None = None
        self.answer: dict[str, Any] = {}
        self._databases = Databases()
        #: What the caller's environment holds besides this process's own.
        self.environment: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where people log in, with a slash at its end."""
        return str(self.answer["url"])

    @property
    def password(self) -> str:
        """What all its users sign in with."""
        return str(self.answer["password"])

    def launch(self, *flags: str) -> subprocess.Popen[str]:
        """Start the program, whatever comes of it."""
        self.process = subprocess.Popen(
            [*CLI, "demo", "--port", str(self.port), "--dir", str(self.directory), *flags],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def start(self, *flags: str) -> None:
        """Start it and return when it says that it is ready."""
        process = self.launch("--json", *flags)
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            with contextlib.suppress(json.JSONDecodeError):
                self.answer = json.loads(said)
                return
        raise AssertionError(f"the demo ended: {process.communicate()[1]}")

    def refused(self, *flags: str) -> str:
        """Start it where it must refuse; what it says on standard error."""
        out, err = self.launch(*flags).communicate(timeout=PATIENCE)
        assert self.process is not None
        assert self.process.returncode == 1, (out, err)
        assert out == ""
        assert "Traceback" not in err
        return err

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal to the program alone and wait for its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode

    def left(self) -> list[str]:
        """The command lines of all processes that have anything to do with this folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                text = command + b"\0" + (entry / "environ").read_bytes()
                if str(self.directory).encode() in text:
                    found.append(f"{entry.name} {command!r}")
        return found

    def end_everything(self) -> None:
        """Whatever a failed test left."""
        if self.process is not None and self.process.poll() is None:
            self.stop()
        for line in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)

    def cli(self, *words: str) -> Any:
        """What ``migspawner WORDS --json`` says of this demo, asked from another folder."""
        done = subprocess.run(
            [*CLI, *words, "--json", "-f", str(self.config)],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def broker(self) -> Broker:
        """The broker over this demo's lease database, in this process."""
        return self._databases.broker(MigBroker(config=load_config_file(self.config)))

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that other processes do."""
        give_up = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < give_up, self.log()[-6000:]
            time.sleep(0.1)

    def log(self) -> str:
        """What hub, proxy and service have printed."""
        return (self.directory / "jupyterhub.log").read_text(errors="replace")

    def log_in(self, user: str) -> Person:
        """Log in by the form, as a browser does."""
        return Person(self, user)

    def log_in_by_link(self, user: str) -> Person:
        """Log in by a link."""
        return Person(self, user, self.link(user))

    def link(self, user: str) -> str:
        """A login link made now: those of the start are too old on a machine that is slow."""
        key = Links(self.directory).create(user)
        return f"{self.url}hub{LINK_PATH}?{KEY}={key}"


class Person:
    """A user of the demo, with a browser's cookies."""

    def __init__(self, demo: Demo, name: str, link: str = "") -> None:
        self.demo = demo
        self.name = name
        self.session = requests.Session()
        if link:
            assert self.session.get(link, allow_redirects=False).status_code == 302
            return
        page = self.session.get(f"{demo.url}hub/login")
        assert page.status_code == 200, page.text
        form = {
            "username": name,
            "password": demo.password,
            "_xsrf": self.session.cookies.get("_xsrf", path="/hub/"),
        }
        answer = self.session.post(f"{demo.url}hub/login", data=form, allow_redirects=False)
        assert answer.status_code == 302, answer.text

    def page(self, path: str) -> str:
        """A page of the hub."""
        answer = self.session.get(self.demo.url + path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def api(self, method: str, path: str, body: Any = None) -> requests.Response:
        """One call of the hub's REST API, signed in by cookie."""
        return self.session.request(
            method,
            f"{self.demo.url}hub/api/{path}",
            json=body,
            headers={
                "X-XSRFToken": self.session.cookies.get("_xsrf", path="/hub/"),
                "Referer": f"{self.demo.url}hub/home",
            },
        )

    def start(self, tier: str) -> None:
        """Start the own server and wait until it is ready."""
        answer = self.api("POST", f"users/{self.name}/server", {"user_options": {"tier": tier}})
        assert answer.status_code in (201, 202), answer.text
        self.demo.until(lambda: self.server()["ready"])

    def server(self) -> dict[str, Any]:
        """The own server as the hub sees it."""
        servers = self.api("GET", f"users/{self.name}").json()["servers"]
        server: dict[str, Any] = servers.get("", {"ready": False})
        return server

    def token(self) -> str:
        """A token, to talk to the own server with."""
        answer = self.api("POST", f"users/{self.name}/tokens", {})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    def start_kernel(self) -> None:
        """Start a kernel on the own server."""
        url = f"{self.demo.url}user/{self.name}/api/kernels"
        self.post(url, {"Authorization": f"token {self.token()}"})

    def post(self, url: str, headers: dict[str, str]) -> Any:
        """What a server answers when it has made something new."""
        answer = requests.post(url, headers=headers, timeout=PATIENCE)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()
