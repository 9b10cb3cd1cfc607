"""The life of a lease after it was taken: active, releasing, released.

Every method can be called again with the same effect, so that a process that crashed between two of
them can simply start over.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.acquisition import Acquisition
from jupyterhub_migspawner.broker.checks import (
    NAME_LIMIT,
    REASON_LIMIT,
    stored,
    text,
    wanted_id,
    wanted_name,
)
from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.recorder import begin_release, lease_event
from jupyterhub_migspawner.broker.targets import back_to_layout
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import ACTIVE, HELD, PENDING, LeaseRow
from jupyterhub_migspawner.model.parts import Part
from jupyterhub_migspawner.model.slices import SliceDevice
from jupyterhub_migspawner.policy import proof
from jupyterhub_migspawner.policy.isolation import KINDS

TOMBSTONE_LIFE = timedelta(days=2)
"""How long a cancelled attempt is remembered; no thread waits that long for its turn."""


class Leases:
    """Use cases about leases."""

    def __init__(self, context: Context, acquisition: Acquisition) -> None:
        self._context = context
        self.acquire = acquisition.acquire
        self.being_returned = acquisition.being_returned

    def renew(self, attempt: str) -> LeaseRow | None:
        """Give a pending lease its full time again; None when the attempt holds no lease now."""

        def work(tx: Transaction) -> LeaseRow | None:
            deadline = self._context.now() + timedelta(
                seconds=self._context.settings.pending_seconds
            )
            lease = _of_start(tx, attempt)
            if lease is None or lease.state not in HELD:
                return None
            return queries.leases.renew(tx, lease.id, deadline) or _if_active(tx, lease.id)

        return self._context.run(work)

    def activate(self, attempt: str) -> LeaseRow | None:
        """Make a pending lease active, since its server runs; an active lease stays so.

        Returns None when the attempt holds no lease: it never had one, or it has begun to end, and
        the server must not go on.
        """

        def work(tx: Transaction) -> LeaseRow | None:
            lease = _of_start(tx, attempt)
            if lease is None:
                return None
            if lease.request_id is not None:
                queries.requests.by_id(
                    tx, lease.request_id
                )  # locks it, before the lease as everybody does
            after = queries.leases.activate(tx, lease.id)
            if after is None:
                return _if_active(tx, lease.id)
            how = {"isolation": after.isolation} if after.isolation else {}
            lease_event(tx, after, self._context.now(), after.user, why="the server runs", **how)
            if after.request_id is not None:
                queries.requests.use(tx, after.request_id)
            return after

        return self._context.run(work)

    def note_launch(self, attempt: str, isolation: str) -> SliceDevice | None:
        """Record what will keep the server of a start off other slices, before it is launched.

        ``isolation`` is one of :data:`jupyterhub_migspawner.policy.isolation.KINDS`. Returns the
        numbers of the slice's device nodes; None while the node's agent has not read them.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``conflict``) when the attempt holds
        no lease any more.
        """
        if isolation not in KINDS:
            raise ValueError(f"{isolation!r} is no isolation.")

        def work(tx: Transaction) -> SliceDevice | None:
            lease = _of_start(tx, attempt)
            after = lease and queries.leases.isolate(tx, lease.id, isolation)
            if not after or after.slice_uuid is None:
                raise Refusal(
                    "Your slice was released while the server was starting. Please start again.",
                    reason="conflict",
                )
            return queries.slices.device(tx, after.slice_id, after.slice_uuid)

        return self._context.run(work)

    def of_attempt(self, attempt: str) -> LeaseRow | None:
        """Return the lease of an attempt, live or past; None when it never had one."""
        return self._context.read(lambda tx: queries.leases.by_attempt(tx, wanted_name(attempt)))

    def cancel(self, attempt: str, reason: str) -> LeaseRow | None:
        """Cancel a start: the lease it holds begins to end, and it gets none any more.

        Returns that lease, or None when there is none; a later acquire of the attempt is refused.
        """
        text("attempt", attempt, NAME_LIMIT, empty=False)
        text("reason", reason, REASON_LIMIT)

        def work(tx: Transaction) -> LeaseRow | None:
            now = self._context.now()
            tx.queue_for(f"attempt {attempt}")
            lease = queries.leases.by_attempt(tx, wanted_name(attempt))
            if lease is not None:
                return begin_release(tx, lease, reason, lease.user, now) or lease
            if queries.tombstones.reason(tx, attempt) is None:
                queries.tombstones.bury(tx, attempt, reason, now)
                queries.events.append(
                    tx, now, BROKER, "attempt.cancelled", attempt=attempt, why=reason
                )
            return None

        return self._context.run(work)

    def release_server(
        self,
        user: str,
        server: str,
        reason: str,
        actor: str,
        taken_before: datetime | None = None,
    ) -> tuple[LeaseRow, ...]:
        """Let the pending and active leases of a server of this hub begin to end; return them.

        Only those taken up to ``taken_before`` (UTC), when it is given: a release that comes late
        must not touch the lease of the server's next start.
        """
        text("reason", reason, REASON_LIMIT)
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            now = self._context.now()
            held = [
                lease
                for lease in queries.leases.held_by(tx, wanted_name(user))
                if (lease.hub, lease.server) == (self._context.hub, server)
                and (taken_before is None or lease.since <= taken_before)
            ]
            for lost in queries.leases.stranded(tx, self._context.hub, wanted_name(user)):
                if lost.server == server and (taken_before is None or lost.since <= taken_before):
                    queries.leases.leave(tx, lost.id, now)
            ended = [begin_release(tx, lease, reason, actor, now) for lease in held]
            return tuple(lease for lease in ended if lease is not None)

        return self._context.run(work)

    def stranded(self, user: str | None = None) -> tuple[LeaseRow, ...]:
        """Return leases of this hub that were lost with their card, and whose servers run on.

        Until they are stopped or started again; of one user, or of all.
        """
        of_user = None if user is None else wanted_name(user)
        return self._context.read(
            lambda tx: queries.leases.stranded(tx, self._context.hub, of_user)
        )

    def note_stopped(self, lease_id: int) -> None:
        """Record that the server of a lease that was lost does not run any more."""
        self._context.run(
            lambda tx: queries.leases.leave(tx, wanted_id(lease_id), self._context.now())
        )

    def release(self, lease_id: int, reason: str, actor: str) -> LeaseRow:
        """Let one lease begin to end.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``, or ``conflict`` when
        it is over already, or is ending (the refusal then says what keeps its slice and what to do
        about it), and while its server is still starting: nothing of that server may run yet, so
        the slice would be proven empty and lent again just before the launch. Only the start itself
        knows when it is over; past the deadline it is.
        """
        text("reason", reason, REASON_LIMIT)
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> LeaseRow:
            lease = _known(tx, lease_id)
            starting = lease.state == PENDING and lease.ticket_id is None
            if starting and lease.deadline and lease.deadline > self._context.now():
                raise Refusal(
                    f"The server of lease {lease_id} is still starting; stop that server in the "
                    f"hub, or try again after {lease.deadline:%Y-%m-%d %H:%M:%S} UTC.",
                    reason="conflict",
                )
            after = begin_release(tx, lease, reason, actor, self._context.now())
            if after is None and lease.ending:
                row = queries.slices.by_id(tx, lease.slice_id)
                quarantined = row.quarantined if row is not None else ""
                raise Refusal(" ".join(why_ending(lease, quarantined)), reason="conflict")
            if after is None:
                raise Refusal(
                    f"Lease {lease_id} is {lease.state} already ({lease.end_reason}).",
                    reason="conflict",
                )
            return after

        return self._context.run(work)

    def ended_lately(self, user: str, days: int = 3, most: int = 50) -> tuple[LeaseRow, ...]:
        """Return a person's sessions at this hub that ended in the last days, the latest first.

        Each says why it ended. At most ``most`` of them.
        """
        name = wanted_name(user)

        def work(tx: Transaction) -> tuple[LeaseRow, ...]:
            return queries.leases.ended_since(
                tx, self._context.hub, name, self._context.now() - timedelta(days=days), most
            )

        return self._context.read(work)

    def confirm_empty(self, lease_id: int) -> LeaseRow:
        """End a releasing lease whose slice is proven empty, so that the slice can be given out.

        Only for the process that has the proof. A card that was given out whole is to be cut back
        into its base layout. Calling it again changes nothing. Raises
        :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``, or ``conflict`` while a
        server may still run on the lease.
        """

        def work(tx: Transaction) -> LeaseRow:
            now = self._context.now()
            lease = _known(tx, lease_id)
            # The agent of a node knows no tiers: there, the hub's service ends what is used up.
            tier = self._context.settings.tier(lease.tier)
            limited = lease.request_id is not None and tier is not None and tier.grant_starts
            if limited and lease.request_id is not None:
                queries.requests.by_id(tx, lease.request_id)  # locks it, before card and lease
            # First the card, as everybody does who changes one and something on it.
            if lease.whole:
                queries.cards.lock(tx, lease.card_uuid)
            after = queries.leases.end(tx, lease_id, now)
            if after is None:
                if lease.state in HELD:
                    raise Refusal(
                        f"Lease {lease_id} is {lease.state}; it has to be released before its "
                        "slice can be confirmed empty.",
                        reason="conflict",
                    )
                return _known(tx, lease_id)
            queries.slices.untake(tx, lease.slice_id)
            lease_event(tx, after, now, BROKER, why=after.end_reason)
            if lease.whole:
                back_to_layout(tx, lease.card_uuid, now, BROKER)
            if limited and lease.request_id is not None:
                self._end_used_up(tx, lease.request_id, now)
            return after

        return self._context.run(work)

    def end_used_up(self) -> None:
        """End this hub's grants on which no more servers may start and none runs."""

        def work(tx: Transaction) -> None:
            now = self._context.now()
            live = {lease.request_id for lease in queries.leases.select(tx)}
            for grant in queries.requests.select(tx, None, ("approved",)):
                tier = self._context.settings.tier(grant.tier)
                used_up = tier is not None and tier.is_used_up(grant.uses)
                if used_up and grant.hub == self._context.hub and grant.id not in live:
                    self._end_used_up(tx, grant.id, now)

        self._context.run(work)

    def _end_used_up(self, tx: Transaction, request_id: int, now: datetime) -> None:
        """End a grant on which no more servers may start, with the last of them."""
        grant = queries.requests.by_id(tx, request_id)
        tier = None if grant is None else self._context.settings.tier(grant.tier)
        if grant is None or tier is None or not tier.is_used_up(grant.uses):
            return
        if queries.requests.move(tx, grant.id, "approved", state="used"):
            why = f"{grant.uses} of {tier.grant_starts} starts are used"
            queries.events.append(
                tx,
                now,
                BROKER,
                "request.used",
                user=grant.user,
                request_id=grant.id,
                tier=grant.tier,
                hours=grant.hours,
                why=why,
            )

    def note_waiting(self, lease_id: int, why: str) -> None:
        """Record why a lease is still releasing; ignored when it is not."""

        def work(tx: Transaction) -> None:
            lease = queries.leases.by_id(tx, wanted_id(lease_id))
            short = stored(why)
            if lease is None or lease.waiting_for == short:
                return
            after = queries.leases.wait(tx, lease_id, short)
            if after is not None:
                lease_event(
                    tx, after, self._context.now(), BROKER, kind="lease.waiting", waiting_for=short
                )

        self._context.run(work)

    def forget_cancelled(self) -> None:
        """Forget the cancelled attempts that no thread can still be waiting with."""
        self._context.run(
            lambda tx: queries.tombstones.forget(tx, self._context.now() - TOMBSTONE_LIFE)
        )

    def find(
        self,
        *,
        include_past: bool = False,
        user: str | None = None,
        server: str | None = None,
        node: str | None = None,
        hub: str | None = None,
        states: Collection[str] | None = None,
        part: Part | None = None,
    ) -> tuple[LeaseRow, ...]:
        """Return leases of all hubs or of one, oldest first; only live ones unless asked otherwise.

        All of them, or a part.
        """
        return self._context.read(
            lambda tx: queries.leases.select(
                tx,
                include_past=include_past,
                user=None if user is None else wanted_name(user),
                server=None if server is None else wanted_name(server),
                node=None if node is None else wanted_name(node),
                hub=hub,
                states=states,
                part=part,
            )
        )

    def get(self, lease_id: int) -> LeaseRow:
        """Return one lease, live or past.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``not-found``) when there is none of
        that number.
        """
        return self._context.read(lambda tx: _known(tx, lease_id))


def why_ending(lease: LeaseRow, quarantined: str = "") -> tuple[str, str]:
    """Return how a lease stands whose slice is not proven empty, and the way out, for admins.

    ``quarantined`` is the reason for which its slice is, if it is.
    """
    return proof.for_admins(
        lease_id=lease.id,
        user=lease.user,
        since=lease.releasing_at or lease.since,
        end_reason=lease.end_reason,
        waiting_for=lease.waiting_for,
        node=lease.node,
        quarantined=quarantined,
    )


def _of_start(tx: Transaction, attempt: str) -> LeaseRow | None:
    """Return the lease of an attempt to start a server; an offer belongs to no attempt."""
    lease = queries.leases.by_attempt(tx, wanted_name(attempt))
    return None if lease is None or lease.ticket_id is not None else lease


def _if_active(tx: Transaction, lease_id: int) -> LeaseRow | None:
    lease = queries.leases.by_id(tx, lease_id)
    return lease if lease is not None and lease.state == ACTIVE else None


def _known(tx: Transaction, lease_id: int) -> LeaseRow:
    lease = queries.leases.by_id(tx, wanted_id(lease_id))
    if lease is None:
        raise Refusal(f"There is no lease {lease_id}.", reason="not-found")
    return lease
