"""A fuse in a process: at the n-th point that it comes by, the process is killed.

Points are every statement and commit inside the broker's calls about one lease, the beginning of
each such call, and whatever calls :func:`burn`. A process without a fuse passes all of them.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.broker.acquisition import Acquisition
from jupyterhub_migspawner.broker.leases import Leases
from jupyterhub_migspawner.broker.readings import Readings
from jupyterhub_migspawner.broker.sessions import Sessions
from jupyterhub_migspawner.db.store import Store

CALLS = (
    (Acquisition, "acquire"),
    (Acquisition, "being_returned"),
    (Leases, "activate"),
    (Leases, "cancel"),
    (Leases, "confirm_empty"),
    (Leases, "note_waiting"),
    (Leases, "of_attempt"),
    (Leases, "release_server"),
    (Sessions, "end_over"),
    (Sessions, "extend"),
    (Readings, "reach"),
    (Sessions, "warn_idle"),
)

_left = 0
_last_words: Path | None = None
_inside = threading.local()


def burn(point: str) -> None:
    """One point nearer to the end; SIGKILL to this very process when it is there."""
    global _left
    if _left == 0:
        return
    _left -= 1
    if _left == 0:
        assert _last_words is not None
        _last_words.write_text(point)
        os.kill(os.getpid(), signal.SIGKILL)


def light(points: int, last_words: Path) -> None:
    """Let this process die at that point (from 1) and write down there which one it was."""
    global _left, _last_words
    _left, _last_words = points, last_words
    for part, name in CALLS:
        setattr(part, name, _watched(name, getattr(part, name)))
    opened = Store.__init__

    def watching(store: Store, *given: Any, **named: Any) -> None:
        opened(store, *given, **named)
        store.watch = _statement

    Store.__init__ = watching  # type: ignore[method-assign]
    sa.event.listen(sa.pool.Pool, "checkin", lambda *_: _in_a_call("after the commit"))


def _watched(name: str, call: Any) -> Any:
    @functools.wraps(call)
    def watched(*arguments: Any, **named: Any) -> Any:
        burn(f"{name}: at its beginning")
        outer, _inside.call = getattr(_inside, "call", ""), name
        try:
            return call(*arguments, **named)
        finally:
            _inside.call = outer

    return watched


def _in_a_call(point: str) -> None:
    if getattr(_inside, "call", ""):
        burn(f"{_inside.call}: {point}")


def _statement(sql: str, values: Any) -> None:
    _in_a_call("before the commit" if sql == "COMMIT" else f"before {' '.join(sql.split())[:100]}")
