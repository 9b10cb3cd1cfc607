"""Another local user in a day of chaos: half-sent requests, and a hand at the service's port.

Only as root can a test become another user; otherwise it is the hub's own user who does the same.
"""

from __future__ import annotations

import os
import subprocess

STRANGER = 61234
"""A uid that nobody on a test machine has."""

HALF_SENT = 500
"""Requests that are begun and never ended; they are let go of after :data:`SECONDS`."""

SECONDS = 10.0
"""Seconds for which an unknown client is there."""

_HALF_SEND = """
import socket, sys, time
kept = []
for number in range(int(sys.argv[2])):
    each = socket.socket()
    each.setblocking(False)
    try:
        each.connect(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        pass
    kept.append(each)
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    for each in kept:
        try:
            each.send(b"GET /services/migspawner/ HTTP/1.1\\r\\nHost: x\\r\\n")
        except OSError:
            pass
    time.sleep(0.5)
"""

#: Prints every request that it hears with something in it that opens doors.
_TAKE = """
import socket, sys, time
until = time.monotonic() + float(sys.argv[2])
while time.monotonic() < until:
    try:
        taken = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    except OSError:
        time.sleep(0.005)
        continue
    taken.settimeout(0.5)
    while time.monotonic() < until:
        try:
            connection, _ = taken.accept()
            connection.settimeout(2)
            heard = connection.recv(65536).lower()
            connection.close()
        except OSError:
            continue
        if b"authorization" in heard or b"cookie" in heard:
            print(heard.partition(b"\\r")[0].decode("latin-1"), flush=True)
"""


class Strangers:
    """Starts them, and hears of what they heard."""

    def __init__(self) -> None:
        self._takers: list[subprocess.Popen[str]] = []
        self._others: list[subprocess.Popen[str]] = []

    def half_send(self, port: int) -> None:
        """Open many connections to the service and send half a request on each."""
        if port:
            self._others.append(_start(_HALF_SEND, port, HALF_SENT, SECONDS))

    def wait_for(self, port: int) -> None:
        """Try to take the service's port from now on."""
        if port:
            self._takers.append(_start(_TAKE, port, SECONDS))

    def heard(self) -> list[str]:
        """The requests with secrets that were sent to them; waits until they have gone."""
        return [line for each in self._takers for line in each.communicate()[0].splitlines()]

    def leave(self) -> None:
        """End those who are still there."""
        for each in [*self._takers, *self._others]:
            each.kill()
            each.wait()
            assert each.stdout is not None
            each.stdout.close()


def _start(code: str, *arguments: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["/usr/bin/python3", "-c", code, *map(str, arguments)],
        user=STRANGER if os.geteuid() == 0 else None,
        cwd="/",
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
