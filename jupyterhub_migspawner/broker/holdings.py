"""What a person has when they ask for one more lease, as the rules count it.

Relies on the caller having queued for the person, so that nothing of it changes until the
transaction ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from jupyterhub_migspawner.broker import unadopted
from jupyterhub_migspawner.broker.reserving import Asking
from jupyterhub_migspawner.leases import ledger, orphans
from jupyterhub_migspawner.leases.rows import RELEASING, LeaseRow
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy.settings import Settings


@dataclass(frozen=True)
class Holdings:
    """The leases of a person that are not proven empty, at every hub, and the like of servers that
    run without one (:mod:`.unadopted`).

    ``sessions`` are those that count in quotas: of other servers, and of sessions that have ended.
    ``remains`` are what earlier starts of this very server left; they have to begin to end, and
    count among the sessions as if they were ending already. ``offered`` is what is held for
    tickets. ``replaced`` is what runs while a ticket waits for that very server: it makes room for
    the offer when the server starts anew, but its grant is in use until then.
    """

    sessions: tuple[LeaseRow, ...]
    offered: tuple[LeaseRow, ...]
    remains: tuple[LeaseRow, ...]
    replaced: tuple[LeaseRow, ...]

    def on_grants(self, but: LeaseRow | None) -> tuple[LeaseRow, ...]:
        """All that may hold a grant, but for an offer that is to be taken over."""
        offered = tuple(lease for lease in self.offered if lease is not but)
        return self.sessions + offered + self.replaced


def holdings(tx: Transaction, settings: Settings, asking: Asking) -> Holdings:
    """What the person of an acquire has. A server of the same name at another hub is another."""
    hub, user = settings.hub, asking.person.name
    sessions, offered, remains, replaced = [], [], [], []
    if asking.ticket is None:
        # Its hub starts it anew: what ran as this server without a lease runs no more.
        orphans.unvouch(tx, hub, user, asking.server, asking.now)
    without_lease = unadopted.sessions(tx, settings, user, asking.now)
    for lease in (*ledger.counted_of(tx, user), *without_lease):
        if lease.ticket_id is not None:
            offered.append(lease)
        elif lease.ending or (lease.hub, lease.server) != (hub, asking.server):
            sessions.append(lease)
        elif asking.ticket is None:
            remains.append(lease)
            sessions.append(replace(lease, state=RELEASING, releasing_at=asking.now))
        else:
            replaced.append(lease)
    return Holdings(tuple(sessions), tuple(offered), tuple(remains), tuple(replaced))
