"""Real Jupyter Servers with this package's extension, of the length of a test."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.notebook import PATH
from tests.ports import free_ports

# Every user of the machine reaches these servers, which run as the tests do.
TOKEN = secrets.token_hex(16)


class Server:
    """A Jupyter Server of its own, with or without a slice."""

    def __init__(self, folder: Path, attempt: str) -> None:
        (port,) = free_ports(1)
        self.attempt = attempt
        self.url = f"http://127.0.0.1:{port}/user/ada/"
        environ = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTER_TOKEN": TOKEN,
            "MIGSPAWNER_ATTEMPT": attempt,
        }
        options = {
            "port": str(port),
            "base_url": "/user/ada/",
            "ip": "127.0.0.1",
            "allow_root": "True",
            "open_browser": "False",
            "root_dir": str(folder),
            "shutdown_no_activity_timeout": "0",
        }
        arguments = [f"--ServerApp.{name}={value}" for name, value in options.items()]
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyter_server", *arguments],
                env=environ,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if self.call("GET", "api/status")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise AssertionError((folder / "log").read_text())

    def call(
        self, method: str, path: str = PATH, body: Any = None, token: str = TOKEN
    ) -> tuple[int, Any]:
        """A request of the service or of the page."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if method == "GET" else data,
            headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                text = response.read()
                return response.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else None

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
