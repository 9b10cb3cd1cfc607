"""Several hubs on one lease database: each has a name, and each name one home.

What a hub does to leases (ends those without a server, stops servers past their time) it does to
its own. Two hubs of one name would end each other's servers; so a name belongs to the home that
had it first, until that has fallen silent with nothing live, or an admin says otherwise.
"""

from __future__ import annotations

from jupyterhub_migspawner.broker.checks import text
from jupyterhub_migspawner.broker.context import BROKER, SILENT, Context
from jupyterhub_migspawner.broker.recorder import begin_release, close_ticket
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.hubs import DEFAULT_HUB, HubRow
from jupyterhub_migspawner.model.leases import HELD
from jupyterhub_migspawner.model.tickets import CANCELLED
from jupyterhub_migspawner.policy.wording import listed, quoted

HOME_LIMIT = 1_000


class Hubs:
    """Use cases about hubs."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def claim(self, home: str, *, adopt: bool = False) -> HubRow:
        """Claim this hub's name for its home: a machine and a configuration file.

        Call it at the start and repeat it regularly. A home that had another name before takes its
        leases and requests along. ``adopt`` takes the name over from another home whatever that
        has: for a hub that has moved. Raises :class:`~jupyterhub_migspawner.errors.Refusal`
        (``conflict``) when the name is another's.
        """
        text("home of the hub", home, HOME_LIMIT, empty=False)

        def work(tx: Transaction) -> HubRow:
            now = self._context.now()
            tx.queue_for("hubs")
            known = queries.hubs.by_name(tx, self._context.hub)
            if known is not None and known.home != home and not adopt:
                self._demand_gone(tx, known)
            before = [hub.name for hub in queries.hubs.by_home(tx, home)]
            if known is None and not queries.hubs.every(tx):
                # From before hubs had names: then there was only one.
                before.append(DEFAULT_HUB)
            for name in before:
                if name != self._context.hub:
                    self._take_along(tx, name)
            queries.hubs.keep(tx, self._context.hub, home, now)
            if known is None or known.home != home:
                last = known.home if known is not None else ""
                kind = "hub.claimed"
                queries.events.append(
                    tx, now, BROKER, kind, hub=self._context.hub, home=home, before=last
                )
            return HubRow(self._context.hub, home, now)

        return self._context.run(work)

    def demand(self, home: str) -> None:
        """Check that this hub's name has not gone to another home.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``conflict``).
        """
        known = self._context.read(lambda tx: queries.hubs.by_name(tx, self._context.hub))
        if known is not None and known.home != home:
            raise Refusal(
                f"The hub called {quoted(self._context.hub)} is at {quoted(known.home)} now; this "
                "hub no longer serves anyone.",
                reason="conflict",
            )

    def find(self) -> tuple[HubRow, ...]:
        """Return all hubs that lend from this database, by name."""
        return self._context.read(queries.hubs.every)

    def _demand_gone(self, tx: Transaction, known: HubRow) -> None:
        now = self._context.now()
        heard = known.seen_at is not None and now - known.seen_at < SILENT
        live = len(queries.leases.select(tx, hub=self._context.hub))
        if not heard and not live:
            return
        activity = "has never been heard of"
        if known.seen_at is not None:
            activity = f"was last heard of at {known.seen_at:%Y-%m-%d %H:%M:%S} UTC"
        raise Refusal(
            f"The lease database already has a hub called {quoted(self._context.hub)}, at "
            f"{quoted(known.home)}; it {activity} and holds {live} live "
            f"lease{'' if live == 1 else 's'}. If this is another hub, give it a different name: "
            "c.MigBroker.hub. If it is the same hub in a new place, run `migspawner db adopt` "
            "once.",
            reason="conflict",
        )

    def _take_along(self, tx: Transaction, old: str) -> None:
        self._demand_no_twins(tx, old)
        leases = queries.leases.rename_hub(tx, old, self._context.hub)
        asked = queries.requests.rename_hub(tx, old, self._context.hub)
        queries.quotas.rename_hub(tx, old, self._context.hub)
        self._drop_twin_tickets(tx, old)
        queries.tickets.rename_hub(tx, old, self._context.hub)
        queries.drafts.rename_hub(tx, old, self._context.hub)
        queries.notices.rename_hub(tx, old, self._context.hub)
        was_known = queries.hubs.by_name(tx, old) is not None
        queries.hubs.forget(tx, old)
        if not (was_known or leases or asked):
            return
        kind, now = "hub.renamed", self._context.now()
        queries.events.append(
            tx, now, BROKER, kind, hub=self._context.hub, old=old, leases=leases, requests=asked
        )

    def _drop_twin_tickets(self, tx: Transaction, old: str) -> None:
        """Cancel tickets under the old name whose users wait for the same under this one."""
        now, why = (
            self._context.now(),
            "its user already waits for the same under the hub's new name",
        )
        mine = {
            (ticket.user, ticket.tier)
            for ticket in queries.tickets.select(tx, hub=self._context.hub)
        }
        held = {lease.ticket_id: lease for lease in queries.leases.select(tx, hub=old, states=HELD)}
        for ticket in queries.tickets.select(tx, hub=old):
            if (ticket.user, ticket.tier) in mine:
                if ticket.id in held:
                    begin_release(tx, held[ticket.id], why, BROKER, now)
                close_ticket(tx, ticket, CANCELLED, why, now, BROKER)

    def _demand_no_twins(self, tx: Transaction, old: str) -> None:
        """Refuse where both names have a lease for one server of one user: it cannot have two."""
        mine = {
            (each.user, each.server)
            for each in queries.leases.select(tx, hub=self._context.hub, states=HELD)
        }
        both = sorted(
            lease.id
            for lease in queries.leases.select(tx, hub=old, states=HELD)
            if (lease.user, lease.server) in mine
        )
        if both:
            raise Refusal(
                f"The hubs {quoted(old)} and {quoted(self._context.hub)} both hold a lease for the "
                f"same server of the same user (of {quoted(old)}: {listed(map(str, both))}); stop "
                "these servers, then try again.",
                reason="conflict",
            )
