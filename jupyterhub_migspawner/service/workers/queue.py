"""Run the rounds of the waiting list: offer what becomes free, start servers for who asked for it.

Relies on the broker for whose turn it is, and on the hub's word, asked again for each offer, about
who its user is now. Promises that a hub that is away costs nobody their position, that nothing is
started for anybody who did not ask for it, and that no running server is touched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from jupyterhub_migspawner.model.tickets import OFFERED, WAITING, TicketRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.service.clients.hub import Account, Beside, HubAway, HubError
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")

#: Seconds between two rounds; one with nothing to give is a single look at the database.
PAUSE = 1.0

#: Seconds between two looks at what a quota or a missing grant keeps from its turn.
LOOK_AGAIN = 30.0

#: Seconds for which a ticket rests whose turn came to nothing, so that it costs the hub little.
REST = 5.0

#: Seconds until a start that the hub has refused is asked for again.
START_AGAIN = 15.0

#: Turns that come to nothing, one after the other, until others are let past.
IN_VAIN = 3


class Dispatcher:
    """Serves the waiting list, one :meth:`round` at a time."""

    def __init__(self, parts: Parts, *, elapsed: Callable[[], float] = time.monotonic) -> None:
        """Prepare the rounds; ``elapsed`` gives seconds that only ever go forward."""
        self._parts = parts
        self._elapsed = elapsed
        self._looked = float("-inf")
        self._resting: dict[int, float] = {}
        self._asked: set[int] = set()
        self._in_vain: dict[int, int] = {}
        self._said: set[int] = set()
        self._awake = False

    async def round(self) -> None:
        """Offer what is free. Raises :exc:`.HubAway` and :exc:`.DatabaseError`."""
        parts, now = self._parts, self._elapsed()
        await parts.ask(lambda broker: broker.hubs.demand(parts.home))
        if not self._awake:
            # While no service was there, nobody could take what was held for them.
            await parts.ask(lambda broker: broker.offers.renew())
            self._awake = True
        await parts.ask(lambda broker: broker.offers.settle())
        again = now - self._looked >= LOOK_AGAIN
        if again:
            self._looked = now
        turns = await parts.ask(lambda broker: broker.offers.turns(blocked=again))
        self._resting = {id_: until for id_, until in self._resting.items() if until > now}
        self._in_vain = {t.id: self._in_vain[t.id] for t in turns if t.id in self._in_vain}
        for ticket in turns:
            if ticket.id not in self._resting:
                await self._offer(ticket)
        await self._start_those_who_asked()

    async def _offer(self, ticket: TicketRow) -> None:
        account = await self._account(ticket)
        if account is _UNKNOWN:
            return
        person = None if account is None else account.person
        servers = () if account is None else account.servers
        beside = Beside.of(servers, ticket.server)
        offered = await self._parts.ask(
            lambda broker: broker.offers.make(
                ticket.id,
                person,
                other_servers=beside.other_servers,
                stopping=beside.stopping,
            )
        )
        if offered.lease is None:
            self._resting[ticket.id] = self._elapsed() + REST
            tries = self._in_vain[ticket.id] = self._in_vain.get(ticket.id, 0) + 1
            if tries >= IN_VAIN and not offered.ticket.blocked:
                why = "it cannot be served just now"
                await self._parts.ask(lambda broker: broker.offers.pass_over(ticket.id, why))
        else:
            log.info(
                "Lease %d is held for ticket %d of %r.",
                offered.lease.id,
                ticket.id,
                ticket.user,
            )

    async def _account(self, ticket: TicketRow) -> Account | None:
        """Return a ticket's user as of now; :data:`_UNKNOWN` if the hub says nothing usable."""
        try:
            account = await self._parts.hub.account(ticket.user)
            self._said.discard(ticket.id)
            return account
        except HubAway:
            raise
        except HubError as error:
            self._resting[ticket.id] = self._elapsed() + REST
            if ticket.id not in self._said:
                self._said.add(ticket.id)
                log.warning("Ticket %d of %r is not served: %s", ticket.id, ticket.user, error)
            tries = self._in_vain[ticket.id] = self._in_vain.get(ticket.id, 0) + 1
            if tries >= IN_VAIN and ticket.state == WAITING:
                # A ticket that cannot be served keeps nobody else waiting; it is looked at again.
                why = "the hub cannot identify its user just now"
                await self._parts.ask(lambda broker: broker.offers.pass_over(ticket.id, why))
            return _UNKNOWN

    async def _start_those_who_asked(self) -> None:
        """Start the server of each offer whose person asked for it, once.

        One that runs already is its person's to stop. Asked for in this process only: after a
        restart it is asked for again, which the hub refuses where it has begun.
        """
        open_ones = await self._parts.ask(
            lambda broker: [each for each in broker.queue.status() if each.row.hub == broker.hub]
        )
        wanted = [each for each in open_ones if each.row.state == OFFERED and each.row.start]
        self._asked.intersection_update(each.row.id for each in wanted)
        for each in wanted:
            ticket, lease = each.row, each.lease
            if ticket.id in self._asked or lease is None or ticket.id in self._resting:
                continue
            # A card that is still being cut is started on when it is there: a start waits briefly.
            if lease.slice_uuid is None:
                continue
            account = await self._account(ticket)
            if account is None or account is _UNKNOWN:
                continue
            if any(server.name == ticket.server for server in account.servers):
                # Its person's to stop; then it is started.
                self._resting[ticket.id] = self._elapsed() + REST
                continue
            try:
                await self._parts.hub.start_server(ticket.user, ticket.server, {"tier": lease.tier})
            except HubAway:
                raise
            except HubError as error:
                # Too many start at once, or the last one still stops: again in a moment.
                self._resting[ticket.id] = self._elapsed() + START_AGAIN
                log.warning("%s It is tried again.", error)
            else:
                self._asked.add(ticket.id)
                log.info("Server %r of %r starts: it is its turn.", ticket.server, ticket.user)


_UNKNOWN = Account(Person(""), ())
