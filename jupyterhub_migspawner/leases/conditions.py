"""What slices and cards have to be to be given out, as conditions of queries."""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.leases.schema import cards, nodes

IN_SERVICE = sa.and_(
    sa.not_(cards.c.lost),
    cards.c.drained == "",
    cards.c.problem == "",
    cards.c.target.is_(None),
)
USABLE = sa.and_(IN_SERVICE, cards.c.mig_enabled, cards.c.reserved_for.is_(None))
# A card that is being emptied is there for its grant only.
MAY_TAKE_ALL = sa.and_(
    IN_SERVICE,
    sa.or_(cards.c.reserved_for.is_(None), cards.c.reserved_for == sa.bindparam("grant_id")),
    sa.case(
        (sa.bindparam("mig_off", type_=sa.Boolean()), sa.true()),
        else_=sa.and_(cards.c.mig_enabled, cards.c.whole_profile.is_not(None)),
    ),
)


def unheld(table: sa.FromClause) -> sa.ColumnElement[bool]:
    """Nobody holds the slice, it is there, and somebody may; ``table`` is one of slices."""
    return sa.and_(
        table.c.held == 0,
        table.c.present,
        table.c.uuid.is_not(None),
        table.c.wanted,
        table.c.quarantined == "",
    )


REPORTING = nodes.c.heartbeat_at >= sa.bindparam("silent_before")

ON_NODE = cards.c.node == sa.bindparam("on_node")
