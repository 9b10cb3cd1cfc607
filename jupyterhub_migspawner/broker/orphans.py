"""Servers that run on slices although this database has no lease for them.

They are what is left when the database was deleted, or restored from an older copy, while people
worked. Their processes say in their environment which slice they were given, and their hub says it
from the spawner's saved state. Until they are gone, or adopted, :mod:`.quarantine` keeps their
slices from everybody else. Promises that nothing here ends a server.

Adoption is for an admin to decide. What a process says of itself is its user's word, and a hub that
was pointed at the wrong database would fill that with its leases.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from jupyterhub_migspawner.broker.checks import NAME_LIMIT, text, wanted_name
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.quarantine import ORPHAN, PASSING, note, quarantines
from jupyterhub_migspawner.broker.recorder import begin_release, lease_event
from jupyterhub_migspawner.broker.statuses import Adoption
from jupyterhub_migspawner.broker.unadopted import share_of, slice_of
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.hubs import DEFAULT_HUB
from jupyterhub_migspawner.model.leases import ACTIVE, LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.policy.wording import quoted


@dataclass(frozen=True)
class Guests:
    """Servers of a node without a lease that may not be ended with whatever lease has their slice.

    ``running`` are those that their hub runs now. ``unsure`` are those of other hubs that have not
    started on this database since they were found.
    """

    running: tuple[OrphanRow, ...] = ()
    unsure: tuple[OrphanRow, ...] = ()

    @property
    def attempts(self) -> frozenset[str]:
        """The attempts of all of them."""
        return frozenset(each.attempt for each in (*self.running, *self.unsure))

    def on(self, lease: LeaseRow) -> frozenset[str]:
        """Return the attempts that their hub runs on the slice of a lease."""
        return frozenset(each.attempt for each in self.running if _names(each, lease))


class Orphans:
    """Use cases about servers without a lease."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def find(self) -> tuple[OrphanRow, ...]:
        """Return all servers without a lease that are known now, by node and user."""
        return self._context.read(queries.orphans.every)

    def guests(self, node: str) -> Guests:
        """Return the servers of a node without a lease that go on whatever lease ends there.

        An older copy of the database still has the lease of the user who had a slice before. A mark
        alone saves no process: anybody can set one. It takes the word of the mark's hub; and as
        long as another hub could not give that, its processes are left alone, too.
        """

        def work(tx: Transaction) -> Guests:
            here = [each for each in queries.orphans.every(tx) if each.node == node]
            return Guests(
                tuple(each for each in here if each.vouched),
                tuple(
                    each
                    for each in here
                    if not each.vouched and each.hub != self._context.hub and _unheard(tx, each)
                ),
            )

        return self._context.read(work)

    def note_marks(self, node: str, marks: Sequence[OrphanRow]) -> tuple[OrphanRow, ...]:
        """Quarantine what living processes of a node with these marks use without a lease.

        For the start of a hub or service: a database that was restored a moment ago offers its
        nodes' slices before an agent has looked. Returns those without a lease.
        """
        return self._context.run(lambda tx: note(tx, wanted_name(node), marks, self._context.now()))

    def vouch(self, named: Sequence[OrphanRow]) -> tuple[OrphanRow, ...]:
        """Remember those servers that this hub runs and whose attempts have no lease here.

        Their slices are quarantined at once. Returns those without a lease.
        """

        def work(tx: Transaction) -> tuple[OrphanRow, ...]:
            now = self._context.now()
            unknown = [
                each for each in named if queries.leases.by_attempt(tx, each.attempt) is None
            ]
            for each in unknown:
                before = queries.orphans.by_attempt(tx, each.attempt)
                pids = before.pids if before is not None else ()
                queries.orphans.keep(tx, replace(each, vouched=True, pids=pids, found_at=now))
            for node in sorted({each.node for each in unknown}):
                queries.cards.lock_of_node(tx, node)
                for change in quarantines(tx, node, now, {}):
                    change()
            return tuple(unknown)

        return self._context.run(work) if named else ()

    def unvouch(self, user: str, server: str) -> None:
        """Note that this server of this hub does not run any more.

        Its node's agent looks for the rest.
        """
        of_user, of_server = wanted_name(user), wanted_name(server)
        self._context.run(
            lambda tx: queries.orphans.unvouch(
                tx, self._context.hub, of_user, of_server, self._context.now()
            )
        )

    def adopt(
        self, actor: str, attempts: Collection[str] | None = None, *, dry_run: bool = False
    ) -> tuple[Adoption, ...]:
        """Give servers without a lease one again, all of them or some, in one transaction.

        Each gets the slice that it has, if that is there and nobody's, and keeps it as long as its
        saved state says, but never less than the time for which people are warned. What is left
        from an earlier start of the same server begins to end. Those that cannot be adopted stay as
        they are, with the reason. ``dry_run`` changes nothing. Returns what became of each.
        """
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> tuple[Adoption, ...]:
            now = self._context.now()
            every = [
                each
                for each in queries.orphans.every(tx)
                if attempts is None or each.attempt in attempts
            ]
            for node in sorted({each.node for each in every}):
                queries.cards.lock_of_node(tx, node)
            done: list[Adoption] = []
            for each in every:
                done.append(self._adopt_orphan(tx, each, done, actor, now, dry_run=dry_run))
            if not dry_run:
                for node in sorted({each.node for each in every}):
                    for change in quarantines(tx, node, now, {}):
                        change()
            return tuple(done)

        return self._context.run(work)

    def _adopt_orphan(
        self,
        tx: Transaction,
        orphan: OrphanRow,
        done: Iterable[Adoption],
        actor: str,
        now: datetime,
        *,
        dry_run: bool,
    ) -> Adoption:
        hub = orphan.hub or DEFAULT_HUB
        if not orphan.user:
            return Adoption(orphan, None, "the user of the server is unknown")
        row = slice_of(tx, orphan)
        if row is None:
            return Adoption(orphan, None, "its slice no longer exists")
        if row.quarantined and not row.quarantined.startswith((ORPHAN, *PASSING)):
            return Adoption(orphan, None, f"its slice is quarantined: {row.quarantined}")
        tier = self._context.settings.tier(orphan.tier)
        seats = tier.seats if tier is not None and tier.shares else 1
        mine = [each.lease for each in done if each.lease and each.lease.slice_id == row.id]
        live = [
            *(each for each in queries.leases.select(tx, card_uuid=row.card_uuid) if each.id),
            *(mine if dry_run else ()),
        ]
        held = [each for each in live if each.slice_id == row.id]
        shared = all(each.tier == orphan.tier for each in held)
        if len(held) >= seats or not shared:
            other = held[0]
            return Adoption(orphan, None, f"lease {other.id} of {quoted(other.user)} has its slice")
        whole = row.whole and seats == 1
        elsewhere = [each for each in live if each.slice_id != row.id]
        if elsewhere and (whole or any(each.whole for each in elsewhere)):
            return Adoption(orphan, None, f"lease {elsewhere[0].id} has a part of its card")
        others = [
            each
            for each in queries.leases.held_by(tx, orphan.user)
            if (each.hub, each.server) == (hub, orphan.server)
        ]
        twin = next((e for e in done if e.lease and _server(e.lease) == (hub, *_of(orphan))), None)
        if twin is not None:
            return Adoption(orphan, None, "another process names the same server")
        since = orphan.since or orphan.found_at or now
        if any(each.since > since and orphan.since is not None for each in others):
            return Adoption(
                orphan, None, f"lease {others[0].id} belongs to a later start of the server"
            )
        if others and not orphan.vouched:
            why = f"lease {others[0].id} belongs to another start of the server, which its hub runs"
            return Adoption(orphan, None, why)
        lease = self._lease(tx, orphan, row, hub, now, seats=seats, held=held)
        if dry_run:
            return Adoption(orphan, lease)
        for each in others:
            begin_release(tx, each, "an earlier start of the same server", actor, now)
        lease = queries.leases.insert(tx, lease)
        queries.slices.take(tx, row.id, orphan.tier if seats > 1 else None)
        lease_event(
            tx, lease, now, actor, why="adopted: its server ran without a lease", adopted=True
        )
        url, sealed = queries.orphans.reach(tx, orphan.attempt)
        if url and sealed:
            queries.sessions.change(tx, lease.id, url=url, sealed=sealed)
        queries.orphans.forget(tx, orphan.attempt)
        return Adoption(orphan, lease)

    def _lease(
        self,
        tx: Transaction,
        orphan: OrphanRow,
        row: SliceRow,
        hub: str,
        now: datetime,
        *,
        seats: int,
        held: Sequence[LeaseRow],
    ) -> LeaseRow:
        ends_at = orphan.ends_at
        tier = self._context.settings.tier(orphan.tier)
        if ends_at is None and tier is not None and tier.max_hours is not None:
            ends_at = (orphan.since or now) + timedelta(hours=tier.max_hours)
        if ends_at is not None:
            ends_at = max(ends_at, now + timedelta(minutes=self._context.settings.warn_minutes))
        taken = {each.seat for each in held}
        return LeaseRow(
            id=0,
            attempt=orphan.attempt,
            user=orphan.user,
            server=orphan.server,
            tier=orphan.tier,
            state=ACTIVE,
            slice_id=row.id,
            slice_uuid=row.uuid,
            node=row.node,
            card_uuid=row.card_uuid,
            profile=row.profile,
            memory_mib=row.memory_mib,
            since=min(orphan.since or now, now),
            deadline=None,
            ends_at=ends_at,
            ended_at=None,
            end_reason="",
            waiting_for="",
            request_id=_grant(tx, orphan),
            start=row.start,
            seat=next(seat for seat in range(len(taken) + 1) if seat not in taken),
            whole=row.whole and seats == 1,
            share=share_of(tx, row) / seats,
            hub=hub,
            started=orphan.started,
        )


