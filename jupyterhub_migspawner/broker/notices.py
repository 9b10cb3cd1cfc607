"""Notices to people, and which of them they choose not to get.

The event log is what notices are made of; here is only what has to be noted for that: that the end
of a session comes, once for each end, that a slice stays taken long after one, and what a user does
without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from jupyterhub_migspawner.broker.checks import NAME_LIMIT, stored, text, wanted_name
from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.leases import why_ending
from jupyterhub_migspawner.broker.recorder import lease_event
from jupyterhub_migspawner.broker.views import timestamp
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import RELEASING, LeaseRow
from jupyterhub_migspawner.policy.notices import TOPICS
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.proof import is_stuck
from jupyterhub_migspawner.policy.reclaim import TIME
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted

STUCK = "stuck"
"""What admins were notified of, in the record of a session, when its slice is not proven empty."""


class Notices:
    """Use cases about notices, of this hub and its users."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def note_port_taken(
        self,
        *,
        node: str,
        why: str,
        uid: int,
        pids: Sequence[int] = (),
        lease_id: int | None = None,
        user: str = "",
    ) -> None:
        """Record that a process of another local user listens where the hub or a server should."""

        def work(tx: Transaction) -> None:
            queries.events.append(
                tx,
                self._context.now(),
                node,
                "node.port-taken",
                user=user,
                lease_id=lease_id,
                node=node,
                why=why,
                uid=uid,
                pids=list(pids),
            )

        self._context.run(work)

    def warn_of_ends(self) -> tuple[LeaseRow, ...]:
        """Note which sessions end soon; return their leases.

        Each end is noted once, also when a lease gets another one.
        """

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            now = self._context.now()
            soon = now + timedelta(minutes=self._context.settings.warn_minutes)
            warned = []
            for lease in queries.leases.ending(tx, self._context.hub, soon):
                if lease.ends_at is not None and queries.leases.warn(tx, lease.id):
                    end = timestamp(lease.ends_at)
                    kind = "lease.ending"
                    lease_event(tx, lease, now, BROKER, kind=kind, until=end, rule=TIME)
                    warned.append(lease)
            return tuple(warned)

        return self._context.run(work)

    def warn_of_stuck(self) -> tuple[LeaseRow, ...]:
        """Note, once each, which leases of this hub are not proven empty long after their end.

        Returns those that were not noted before.
        """

        def stuck(tx: Transaction) -> list[LeaseRow]:
            now = self._context.now()
            return [
                lease
                for lease in queries.leases.select(tx, hub=self._context.hub, states=(RELEASING,))
                if is_stuck(lease.releasing_at or lease.since, now)
                and queries.sessions.stay(tx, lease.id).alerted_for != STUCK
            ]

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            # Two services of one hub may look at the same time.
            tx.queue_for(f"stuck leases of {self._context.hub}")
            tx.flush()  # it is later when the other has done
            now = self._context.now()
            found = stuck(tx)
            for lease in found:
                row = queries.slices.by_id(tx, lease.slice_id)
                why, mend = why_ending(lease, row.quarantined if row is not None else "")
                queries.sessions.change(tx, lease.id, alerted_for=STUCK, alerted_at=now)
                lease_event(
                    tx,
                    lease,
                    now,
                    BROKER,
                    kind=f"lease.{STUCK}",
                    why=stored(why),
                    mend=stored(mend),
                )
            return tuple(found)

        return self._context.run(work) if self._context.read(stuck) else ()

    def choices(self, user: str) -> dict[str, bool]:
        """Return for each topic of notices whether a user wants them.

        The topics are :data:`~jupyterhub_migspawner.policy.notices.TOPICS`. Users want notices
        unless they have chosen otherwise.
        """
        name = wanted_name(user)
        said = self._context.read(lambda tx: queries.notices.of_user(tx, self._context.hub, name))
        return {topic: said.get(topic, True) for topic in TOPICS}

    def choose(self, user: str, choices: Mapping[str, bool]) -> dict[str, bool]:
        """Store which notices a user wants; return all their choices.

        What ``choices`` leaves out stays. Raises :class:`~jupyterhub_migspawner.errors.Refusal`
        (``options``).
        """
        text("user name", user, NAME_LIMIT, empty=False)
        for topic, wanted in choices.items():
            if topic not in TOPICS:
                raise Refusal(
                    f"There is no topic {quoted(topic)}{nearest(topic, TOPICS)}; the topics are "
                    f"{listed(TOPICS)}.",
                    reason="options",
                )
            if not isinstance(wanted, bool):
                raise Refusal(
                    f"Topic {topic!r} is {quoted(wanted)}; expected true or false.",
                    reason="options",
                )

        def work(tx: Transaction) -> None:
            now = self._context.now()
            self._context.count_action(tx, Person(user), now)
            tx.queue_for(f"person {user}")
            for topic, wanted in choices.items():
                queries.notices.keep(tx, self._context.hub, user, topic, wanted, now)

        self._context.run(work)
        return self.choices(user)
