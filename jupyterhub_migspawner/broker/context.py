"""What all parts of the broker share: the store, the settings, the time and what is free."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.clock import LeaseClock, Machine, read_clock
from jupyterhub_migspawner.db.queries.capacity import Capacity, Count
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu.boot import boot_id
from jupyterhub_migspawner.model.cards import Kinds
from jupyterhub_migspawner.policy import rates
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.wording import plural

T = TypeVar("T")

SILENT = timedelta(minutes=2)
"""A hub whose service has said nothing for so long is not there."""

BROKER = queries.events.BROKER
"""The actor in events of what happens by itself."""


class Context:
    """The store, the settings and the time that the parts of one broker work with.

    ``settings`` may be replaced while it is in use; the next transaction goes by the new ones.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], datetime] | None = None,
        machine: Machine | None = None,
    ) -> None:
        """Decide by ``clock``, which gives an aware time.

        Without one, by the lease database's own time as ``machine`` (this one unless given) counts
        it.
        """
        self.store = store
        self.settings = settings
        self.lease_clock: LeaseClock | None = None
        if clock is None:
            clock = self.lease_clock = LeaseClock(store, machine or Machine(boot_id()))
        self.clock = clock
        #: Called at the start of each transaction that may write; raises if it must not.
        self.guard: Callable[[Transaction], None] | None = None
        self._capacity = Capacity()

    @property
    def hub(self) -> str:
        """The name under which this hub leases."""
        return self.settings.hub

    def now(self) -> datetime:
        """Return the time to decide by, in UTC."""
        return self.clock().astimezone(timezone.utc)

    def run(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work`` in a transaction that may write; again where the database asks for that."""
        guard = self.guard
        if guard is None:
            return self.store.run(self._in_time(work))

        def guarded(tx: Transaction) -> T:
            guard(tx)
            return work(tx)

        return self.store.run(self._in_time(guarded))

    def read(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work`` in a snapshot that only reads."""
        return self.store.read(self._in_time(work))

    def count_action(self, tx: Transaction, by: Person, now: datetime) -> None:
        """Count one action of a person, in the transaction that does it.

        What is refused or fails is rolled back and counts for nothing. Raises
        :class:`~jupyterhub_migspawner.errors.Refusal` (``too-many``).
        """
        most = self.settings.actions_per_minute
        if not most or by.admin:
            return
        tx.queue_for(f"rate {by.name}")
        found = queries.rates.of_user(tx, self.hub, by.name)
        level = 0.0 if found is None else rates.level_after(*found, now, most)
        wait = rates.seconds_to_wait(level, most)
        if wait:
            raise Refusal(
                f"That is more than {most} changes in a minute. Try again in "
                f"{plural(wait, 'second')}.",
                reason="too-many",
                retry_after=wait,
            )
        queries.rates.keep(tx, self.hub, by.name, level + 1, now)

    def clock_ahead(self, tx: Transaction) -> float | None:
        """Return how many seconds this machine's clock is ahead of the database server's.

        None where there is no server, or where decisions go by another clock.
        """
        if self.lease_clock is None or not tx.postgres:
            return None
        before = self.lease_clock.machine.wall()
        server = read_clock(tx)
        # The answer took as long as the question, about.
        after = self.lease_clock.machine.wall()
        return (before + (after - before) / 2 - server).total_seconds()

    def silent_before(self, now: datetime) -> datetime:
        """Return the time before which a node's last heartbeat is too old to offer it."""
        return now - timedelta(seconds=self.settings.heartbeat_seconds)

    def count(self, tx: Transaction, now: datetime) -> Count:
        """Return how much is free and how much there is."""
        return self._capacity.count(tx, now, self.silent_before(now))

    def known_kinds(self, tx: Transaction) -> Kinds:
        """Return the kinds of cards there are; none where every tier means any card."""
        if all(tier.card is None and not tier.needs_mig for tier in self.settings.tiers):
            return frozenset()
        return queries.cards.kinds(tx)

    def _in_time(self, work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
        if self.lease_clock is None:
            return work
        self.lease_clock.keep_in_step()
        return self.lease_clock.in_time(work)