def _names(orphan: OrphanRow, lease: LeaseRow) -> bool:
    """Tell whether an orphan's mark names the slice of a lease."""
    place = (orphan.card_uuid, orphan.profile, orphan.start)
    same = place == (lease.card_uuid, lease.profile, lease.start)
    return same or bool(orphan.slice_uuid and orphan.slice_uuid == lease.slice_uuid)


def _unheard(tx: Transaction, orphan: OrphanRow) -> bool:
    """Tell whether the hub of an orphan has not been there since the orphan was found."""
    hub = queries.hubs.by_name(tx, orphan.hub)
    if hub is None or orphan.found_at is None:
        return False
    return hub.seen_at is None or hub.seen_at < orphan.found_at


def _of(orphan: OrphanRow) -> tuple[str, str]:
    return orphan.user, orphan.server


def _server(lease: LeaseRow) -> tuple[str, str, str]:
    return lease.hub, lease.user, lease.server


def _grant(tx: Transaction, orphan: OrphanRow) -> int | None:
    """Return the grant that an orphan ran on, if this database has it and it is that user's."""
    if orphan.request_id is None:
        return None
    grant = queries.requests.by_id(tx, orphan.request_id)
    if grant is None or (grant.user, grant.tier) != (orphan.user, orphan.tier):
        return None
    return grant.id
