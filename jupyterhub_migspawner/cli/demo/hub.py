"""The hub of a demo as a child process: started, waited for, stopped with all that it started."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path

from jupyterhub_migspawner.cli.command import load_quietly
from jupyterhub_migspawner.cli.demo.files import LOG, Ports
from jupyterhub_migspawner.cli.demo.processes import (
    MARK,
    Process,
    Signals,
    adopt_orphans,
    end,
    reap,
)
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import MigspawnerError, Refusal

#: Seconds until a starting hub must answer.
_START = 120.0
#: Seconds a hub gets to stop its servers, its service and its proxy by itself.
_STOP = 45.0

#: What must not reach the demo's hub from a hub or a simulator around this process.
_FOREIGN = ("JUPYTERHUB_", "JPY_", "CONFIGPROXY_", "MIGSPAWNER_")


class Stopped(Exception):
    """A signal asked for the end before the hub was ready."""


def free_ports(public: int) -> Ports:
    """The public port and two free ones. Raises :exc:`Refusal` when the public one is taken."""
    with ExitStack() as stack:
        numbers = []
        for wanted in (public, 0, 0):
            probe = stack.enter_context(socket.socket())
            # As the proxy will bind it: what waits out its time after an earlier demo is no bar.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError as error:
                raise Refusal(
                    f"Port {wanted} on 127.0.0.1 cannot be used ({error.strerror}); choose "
                    "another with --port.",
                    reason="conflict",
                ) from error
            numbers.append(probe.getsockname()[1])
    return Ports(*numbers)


class Hub:
    """A JupyterHub in a session of its own, marked as belonging to the demo in ``directory``."""

    def __init__(self, directory: Path, config: Path, ports: Ports, path: Sequence[str]) -> None:
        self.directory = directory
        self.config = config
        self.ports = ports
        self.log = directory / LOG
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)
        }
        environment[MARK] = str(directory)
        environment["PATH"] = os.pathsep.join([*path, os.environ.get("PATH", os.defpath)])
        adopt_orphans()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # this Python, our own arguments
                [sys.executable, "-m", "jupyterhub", "-f", str(config)],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in the terminal is for the demo alone, which then stops the hub in order.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The hub's process."""
        return self._process.pid

    @property
    def url(self) -> str:
        """Where people log in."""
        return f"http://127.0.0.1:{self.ports.public}/"

    def runs(self) -> bool:
        """Whether the hub is alive; collects dead children on the way."""
        reap(self._process)
        return self._process.returncode is None

    def wait_until_ready(self, signals: Signals) -> None:
        """Return when hub and service answer.

        Raises :exc:`Stopped` when a signal comes first, :exc:`MigspawnerError` when the hub ends or
        does not answer in time.
        """
        deadline = time.monotonic() + _START
        waited_for = [
            lambda: self._status("/hub/health") == 200,
            # Before the service is there, the hub answers for it: with a redirect to its own pages.
            lambda: self._status("/services/migspawner/api/tiers") == 401,
            self._knows_cards,
        ]
        while waited_for:
            if signals.wait(0.2):
                raise Stopped
            if not self.runs():
                raise MigspawnerError(f"The hub did not start.{self._last_lines()}")
            if time.monotonic() > deadline:
                raise MigspawnerError(
                    f"The hub did not answer at {self.url} within {_START:.0f} seconds."
                    f"{self._last_lines()}"
                )
            while waited_for and waited_for[0]():
                waited_for.pop(0)

    def wait_until_ended(self, signals: Signals) -> None:
        """Return when a signal asks for it; raises :exc:`MigspawnerError` when the hub ends."""
        while not signals.wait(5.0):
            if not self.runs():
                raise MigspawnerError(f"The hub ended by itself.{self._last_lines()}")

    def stop(self, signals: Signals) -> list[Process]:
        """Stop the hub and everything it started. Returns what would not go.

        A second signal meanwhile cuts the waiting short.
        """
        if self.runs():
            self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP
        while self.runs() and time.monotonic() < deadline:
            if signals.wait(0.2):
                break
        return end(self.directory, self._process)

    def _status(self, path: str) -> int | None:
        """What the hub, or a service behind its proxy, answers a stranger; None without answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.public, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _knows_cards(self) -> bool:
        """Whether the agent has written its first inventory: until then every tier is empty."""
        now = datetime.now(timezone.utc)
        mig = MigBroker(config=load_quietly(self.config))
        limit = timedelta(seconds=mig.heartbeat_seconds)
        return any(now - node.heartbeat_at < limit for node in mig.open_broker().nodes())

    def _last_lines(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = "\n".join(text.splitlines()[-15:])
        return f" The end of its log, {self.log}:\n{lines}"
