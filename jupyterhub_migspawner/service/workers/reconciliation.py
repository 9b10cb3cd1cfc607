"""Reconcile leases with the hub's servers.

Relies on the broker, on the hub's word about its servers, and on nothing remembered but which
leases had no server in the last round. Promises that nothing is ended on a guess: a lease goes back
only when a complete answer of the hub lacks its server twice in a row and a question about that
very user confirms it; a server is stopped only past the end of its lease.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import ACTIVE, HELD, PENDING, LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.service.clients.hub import HubAway, HubError, HubServer
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")

ACTOR = "service"

#: By how much two readings of one clock may differ, over a network and a minute.
READINGS = timedelta(milliseconds=250)

#: By how much a time that the hub noted may differ when it is read again: some databases round it.
NOTED = timedelta(seconds=1)

#: A start takes its lease within so long, unless it waits for a slice that is being given back.
AT_ONCE = timedelta(seconds=30)

Key = tuple[str, str]


class Reconciler:
    """Keeps leases and the hub's servers in step, one :meth:`round` at a time.

    ``clock`` gives the present as aware UTC; the broker's own unless given.
    """

    def __init__(self, parts: Parts, *, clock: Callable[[], datetime] | None = None) -> None:
        self._parts = parts
        self._clock = clock or parts.broker.now
        self._without_server: frozenset[int] = frozenset()
        self._said: dict[int, str] = {}

    async def round(self) -> None:
        """Compare this hub's leases once.

        Raises :exc:`.HubError`, :exc:`.DatabaseError`, or :exc:`.Refusal` while another hub has
        this one's name; what was not reached by then is left as it is.
        """
        await self._parts.ask(lambda broker: broker.hubs.claim(self._parts.home))
        await self._parts.ask(lambda broker: broker.leases.forget_cancelled())
        await self._parts.ask(lambda broker: broker.leases.end_used_up())
        await self._parts.ask(lambda broker: broker.requests.expire())
        await self._parts.ask(lambda broker: broker.requests.remind())
        await self._parts.ask(lambda broker: broker.notices.warn_of_ends())
        await self._parts.ask(lambda broker: broker.notices.warn_of_stuck())
        await self._parts.ask(lambda broker: broker.reservations.look_after())
        await self._parts.ask(lambda broker: broker.reservations.keep())
        every = await self._parts.ask(lambda broker: broker.leases.find(hub=broker.hub))
        # What is held for a ticket has no server yet; the waiting list looks after it.
        leases = [lease for lease in every if lease.ticket_id is None]
        before, self._without_server = self._without_server, frozenset()
        orphans = await self._parts.ask(lambda broker: broker.orphans.find())
        # A server without a lease is nobody's to stop; only whether it still runs is noted.
        vouched = [each for each in orphans if each.vouched and each.hub == self._parts.broker.hub]
        stranded = await self._parts.ask(lambda broker: broker.leases.stranded())
        if not leases and not vouched and not stranded:
            return
        servers = await self._parts.hub.servers()
        for orphan in vouched:
            if (orphan.user, orphan.server) not in servers:
                await self._disown(orphan)
        for lease in stranded:
            if not _runs(lease, servers.get((lease.user, lease.server))):
                await self._leave(lease)
        now = self._clock()
        gone = {
            lease.id
            for lease in leases
            if is_due(lease, now)
            and not _has_server(lease, servers.get((lease.user, lease.server)))
        }
        self._without_server = frozenset(gone)
        self._said = {lease.id: self._said[lease.id] for lease in leases if lease.id in self._said}
        held = {(lease.user, lease.server) for lease in leases if lease.state in HELD}
        for lease in leases:
            server = servers.get((lease.user, lease.server))
            try:
                if lease.id in gone & before:
                    await self._give_back(lease, held, servers.values())
                elif server is not None:
                    await self._keep(lease, server, held, now)
            except HubAway:
                raise
            except HubError as error:
                # One server that the hub cannot stop must not keep the others running.
                self._say(lease, str(error))

    async def _disown(self, orphan: OrphanRow) -> None:
        """Note that a server without a lease has ended, unless the hub now says otherwise."""
        running = await self._parts.hub.servers_of(orphan.user) or ()
        if not any(server.name == orphan.server for server in running):
            await self._parts.ask(lambda broker: broker.orphans.unvouch(orphan.user, orphan.server))

    async def _leave(self, lease: LeaseRow) -> None:
        """Note that a server without its card is over, unless the hub now says otherwise."""
        running = await self._parts.hub.servers_of(lease.user) or ()
        if not any(server.name == lease.server and _runs(lease, server) for server in running):
            await self._parts.ask(lambda broker: broker.leases.note_stopped(lease_id=lease.id))

    async def _give_back(
        self, lease: LeaseRow, held: Collection[Key], servers: Collection[HubServer]
    ) -> None:
        """Release a lease without a server, unless the hub now says otherwise."""
        running = await self._parts.hub.servers_of(lease.user)
        unknown = running is None
        alike = [s for s in servers if may_be_renamed(lease, s, held, unknown=unknown)]
        if any([await self._may_be_of(lease, server) for server in alike]):
            self._say(
                lease,
                f"the hub has no such server of {lease.user!r}, but a server as old as the lease "
                "runs without a lease, so the user may have been renamed. The lease is released "
                "once that server has stopped.",
            )
        elif not any(s.name == lease.server and _has_server(lease, s) for s in running or ()):
            await self._release(lease, "its server is gone")

    async def _may_be_of(self, lease: LeaseRow, server: HubServer) -> bool:
        """Return whether a server may have been started in the tier of this lease.

        One of another tier is another start, and one without a GPU never has a lease.
        """
        tier = server.tier
        if not tier:
            account = await self._parts.hub.account(server.user)
            if account is None:
                return False
            person = account.person
            try:
                tier = (await self._parts.ask(lambda broker: broker.tiers.choose(person, {}))).name
            except Refusal:
                return True
        return tier == lease.tier

    async def _keep(
        self, lease: LeaseRow, server: HubServer, held: Collection[Key], now: datetime
    ) -> None:
        """Note that a server runs, or end it when its time is over."""
        if not is_server_of(lease, server):
            return
        if lease.state == PENDING:
            if server.ready:
                await self._parts.ask(lambda broker: broker.leases.activate(lease.attempt))
            return
        if lease.state == ACTIVE:
            if lease.ends_at is not None and lease.ends_at <= now:
                await self._end(lease)
        elif (lease.user, lease.server) not in held:
            # Taken back already. The hub ends the server in its own way, and its user sees it
            # end, before the agent ends what still runs.
            await self._end(lease)

    async def _end(self, lease: LeaseRow) -> None:
        """Stop the server of a lease that ends, or whose time is over."""
        running = await self._parts.hub.servers_of(lease.user) or ()
        if not any(s.name == lease.server and is_server_of(lease, s) for s in running):
            return
        if lease.state == ACTIVE:
            # First the lease: the record of why must be there whatever becomes of the server.
            ended = await self._parts.ask(
                lambda broker: broker.sessions.end_over(lease_id=lease.id)
            )
            if ended is None:
                return  # it ended in the meantime, or was given more time
            lease = ended
        log.info("Stopping server %r of %r: %s.", lease.server, lease.user, lease.end_reason)
        await self._parts.hub.stop_server(lease.user, lease.server)

    async def _release(self, lease: LeaseRow, reason: str) -> None:
        """Give back this very lease: by now its server may have started again with another."""
        try:
            await self._parts.ask(lambda broker: broker.leases.release(lease.id, reason, ACTOR))
        except Refusal as refusal:
            # It ended in the meantime, which was the aim.
            log.info("Lease %d was not released by the service: %s", lease.id, refusal)
        else:
            log.info("Lease %d of %r is released: %s.", lease.id, lease.user, reason)

    def _say(self, lease: LeaseRow, text: str) -> None:
        """Log what keeps a lease from moving on once, not in each round."""
        if self._said.get(lease.id) != text:
            log.warning("Lease %d of %r stays as it is: %s", lease.id, lease.user, text)
            self._said[lease.id] = text


def _runs(lease: LeaseRow, server: HubServer | None) -> bool:
    """Return whether this is the very server that the lease was taken for."""
    return server is not None and is_server_of(lease, server)


def is_due(lease: LeaseRow, now: datetime) -> bool:
    """Return whether the hub should know this lease's server by now.

    A start that is still within its time may not be in the hub's list yet, and its spawner calls
    it off itself; past its deadline nobody else does.
    """
    if lease.state == ACTIVE:
        return True
    return lease.state == PENDING and lease.deadline is not None and lease.deadline <= now


def _has_server(lease: LeaseRow, server: HubServer | None) -> bool:
    """Return whether what the hub runs under the name of a lease's server may be that server.

    It is not where both know when the hub began the start, and the hub began another one: the lease
    is of an older copy of the database. No clock is asked; the hub noted both.
    """
    if server is None:
        return False
    known = lease.started is not None and server.noted is not None
    return not known or bool(server.pending) or _same_start(lease, server)


def _same_start(lease: LeaseRow, server: HubServer) -> bool:
    assert lease.started is not None
    assert server.noted is not None
    return abs(server.noted - lease.started) <= NOTED


def is_server_of(lease: LeaseRow, server: HubServer) -> bool:
    """Return whether the lease was taken for this start of the server, and is not ending already.

    The hub notes the start of a server before it asks the spawner, and the spawner takes the lease
    (``jupyterhub.user.User.spawn``): a server that started after the lease has another one. A lease
    that knows when the hub began its start has just that one, whatever clocks did meanwhile.
    """
    if server.pending == "stop" or server.started is None:
        return False
    if lease.started is not None and server.noted is not None:
        return _same_start(lease, server)
    return server.started <= lease.since + READINGS


def may_be_renamed(
    lease: LeaseRow, server: HubServer, held: Collection[Key], *, unknown: bool
) -> bool:
    """Return whether the server of a user whom the hub does not know may run on as this one.

    The hub can rename a user whose server runs, and be killed before it said so to the broker.
    Then a server of the same name, started before the lease was taken, has no lease under its new
    owner. Where the hub knows a user of the old name (``unknown`` is False), that may be a new one,
    who has taken the name since: then the start has to be the very one of the lease.
    """
    if server.name != lease.server or (server.user, server.name) in held:
        return False
    if not is_server_of(lease, server) or server.started is None:
        return False
    known = lease.started is not None and server.noted is not None
    return unknown or known or lease.since - server.started <= AT_ONCE
