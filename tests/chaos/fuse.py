"""A fuse in a process: when it comes by a certain point for the n-th time, the process is killed.

Points are every statement and commit inside the broker's calls about one lease, the beginning of
each such call, and whatever calls :func:`burn`. A process without a fuse passes all of them. They
are known by name, for not every life has as many: where much else runs on the machine, it takes the
agent some rounds more to prove a slice empty.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
from collections import Counter
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
    (Leases, "note_launch"),
    (Leases, "note_waiting"),
    (Leases, "of_attempt"),
    (Leases, "release_server"),
    (Sessions, "end_over"),
    (Sessions, "extend"),
    (Readings, "reach"),
    (Sessions, "warn_idle"),
)

_last: tuple[str, int] | None = None
_passed: Path | None = None
_times: Counter[str] = Counter()
_inside = threading.local()


def burn(point: str) -> None:
    """Pass a point; SIGKILL to this very process where it is the last one."""
    if _passed is None:
        return
    _times[point] += 1
    with _passed.open("a") as file:
        file.write(json.dumps([point, _times[point]]) + "\n")
    if (point, _times[point]) == _last:
        os.kill(os.getpid(), signal.SIGKILL)


def light(last: tuple[str, int] | None, passed: Path) -> None:
    """Write down each point with how often it was passed; die at the ``last``, if there is one."""
    global _last, _passed
    _last, _passed = last, passed
    for part, name in CALLS:
        setattr(part, name, _watched(name, getattr(part, name)))
    opened = Store.__init__

    def watching(store: Store, *given: Any, **named: Any) -> None:
        opened(store, *given, **named)
        store.watch = _statement

    Store.__init__ = watching  # type: ignore[method-assign]
    sa.event.listen(sa.pool.Pool, "checkin", lambda *_: _in_a_call("after the commit"))
    # The one that writes to a file of SQLite does not go back to the pool.
    keep = Store._keep

    def kept(store: Store, *given: Any) -> None:
        keep(store, *given)
        _in_a_call("after the commit")

    Store._keep = kept  # type: ignore[method-assign]


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
