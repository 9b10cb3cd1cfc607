"""What a fast test may do: compute, and read and write files in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes is no behaviour, and a busy machine must not fail a test.
settings.register_profile("fast", deadline=None)
settings.load_profile("fast")

SLOW = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "socket.bind",
        "socket.connect",
        "sqlite3.connect",
        "subprocess.Popen",
        "time.sleep",
    }
)
"""Audit events of what makes a test slow: processes, connections, databases, waiting."""

_watched: list[str] = []


def _refuse(event: str, _: tuple[object, ...]) -> None:
    if _watched and event in SLOW:
        raise AssertionError(
            f"{_watched[0]} does {event}: tests in tests/fast only compute; move it to tests/unit"
        )


# An audit hook cannot be taken away again, so it checks whether a fast test is running.
sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def only_computes(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that starts a process or opens a connection or database fails."""
    _watched.append(request.node.nodeid)
    yield
    _watched.clear()
