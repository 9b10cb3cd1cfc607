"""Which grant a start uses: a valid one on which no lease is live.

Read-only, and the same for a start, for an offer of the waiting list and for what the form shows. A
grant is for one server at a time. A session that has ended keeps its grant in use until its slice
is proven empty, so that no grant ever holds two cards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.leases.rows import LeaseRow, RequestRow
from jupyterhub_migspawner.policy.proof import Ending, in_words
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import moment, quoted


def is_used_up(grant: RequestRow, tier: Tier) -> bool:
    """Whether no more servers may be started on a grant."""
    return tier.grant_starts is not None and grant.uses >= tier.grant_starts


def valid_grants(asked: Iterable[RequestRow], tier: Tier, now: datetime) -> tuple[RequestRow, ...]:
    """Those of a person's requests that are grants for a tier now, the longest first."""
    valid = [
        (request.valid_until, -request.id, request)
        for request in asked
        if request.tier == tier.name
        and request.holds_at(now)
        and not is_used_up(request, tier)
        and request.valid_until is not None
    ]
    return tuple(each[2] for each in sorted(valid, reverse=True))


def free_grant(grants: Sequence[RequestRow], leases: Iterable[LeaseRow]) -> RequestRow | None:
    """The first grant on which none of these leases is; None when all are in use."""
    in_use = {lease.request_id for lease in leases}
    return next((grant for grant in grants if grant.id not in in_use), None)


def in_use(
    settings: Settings,
    tier: Tier,
    grants: Sequence[RequestRow],
    leases: Iterable[LeaseRow],
    now: datetime,
) -> Refusal:
    """What is said when each of some grants is in use; ``grants`` must not be empty."""
    holders: dict[int | None, list[LeaseRow]] = {}
    for lease in leases:
        holders.setdefault(lease.request_id, []).append(lease)
    only_ending = [
        lease
        for grant in grants
        if all(lease.ending for lease in holders[grant.id])
        for lease in holders[grant.id]
    ]
    if only_ending:
        endings = [ending_of(settings, lease) for lease in only_ending]
        return Refusal(
            f"Your grant for tier {quoted(tier.title)} is still in use. {in_words(endings)}",
            reason="approval",
            soon=not all(each.overdue(now) for each in endings),
        )
    lease = holders[grants[0].id][0]
    if lease.ticket_id is not None:
        until = f" until {moment(lease.deadline)}" if lease.deadline else ""
        where = f" at hub {quoted(lease.hub)}" if lease.hub != settings.hub else ""
        return Refusal(
            f"Your grant {grants[0].id} for tier {quoted(tier.title)} is in use: a card is held "
            f"for your place in the waiting list{where}{until}. Start it there, or give up that "
            "place.",
            reason="approval",
        )
    server = lease.server
    return Refusal(
        f"Your grant {grants[0].id} for tier {quoted(tier.title)} is in use by your "
        f"{f'server {quoted(server)}' if server else 'default server'}; stop that one first.",
        reason="approval",
    )


def ending_of(settings: Settings, lease: LeaseRow, *, counts_as_server: bool = True) -> Ending:
    """A lease whose session has ended, as the rules and their sentences see it."""
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
