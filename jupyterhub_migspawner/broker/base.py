"""What all parts of the broker share: the store, the settings, the clock, and checks of text."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.clock import LeaseClock, Machine
from jupyterhub_migspawner.db.queries.capacity import Capacity, Count
from jupyterhub_migspawner.db.store import Store, Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu.boot import boot_id
from jupyterhub_migspawner.policy import rates
from jupyterhub_migspawner.policy.card_filter import Kinds
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.wording import plural, quoted

T = TypeVar("T")

NAME_LIMIT = 255
"""JupyterHub's own limit for names of users and servers."""

REASON_LIMIT = 2_000
"""Most characters of a reason."""

# Neither database holds half a character, and PostgreSQL no NUL either.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

SILENT = timedelta(minutes=2)
"""A hub whose service has said nothing for so long is not there."""

_NOBODY = "?" * (NAME_LIMIT + 1)

BROKER = "migspawner"
"""The actor in events of what happens by itself."""


def text(what: str, value: object, limit: int, *, empty: bool = True) -> str:
    """A text as it came, or :class:`~jupyterhub_migspawner.errors.Refusal` (``options``).

    Nothing is escaped or cleaned: that is left to the code that shows it. Refused is only what a
    database cannot hold (a NUL character, half a character) and what is too long.
    """
    if not isinstance(value, str):
        raise Refusal(f"The {what} is {quoted(value)}; expected text.", reason="options")
    if not empty and not value.strip():
        raise Refusal(f"The {what} is empty; please fill it in.", reason="options")
    if len(value) > limit:
        raise Refusal(
            f"The {what} has {len(value)} characters; at most {limit} are allowed.",
            reason="options",
        )
    if _UNSTORABLE.search(value):
        raise Refusal(
            f"The {what} is {quoted(value)}; it contains a character that cannot be stored.",
            reason="options",
        )
    return value


def stored(value: str) -> str:
    """A text from a machine as it can be stored: cut, and odd characters replaced."""
    return _UNSTORABLE.sub("\ufffd", value[:REASON_LIMIT])


def end_within(until: object, now: datetime, most: timedelta) -> datetime:
    """The end of something that a person grants: aware, in the future and at most ``most`` away.

    In UTC. Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``options``).
    """
    if not isinstance(until, datetime) or until.tzinfo is None:
        raise Refusal(
            f"The end is {quoted(until)}; expected a time with its zone.", reason="options"
        )
    try:
        end = until.astimezone(timezone.utc)
    except OverflowError:  # at the very end of the calendar, or its beginning
        end = now
    if not now < end <= now + most:
        raise Refusal(
            f"The end is {quoted(str(until))}; expected a time in the next {most.days} days.",
            reason="options",
        )
    return end


def wanted_name(value: str) -> str:
    """A name to look for; one that no row can have when it could not be stored."""
    return _NOBODY if len(value) > NAME_LIMIT or _UNSTORABLE.search(value) else value


def wanted_id(value: int) -> int:
    """A number to look for; one that no row has when it does not fit into 64 bits."""
    return value if 0 < value < 2**63 else 0


class BrokerBase:
    """State of a broker; its use cases are in the classes that inherit it."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], datetime] | None = None,
        machine: Machine | None = None,
    ) -> None:
        """``clock`` gives the moment, aware; the lease database's own time unless given, as
        ``machine`` (this one unless given) counts it."""
        self.store = store
        self.settings = settings
        self.hub = settings.hub
        self._lease_clock: LeaseClock | None = None
        if clock is None:
            clock = self._lease_clock = LeaseClock(store, machine or Machine(boot_id()))
        self.clock = clock
        self._census = Capacity()

    @property
    def clock_steps(self) -> int:
        """How often the clock was set, as far as is known; times that were kept in memory when it
        was another number are of no use."""
        return 0 if self._lease_clock is None else self._lease_clock.steps

    def _now(self) -> datetime:
        return self.clock().astimezone(timezone.utc)

    def _count_action(self, tx: Transaction, by: Person, now: datetime) -> None:
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

    def _silent_before(self, now: datetime) -> datetime:
        """A node whose last heartbeat is older than this gets nothing new."""
        return now - timedelta(seconds=self.settings.heartbeat_seconds)

    def _count(self, tx: Transaction, now: datetime) -> Count:
        """How much is free and how much there is."""
        return self._census.count(tx, now, self._silent_before(now))

    def _known_kinds(self, tx: Transaction) -> Kinds:
        """The kinds of cards there are; not looked up where every tier means any card."""
        if all(tier.card is None and not tier.needs_mig for tier in self.settings.tiers):
            return frozenset()
        return queries.cards.kinds(tx)

    def _run(self, work: Callable[[Transaction], T]) -> T:
        return self.store.run(self._in_time(work))

    def _read(self, work: Callable[[Transaction], T]) -> T:
        return self.store.read(self._in_time(work))

    def _in_time(self, work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
        if self._lease_clock is None:
            return work
        self._lease_clock.keep_in_step()
        return self._lease_clock.in_time(work)
