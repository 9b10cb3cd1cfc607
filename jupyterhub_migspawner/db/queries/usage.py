"""How long leases lasted: what quotas count, and what estimates of the queue are made from."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import leases
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.leases import RELEASED
from jupyterhub_migspawner.policy.quotas import Span

_SPANS = sa.select(leases.c.since, leases.c.ended_at, leases.c.share).where(
    leases.c.username == sa.bindparam("user"),
    # An offer that nobody took has kept a slice free, and has used none.
    leases.c.ticket_id.is_(None),
    sa.or_(leases.c.ended_at.is_(None), leases.c.ended_at > sa.bindparam("begin")),
)
_PAST = (
    sa.select(leases.c.since, leases.c.ended_at)
    .where(
        leases.c.profile == sa.bindparam("of_profile"),
        leases.c.state == RELEASED,
        leases.c.ticket_id.is_(None),
    )
    .order_by(leases.c.id.desc())
    .limit(sa.bindparam("most", type_=sa.Integer()))
)


def spans(tx: Transaction, user: str, begin: datetime) -> tuple[Span, ...]:
    """Return when the person held what share of a card, as far as it reaches past ``begin``."""
    return tuple(Span(*row) for row in tx.rows(_SPANS, user=user, begin=begin))


def past_of_profile(
    tx: Transaction, profile: str, most: int
) -> tuple[tuple[datetime, datetime], ...]:
    """Return beginning and end of the latest past leases of a profile, at most ``most``."""
    return tuple((row[0], row[1]) for row in tx.rows(_PAST, of_profile=profile, most=most))
