"""What this hub remembers of its running servers' leases, told to the lease database at its start.

Relies on the spawners' saved state. Promises that no call blocks the hub's event loop, that all
servers of a start are looked up together, and that an error of the database costs none of them
anything: their processes' marks say the same to the node's agent, and the look-up is tried again
until it succeeds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.marks import strangeness
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.outages import Outage
from jupyterhub_migspawner.policy.wording import plural, quoted

_guard = threading.Lock()
_waiting: list[OrphanRow] = []
_threads: list[threading.Thread] = []

MOST_NAMED = 20
"""So many servers are named in one line of the log."""

RETRY_SECONDS = 15.0
"""Seconds from a look-up that failed to the next."""


def vouch(
    config: MigBroker, mark: OrphanRow, log: Any, pause: Callable[[float], object] = time.sleep
) -> None:
    """Have it looked up whether the database knows the lease of a server that this hub runs."""
    with _guard:
        _waiting.append(mark)
        if _threads:
            return  # it looks again before it ends
        # A daemon: a hub that ends does not wait for a database that is away.
        thread = threading.Thread(
            target=_look_up, args=(config, log, pause), name="migspawner-claims", daemon=True
        )
        _threads.append(thread)
    thread.start()


def _look_up(config: MigBroker, log: Any, pause: Callable[[float], object]) -> None:
    outage, failed = Outage(), False
    while True:
        with _guard:
            named = list(_waiting)
            if not named:
                _threads.clear()
                return
        try:
            broker = config.open_broker()
            unknown = broker.orphans.vouch(named)
        except Exception as error:
            if outage.failed(str(error)):
                # Nobody waits for this thread: what it does not say is not known.
                log.error(
                    "It could not be checked whether all running servers have leases: %s It is "
                    "tried again until it succeeds.",
                    error if isinstance(error, MigspawnerError) else f"{error}.",
                    exc_info=not isinstance(error, MigspawnerError),
                )
            failed = True
            pause(RETRY_SECONDS)
            continue
        with _guard:
            del _waiting[: len(named)]
        if failed:
            log.info("The leases of this hub's running servers have been checked.")
            failed = False
        _report(broker, unknown, log)


def _report(broker: Broker, unknown: Sequence[OrphanRow], log: Any) -> None:
    if not unknown:
        return
    listed = ", ".join(_server(each) for each in unknown[:MOST_NAMED])
    more = f" and {len(unknown) - MOST_NAMED} more" if len(unknown) > MOST_NAMED else ""
    log.error(
        "The lease database %s has no lease for %s of this hub: %s%s. %s They keep running, and "
        "their slices are given to nobody else. `migspawner leases adopt` creates leases for "
        "them; to restore a backup first, stop the hub and run `migspawner db restore FILE`.",
        broker.store.name,
        plural(len(unknown), "running server"),
        listed,
        more,
        strangeness(unknown, broker.store.position),
    )


def _server(orphan: OrphanRow) -> str:
    server = f"server {quoted(orphan.server)} of " if orphan.server else ""
    return f"{server}{quoted(orphan.user)} ({orphan.profile} on node {orphan.node})"
