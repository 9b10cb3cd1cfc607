"""Processes of sessions: what the agents know of them, and who else is on a slice.

The agent proves slices empty by what it reads on its node; what it has seen there and could not
see again after a restart is kept here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from jupyterhub_migspawner.broker.checks import stored, wanted_id, wanted_name
from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.recorder import lease_event
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.processes import ProcessesRow

MOST_KNOWN = 512
"""Processes of one session that are kept."""

MOST_REPORTED = 32
"""Other users on one slice that are reported during one lease."""

KEPT = timedelta(days=30)
"""How long the processes of a lease that was lost with its card are known."""


class Processes:
    """Use cases about processes."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def of_node(self, node: str) -> dict[int, ProcessesRow]:
        """Return what is known of the processes of the sessions of a node, by lease."""
        return self._context.read(lambda tx: queries.processes.of_node(tx, wanted_name(node)))

    def note_server(self, attempt: str, row: ProcessesRow) -> None:
        """Record the first process of a start, and the system user it runs as.

        ``row`` says which, with any lease id. Ignored where the attempt has no live lease.
        """

        def work(tx: Transaction) -> None:
            lease = queries.leases.by_attempt(tx, wanted_name(attempt))
            if lease is None or not lease.live:
                return
            before = queries.processes.of_lease(tx, lease.id)
            known = [*row.known]
            if before.boot_id == row.boot_id:
                known += [each for each in before.known if each not in row.known]
            queries.processes.change(
                tx,
                lease.id,
                # The one that was known before the launch is not the server's to change.
                uid=row.uid if before.uid is None else before.uid,
                boot_id=row.boot_id,
                known=[list(each) for each in known[:MOST_KNOWN]],
            )

        self._context.run(work)

    def note(self, rows: Collection[ProcessesRow]) -> None:
        """Store what an agent knows of the sessions of its node.

        At most :data:`MOST_KNOWN` processes of each, the first ones. A uid that is known stays.
        """

        def work(tx: Transaction) -> None:
            for row in sorted(rows, key=lambda each: each.lease_id):
                values: dict[str, Any] = {
                    "boot_id": row.boot_id,
                    "known": [list(e) for e in row.known[:MOST_KNOWN]],
                }
                if row.uid is not None and queries.processes.of_lease(tx, row.lease_id).uid is None:
                    values["uid"] = row.uid
                queries.processes.change(tx, row.lease_id, **values)

        if rows:
            self._context.run(work)

    def note_foreign(
        self, lease_id: int, users: Mapping[int, str], why: str, again: Collection[int] = ()
    ) -> LeaseRow | None:
        """Report processes of other system users on the slice of a live lease; each user once.

        ``users`` are their names by uid, ``why`` a sentence for admins; those in ``again`` are
        reported once more. Returns the lease when there was something to report.
        """

        def work(tx: Transaction) -> LeaseRow | None:
            lease = queries.leases.by_id(tx, wanted_id(lease_id))
            if lease is None or not lease.live:
                return None
            before = queries.processes.of_lease(tx, lease_id).reported
            new = [uid for uid in sorted(users) if uid not in before or uid in again]
            every = [*before, *(uid for uid in new if uid not in before)]
            if not new or len(every) > MOST_REPORTED:
                return None
            queries.processes.change(tx, lease_id, reported=every)
            names = [stored(users[uid]) for uid in new]
            lease_event(
                tx,
                lease,
                self._context.now(),
                BROKER,
                kind="lease.foreign",
                why=stored(why),
                users=names,
            )
            return lease

        return self._context.run(work)

    def forget_ended(self) -> None:
        """Forget the processes of sessions that are over."""
        self._context.run(lambda tx: queries.processes.forget_ended(tx, self._context.now() - KEPT))
