"""What slices and cards have to be to be given out, as conditions of queries."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import cards, nodes
from jupyterhub_migspawner.model.cards import CardKind

IN_SERVICE = sa.and_(
    sa.not_(cards.c.lost),
    cards.c.drained == "",
    cards.c.problem == "",
    cards.c.target.is_(None),
)
# A lost card is not there at all.
OUT_OF_SERVICE = sa.and_(
    sa.not_(cards.c.lost), sa.or_(cards.c.drained != "", cards.c.problem != "")
)
USABLE = sa.and_(IN_SERVICE, cards.c.mig_enabled, cards.c.reserved_for.is_(None))
# While it is lent without MIG, a card whose layout has MIG on still counts as one with it.
WITH_MIG = sa.or_(cards.c.mig_enabled, cards.c.mig_wanted)
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
    """Return the condition that nobody holds a slice, it is present, and it may be held.

    ``table`` is one of slices.
    """
    return sa.and_(
        table.c.held == 0,
        table.c.present,
        table.c.uuid.is_not(None),
        table.c.wanted,
        table.c.quarantined == "",
    )


REPORTING = nodes.c.heartbeat_at >= sa.bindparam("silent_before")

ON_NODE = cards.c.node == sa.bindparam("on_node")


KIND = (cards.c.model, cards.c.memory_mib, WITH_MIG.label("with_mig"))
"""What :func:`kind_of` reads."""


def kind_of(row: Any) -> CardKind:
    """Return the kind of the card that a row with :data:`KIND` is about."""
    return CardKind(row.model, row.memory_mib, bool(row.with_mig))


@lru_cache(maxsize=64)
def of_kinds(number: int) -> sa.ColumnElement[bool]:
    """Return the condition that a card is of one of so many kinds.

    The values of these come from :func:`kind_values`.
    """
    return sa.or_(
        sa.false(),
        *(
            sa.and_(
                cards.c.model == sa.bindparam(f"model_{place}"),
                cards.c.memory_mib == sa.bindparam(f"memory_{place}"),
                sa.bindparam(f"mig_{place}", type_=sa.Boolean()) == WITH_MIG,
            )
            for place in range(number)
        ),
    )


def kind_values(kinds: Collection[CardKind]) -> dict[str, Any]:
    """Return the values of :func:`of_kinds`, by name."""
    found: dict[str, Any] = {}
    for place, kind in enumerate(sorted(kinds)):
        found[f"model_{place}"], found[f"memory_{place}"], found[f"mig_{place}"] = kind
    return found
