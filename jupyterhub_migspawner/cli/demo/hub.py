"""The hub of a demo as a child process: started, waited for, stopped with all that it started."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

from jupyterhub_migspawner import files
from jupyterhub_migspawner.cli.demo.confinement import FOREIGN
from jupyterhub_migspawner.cli.demo.files import LOG, Ports
from jupyterhub_migspawner.cli.demo.processes import (
    TAG,
    Process,
    Signals,
    adopt_orphans,
    end,
    reap,
)
from jupyterhub_migspawner.cli.source import read_quietly
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import MigspawnerError, Refusal

#: Seconds until a starting hub must answer.
_START = 120.0
#: Seconds a hub gets to stop its servers, its service and its proxy by itself.
_STOP = 45.0

#: Where ports are looked for that the hub and the proxy bind a little later: below those that Linux
#: gives to programs that ask for any (ip(7), ip_local_port_range), so that hardly anybody takes
#: them.
_QUIET_PORTS = range(20_000, 32_000)


class Stopped(Exception):
    """A signal asked for the end before the hub was ready."""


def free_ports(public: int) -> Ports:
    """Return the public port and two free ones, all of 127.0.0.1.

    Raises :exc:`Refusal` when the public one is taken.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(_bound(public))
        except OSError as error:
            raise Refusal(
                f"Port {public} on 127.0.0.1 cannot be used ({error.strerror}); choose another "
                "with --port.",
                reason="conflict",
            ) from error
        found: list[int] = []
        for port in random.sample(_QUIET_PORTS, 200):
            with suppress(OSError):
                stack.enter_context(_bound(port))
                found.append(port)
            if len(found) == 2:
                return Ports(public, *found)
    raise Refusal("There is no free port for the hub on 127.0.0.1.", reason="conflict")


def _bound(port: int) -> socket.socket:
    probe = socket.socket()
    # As the proxy will bind it: what waits out its time after an earlier demo is no bar.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.close()
        raise
    return probe


class Hub:
    """A JupyterHub in a session of its own, tagged as belonging to the demo in ``directory``."""

    def __init__(self, directory: Path, config: Path, ports: Ports, path: Sequence[str]) -> None:
        self.directory = directory
        self.config = config
        self.ports = ports
        self.log = directory / LOG
        self._mig: MigBroker | None = None
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)
        }
        environment[TAG] = str(directory)
        environment["PATH"] = os.pathsep.join([*path, os.environ.get("PATH", os.defpath)])
        adopt_orphans()
        with open(files.open_file(self.log, os.O_WRONLY | os.O_APPEND), "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(config)],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # JupyterHub creates its database with whatever mode the umask leaves.
                umask=0o077,
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
        """Return whether the hub is alive; collect dead children on the way."""
        reap(self._process)
        return self._process.returncode is None

    def wait_until_ready(self, signals: Signals, say: Callable[[str], None]) -> None:
        """Wait until hub and service answer; ``say`` is given each step that is done.

        Raises :exc:`Stopped` when a signal comes first, :exc:`MigspawnerError` when the hub ends or
        does not answer in time.
        """
        deadline = time.monotonic() + _START
        waited_for: list[tuple[str, Callable[[], bool]]] = [
            ("the hub answers", lambda: self._status("/hub/health") == 200),
            (
                "the slice broker's service answers",
                # Before it is there, the hub answers for it: with a redirect to its own pages.
                lambda: self._status("/services/migspawner/api/tiers") == 401,
            ),
            ("the cards are read", self._knows_cards),
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
            while waited_for and waited_for[0][1]():
                say(waited_for.pop(0)[0])

    def wait_until_ended(self, signals: Signals) -> None:
        """Wait until a signal asks for the end. Raises :exc:`MigspawnerError` if the hub ends."""
        while not signals.wait(5.0):
            if not self.runs():
                raise MigspawnerError(f"The hub ended unexpectedly.{self._last_lines()}")

    def stop(self, signals: Signals) -> list[Process]:
        """Stop the hub and everything it started; return what would not go.

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
        """Return the status of hub or service for an unknown client; None without answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.ports.public, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _knows_cards(self) -> bool:
        """Return whether the agent has written its first inventory.

        Until then every tier is empty.
        """
        if self._mig is None:
            self._mig = MigBroker(config=read_quietly(self.config))
        limit = timedelta(seconds=self._mig.heartbeat_seconds)
        broker = self._mig.open_broker()
        nodes = broker.nodes.find()
        return any(broker.now() - node.heartbeat_at < limit for node in nodes)

    def _last_lines(self) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace")
        lines = "\n".join(text.splitlines()[-15:])
        return f" The end of its log, {self.log}:\n{lines}"
