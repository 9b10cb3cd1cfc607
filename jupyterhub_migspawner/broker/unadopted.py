"""What counts against a person although no lease says so: their servers that run without one.

Relies on the word of the person's hub alone. The mark of a process is no such word: anybody could
fill another person's quota with it. Promises values that every rule takes for leases: they count in
quotas, as whole cards, in GPU-hours and on grants until they are adopted or gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.hubs import DEFAULT_HUB
from jupyterhub_migspawner.model.leases import ACTIVE, RELEASING, LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.policy.quotas import Span
from jupyterhub_migspawner.policy.settings import Settings

NO_LEASE = 0
"""In the place of a lease's number."""


def sessions(tx: Transaction, settings: Settings, user: str, now: datetime) -> tuple[LeaseRow, ...]:
    """Return the sessions of a person that run without a lease, as the leases they would have.

    Also those that have ended, by their hub's word, while processes of theirs still run.
    """
    return sessions_of(tx, settings, queries.orphans.of_user(tx, user), now)


def sessions_of(
    tx: Transaction, settings: Settings, orphans: Iterable[OrphanRow], now: datetime
) -> tuple[LeaseRow, ...]:
    """Return what :func:`sessions` does, for the ``orphans`` of one person."""
    return tuple(
        _as_lease(tx, settings, each, now) for each in orphans if each.vouched or each.was_vouched
    )


def spans(unadopted: Iterable[LeaseRow]) -> tuple[Span, ...]:
    """Return the time for which these sessions have had their share of a card."""
    return tuple(Span(each.since, None, each.share) for each in unadopted)


def slice_of(tx: Transaction, orphan: OrphanRow) -> SliceRow | None:
    """Return the slice that a server without a lease uses, if it is there."""
    for row in queries.slices.select(tx, card_uuid=orphan.card_uuid):
        if (row.profile, row.start) == (orphan.profile, orphan.start) and row.present:
            return row
    if orphan.card_uuid:
        return None
    for row in queries.slices.select(tx, node=orphan.node):
        if row.present and row.uuid == orphan.slice_uuid:
            return row
    return None


def share_of(tx: Transaction, row: SliceRow) -> float:
    """Return the part of its card's compute that a slice is, from 0 to 1."""
    record = queries.cards.by_uuid(tx, row.card_uuid)
    compute = record.row.compute_slices if record is not None else 0
    return row.compute_slices / max(compute, row.compute_slices, 1)


def _as_lease(tx: Transaction, settings: Settings, orphan: OrphanRow, now: datetime) -> LeaseRow:
    tier, row = settings.tier(orphan.tier), slice_of(tx, orphan)
    shares = tier is not None and tier.shares
    # Before an agent has reported the card, the tier says how much of it that is.
    whole = row.whole if row is not None else tier is not None and tier.is_whole
    share = share_of(tx, row) if row is not None else float(whole)
    pids = ", ".join(map(str, orphan.pids))
    return LeaseRow(
        id=NO_LEASE,
        attempt=orphan.attempt,
        user=orphan.user,
        server=orphan.server,
        tier=orphan.tier,
        state=ACTIVE if orphan.vouched else RELEASING,
        slice_id=row.id if row is not None else 0,
        slice_uuid=orphan.slice_uuid,
        node=orphan.node,
        card_uuid=orphan.card_uuid,
        profile=orphan.profile,
        memory_mib=row.memory_mib if row is not None else 0,
        since=min(orphan.since or now, now),
        deadline=None,
        ends_at=orphan.ends_at,
        ended_at=None,
        end_reason="",
        waiting_for=f"processes of the ended server are still running: pid {pids}" if pids else "",
        request_id=orphan.request_id,
        releasing_at=None if orphan.vouched else orphan.found_at,
        start=orphan.start or 0,
        whole=whole and not shares,
        share=share / (tier.seats if tier is not None and shares else 1),
        hub=orphan.hub or DEFAULT_HUB,
    )
