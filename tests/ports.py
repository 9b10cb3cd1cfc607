"""Ports of 127.0.0.1 that stay free until a test's processes bind them, and between their lives.

A port that the kernel gives out and that is closed again may be given to another process before the
one it was meant for has bound it, and so may the port of a hub that is being restarted. These are
below the range from which the kernel gives out ports (ip(7), ``ip_local_port_range``), and each is
reserved among the test processes of this machine by a lock that lasts as long as the process.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_RANGE = range(12_000, 20_000)

#: Descriptors that hold the locks.
_held: list[int] = []


def free_ports(count: int) -> list[int]:
    """As many ports, reserved for this process; nothing listens on them now."""
    folder = Path(tempfile.gettempdir()) / f"migspawner-test-ports-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        if len(found) == count:
            return found
        descriptor = os.open(folder / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:  # reserved by another test process, or used by another program
            os.close(descriptor)
            continue
        _held.append(descriptor)
        found.append(port)
    raise AssertionError(f"there are no {count} free ports from {_RANGE[0]} to {_RANGE[-1]}")
