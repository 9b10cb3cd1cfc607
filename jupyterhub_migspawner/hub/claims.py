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

MOST_NAMED = 20
"""So many servers are named in one line of the log."""

RETRY_SECONDS = 15.0
"""Seconds from a look-up that failed to the next."""


class Claims:
    """The look-ups of a hub, one after the other in one thread.

    The spawners of a hub share them: each names its own server, and all that were named by then
    are looked up in one query. ``pause`` gets the seconds until a look-up is tried again.
    """

    def __init__(self, mig: MigBroker, *, pause: Callable[[float], object] = time.sleep) -> None:
        self._mig = mig
        self._pause = pause
        self._guard = threading.Lock()
        self._waiting: list[OrphanRow] = []
        self._thread: threading.Thread | None = None

    def vouch(self, mark: OrphanRow, log: Any) -> None:
        """Look up in a thread whether the database knows the lease of a server of this hub."""
        with self._guard:
            self._waiting.append(mark)
            if self._thread is not None:
                return  # it looks again before it ends
            # A daemon: a hub that ends does not wait for a database that is away.
            self._thread = thread = threading.Thread(
                target=self._look_up, args=(log,), name="migspawner-claims", daemon=True
            )
        thread.start()

    def _look_up(self, log: Any) -> None:
        outage, failed = Outage(), False
        while True:
            with self._guard:
                named = list(self._waiting)
                if not named:
                    self._thread = None
                    return
            try:
                broker = self._mig.open_broker()
                unknown = broker.orphans.vouch(named)
            except Exception as error:
                if outage.failed(str(error)):
                    # Nobody waits for this thread: what it does not say is not known.
                    log.error(
                        "It could not be checked whether all running servers have leases: %s It "
                        "is tried again until it succeeds.",
                        error if isinstance(error, MigspawnerError) else f"{error}.",
                        exc_info=not isinstance(error, MigspawnerError),
                    )
                failed = True
                self._pause(RETRY_SECONDS)
                continue
            with self._guard:
                del self._waiting[: len(named)]
            if failed:
                log.info("The leases of this hub's running servers have been checked.")
                failed = False
            try:
                _report(broker, unknown, log)
            except Exception:
                # Those that are named next have to be looked up all the same.
                log.exception("Running servers without leases could not be reported.")


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
