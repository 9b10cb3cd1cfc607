"""What a person has when they ask for one more lease, as the rules count it.

A start relies on having queued for the person, so that nothing of it changes until the transaction
ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from jupyterhub_migspawner.broker.unadopted import NO_LEASE
from jupyterhub_migspawner.model.leases import RELEASING, LeaseRow
from jupyterhub_migspawner.policy.admission import Ask, Use
from jupyterhub_migspawner.policy.proof import Ending
from jupyterhub_migspawner.policy.settings import Settings


@dataclass(frozen=True)
class Holdings:
    """The leases of a person that are not proven empty, at every hub.

    And the like of servers that run without one (:mod:`.unadopted`). ``sessions`` are those that
    count in quotas: of other servers, and of sessions that have ended. ``remains`` are what earlier
    starts of this very server left; they have to begin to end, and count among the sessions as if
    they were ending already. ``offered`` is what is held for tickets. ``replaced`` is what runs
    while a ticket waits for that very server: it makes room for the offer when the server starts
    again, but its grant is in use until then.
    """

    sessions: tuple[LeaseRow, ...]
    offered: tuple[LeaseRow, ...]
    remains: tuple[LeaseRow, ...]
    replaced: tuple[LeaseRow, ...]

    def on_grants(self, but: LeaseRow | None) -> tuple[LeaseRow, ...]:
        """Return all that may hold a grant, except an offer that is to be taken over."""
        offered = tuple(lease for lease in self.offered if lease is not but)
        return self.sessions + offered + self.replaced

    def servers(self, hub: str) -> int:
        """Count the person's other servers that run or start at a hub, as far as leases say."""
        return sum(not lease.ending and lease.hub == hub for lease in self.sessions)


def holdings(leases: Iterable[LeaseRow], hub: str, ask: Ask) -> Holdings:
    """Return what the person of an ask at a hub has, of all their ``leases``.

    A server of the same name at another hub is a different one.
    """
    sessions, offered, remains, replaced = [], [], [], []
    for lease in leases:
        if lease.ticket_id is not None:
            offered.append(lease)
        elif lease.ending or (lease.hub, lease.server) != (hub, ask.server):
            sessions.append(lease)
        elif ask.use is Use.OFFER:
            replaced.append(lease)
        else:
            if lease.id != NO_LEASE:
                remains.append(lease)
            sessions.append(replace(lease, state=RELEASING, releasing_at=ask.now))
    return Holdings(tuple(sessions), tuple(offered), tuple(remains), tuple(replaced))


def ending_of(settings: Settings, lease: LeaseRow, *, counts_as_server: bool = True) -> Ending:
    """Return a lease whose session has ended, as the rules and their sentences see it."""
    tier = settings.tier(lease.tier)
    return Ending(
        server=lease.server,
        tier=tier.title if tier is not None else lease.tier,
        since=lease.releasing_at or lease.since,
        waiting_for=lease.waiting_for,
        whole=lease.whole,
        counts_as_server=counts_as_server and lease.ticket_id is None,
        offered=lease.ticket_id is not None,
    )
