"""Users and servers that the hub renames or deletes: what is theirs follows them, or ends.

The hub reports these once, and perhaps late, when the database was away. So each use case gets the
time at which it happened, and leaves younger records alone: the name may be another user's by then.
"""

from __future__ import annotations

from datetime import datetime

from jupyterhub_migspawner.broker.checks import NAME_LIMIT, text, wanted_name
from jupyterhub_migspawner.broker.context import BROKER, Context
from jupyterhub_migspawner.broker.quotas import record
from jupyterhub_migspawner.broker.recorder import (
    begin_release,
    close_ticket,
    lease_event,
    ticket_event,
)
from jupyterhub_migspawner.broker.requests import Requests
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.tickets import CANCELLED, TicketRow


class Users:
    """Use cases about other names of users and servers of this hub."""

    def __init__(self, context: Context, requests: Requests) -> None:
        self._context = context
        self._requests = requests

    def is_known(self, name: str) -> bool:
        """Tell whether anything but events is recorded of a user of that name, at any hub."""
        return self._context.read(lambda tx: queries.users.is_known(tx, wanted_name(name)))

    def rename(self, old: str, new: str, before: datetime | None = None) -> int:
        """Follow a hub that has renamed a user before ``before`` (UTC, now unless given).

        Leases and requests follow, past ones too: what was used counts for the person. Returns how
        many; a second call finds none. Raises :class:`~jupyterhub_migspawner.errors.Refusal`
        (``options``).
        """
        for name in (old, new):
            text("user name", name, NAME_LIMIT, empty=False)

        def work(tx: Transaction) -> int:
            now = self._context.now()
            moment = now if before is None else before
            tx.queue_for(*(f"person {name}" for name in sorted({old, new})))
            if old == new:
                return 0
            # The hub gives a user only a name that nobody has: where both held a server of one
            # name, the new name's was left behind. (Asked again, it is the renamed user's own.)
            came = {lease.server for lease in self._held(tx, old, moment)}
            for lease in self._held(tx, new, moment):
                if lease.server in came:
                    begin_release(tx, lease, "its user no longer exists", BROKER, now)
            # Told late: what the renamed user has started since under the new name counts, and what
            # is left under the old one is of earlier starts of the same servers.
            since = {
                lease.server
                for lease in queries.leases.held_by(tx, new)
                if lease.hub == self._context.hub and lease.since > moment
            }
            for lease in self._held(tx, old, moment):
                if lease.server in since:
                    begin_release(tx, lease, "its server was started again", BROKER, now)
            number = queries.leases.rename_user(tx, self._context.hub, old, new, moment)
            asked = queries.requests.rename_user(tx, self._context.hub, old, new, moment)
            queries.quotas.rename_user(tx, self._context.hub, old, new, moment)
            self._drop_twins(tx, old, new, now)
            queries.tickets.rename_user(tx, self._context.hub, old, new, moment)
            queries.drafts.rename_user(tx, self._context.hub, old, new, moment)
            queries.notices.rename_user(tx, self._context.hub, old, new, moment)
            if number or asked:
                queries.events.append(
                    tx,
                    now,
                    BROKER,
                    "user.renamed",
                    user=new,
                    hub=self._context.hub,
                    old=old,
                    leases=number,
                    requests=asked,
                )
            return number + asked

        return self._context.run(work)

    def rename_server(self, user: str, old: str, new: str, before: datetime | None = None) -> int:
        """Follow a hub that has renamed a server; return how many of its live leases follow.

        The hub renames only servers that do not run, so these are on their way back.
        """
        text("user name", user, NAME_LIMIT, empty=False)
        for name in (old, new):
            text("server name", name, NAME_LIMIT)

        def work(tx: Transaction) -> int:
            now = self._context.now()
            moment = now if before is None else before
            tx.queue_for(f"person {user}")
            if old == new:
                return 0
            for lease in self._held(tx, user, moment):
                if lease.server == old:
                    begin_release(tx, lease, "its server was renamed", BROKER, now)
            for ticket in queries.tickets.rename_server(
                tx, self._context.hub, user, old, new, moment
            ):
                ticket_event(tx, ticket, now, BROKER, "ticket.changed", why="its server's new name")
            renamed = queries.leases.rename_server(tx, self._context.hub, user, old, new, moment)
            for lease in renamed:
                lease_event(tx, lease, now, BROKER, kind="lease.renamed", old=old)
            return len(renamed)

        return self._context.run(work)

    def _drop_twins(self, tx: Transaction, old: str, new: str, now: datetime) -> None:
        """End tickets that the new name left behind where the renamed user has one too."""
        came = {ticket.tier for ticket in queries.tickets.open_of_user(tx, self._context.hub, old)}
        for ticket in queries.tickets.open_of_user(tx, self._context.hub, new):
            if ticket.tier in came:
                self._end_ticket(tx, ticket, "its user no longer exists", now)

    def _end_ticket(self, tx: Transaction, ticket: TicketRow, why: str, now: datetime) -> None:
        for lease in queries.leases.with_offers(tx, ticket.user):
            if lease.ticket_id == ticket.id:
                begin_release(tx, lease, why, BROKER, now)
        close_ticket(tx, ticket, CANCELLED, why, now, BROKER)

    def _held(self, tx: Transaction, user: str, moment: datetime) -> list[LeaseRow]:
        """Return what a user of this hub holds and has held since ``moment`` or longer."""
        return [
            lease
            for lease in queries.leases.held_by(tx, user)
            if lease.hub == self._context.hub and lease.since <= moment
        ]

    def forget(self, user: str, before: datetime | None = None) -> int:
        """Forget a user whom the hub has deleted; return how many requests that cancels.

        What they have asked and wait for is cancelled, grants too, and exceptions from their quota
        end. Else the next user of that name would have them. Leases end with their servers, which
        the hub stops before it deletes a user.
        """
        text("user name", user, NAME_LIMIT, empty=False)

        def work(tx: Transaction) -> int:
            now = self._context.now()
            tx.queue_for(f"person {user}")
            moment = now if before is None else before
            why = "the hub has deleted its user"
            number = self._requests.cancel_all_of(tx, user, moment, why)
            queries.drafts.drop_all(tx, self._context.hub, user, moment)
            queries.notices.drop_all(tx, self._context.hub, user, moment)
            queries.rates.drop(tx, self._context.hub, user)
            for row in queries.quotas.select(tx, user, now):
                if row.hub == self._context.hub and row.granted_at <= moment:
                    queries.quotas.end(tx, row.id, BROKER, now)
                    record(tx, now, BROKER, "quota.restored", row, why)
            for ticket in queries.tickets.open_of_user(tx, self._context.hub, user):
                if ticket.created_at <= moment:
                    self._end_ticket(tx, ticket, why, now)
            if number:
                kind = "user.deleted"
                queries.events.append(
                    tx, now, BROKER, kind, user=user, hub=self._context.hub, requests=number
                )
            return number

        return self._context.run(work)
