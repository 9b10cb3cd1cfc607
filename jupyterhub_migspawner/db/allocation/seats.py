"""Find slices that several leases of one tier share and allocate a seat of them.

A slice is shared by the tier whose leases are on it, from the first of them, for which
:mod:`.slices` allocates it, until the last is given back; no lease of another tier, and none that
wants a slice for itself, joins it. Where seats are to be had, the fullest slice comes first, so
that the others empty again.

Locks as :mod:`.slices` does: the card shared, the slice alone. Who holds the slice's lock sees all
leases on it, and so which seat is free; the unique index over slice and seat is the last word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jupyterhub_migspawner.db.allocation.slices import Allocation
from jupyterhub_migspawner.db.conditions import ON_NODE, REPORTING, USABLE, kind_values, of_kinds
from jupyterhub_migspawner.db.tables import SHARED, cards, leases, nodes, slices
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import Kinds

MOST_OFFERED = 16
"""How many slices with a free seat are tried."""

_JOINABLE = (
    SHARED,
    slices.c.shared_by == sa.bindparam("tier"),
    slices.c.profile == sa.bindparam("of_profile"),
    slices.c.held < sa.bindparam("seats"),
    slices.c.present,
    slices.c.uuid.is_not(None),
    slices.c.wanted,
    slices.c.quarantined == "",
)
_FULLEST_FIRST = (slices.c.held.desc(), slices.c.card_uuid.desc(), slices.c.start.desc())


@lru_cache(maxsize=64)
def _offers(*, on_node: bool, kinds: int | None) -> sa.Select[Any]:
    found = (
        sa.select(
            slices.c.id,
            slices.c.card_uuid,
            slices.c.compute_slices,
            cards.c.node,
            cards.c.compute_slices.label("card_compute"),
        )
        .join(cards, cards.c.uuid == slices.c.card_uuid)
        .join(nodes, nodes.c.name == cards.c.node)
        .where(*_JOINABLE, USABLE, REPORTING)
        .order_by(*_FULLEST_FIRST)
        .limit(sa.literal_column(str(MOST_OFFERED)))
    )
    if on_node:
        found = found.where(ON_NODE)
    return found if kinds is None else found.where(of_kinds(kinds))


# As for slices: the first goes round what others hold, the second waits for how that ends.
_CHOICE = """
    WITH choice AS MATERIALIZED (
        SELECT slices.id
        FROM slices JOIN cards ON cards.uuid = slices.card_uuid
        WHERE slices.id = ANY(:ids) AND {joinable}
          AND NOT cards.lost AND cards.drained = '' AND cards.problem = '' AND cards.mig_enabled
          AND cards.target IS NULL AND cards.reserved_for IS NULL
        ORDER BY array_position(:ids, slices.id) LIMIT 1
        FOR UPDATE OF slices {how}
    )
    UPDATE slices SET held = slices.held + 1
    FROM choice WHERE slices.id = choice.id AND {joinable}
    RETURNING slices.id, slices.uuid, slices.profile, slices.start, slices.memory_mib, slices.whole
"""
_CHOSEN = (
    "slices.shared_by = :tier AND slices.profile = :of_profile AND slices.held < :seats "
    "AND slices.present AND slices.uuid IS NOT NULL AND slices.wanted AND slices.quarantined = ''"
)
_PICK, _PICK_SETTLED = (
    sa.text(_CHOICE.format(how=how, joinable=_CHOSEN)).bindparams(
        sa.bindparam("ids", type_=postgresql.ARRAY(sa.BigInteger))
    )
    for how in ("SKIP LOCKED FOR SHARE OF cards SKIP LOCKED", "")
)
# In one order, so that no start holds a full slice while it waits for the next one.
_SETTLE = (
    sa.select(slices.c.id)
    .where(slices.c.id == sa.any_(sa.bindparam("ids", type_=postgresql.ARRAY(sa.BigInteger))))
    .order_by(slices.c.id)
    .with_for_update()
)
_SEATS_TAKEN = sa.select(leases.c.slice_id, leases.c.seat).where(
    sa.text("leases.state IN ('pending', 'active', 'releasing')")
)
_SEATS_TAKEN_OF = _SEATS_TAKEN.where(leases.c.slice_id == sa.bindparam("of_slice"))
_SEATS_TAKEN_AMONG = _SEATS_TAKEN.where(
    leases.c.slice_id == sa.any_(sa.bindparam("ids", type_=postgresql.ARRAY(sa.BigInteger)))
)
_JOIN = (
    sa.update(slices)
    .where(slices.c.id == sa.bindparam("slice_id"), *_JOINABLE)
    .values(held=slices.c.held + 1)
    .returning(
        slices.c.id,
        slices.c.uuid,
        slices.c.profile,
        slices.c.start,
        slices.c.memory_mib,
        slices.c.whole,
    )
)


@dataclass(frozen=True)
class SharedSlice:
    """A slice on which a tier has a seat free, and the compute slices of it and its card."""

    slice_id: int
    card_uuid: str
    compute_slices: int
    node: str
    card_compute: int


def offers(
    tx: Transaction,
    tier: str,
    profile: str,
    seats: int,
    silent_before: datetime,
    node: str | None = None,
    kinds: Kinds | None = None,
) -> list[SharedSlice]:
    """Return slices that a tier of so many seats a slice has, with a seat free; the fullest first.

    At most :data:`MOST_OFFERED`; on a ``node``, and on cards of certain ``kinds``, where these are
    given.
    """
    if kinds is not None and not kinds:
        return []
    values: dict[str, object] = {"tier": tier, "of_profile": profile, "seats": seats}
    values["silent_before"] = silent_before
    if node is not None:
        values["on_node"] = node
    values |= kind_values(kinds or ())
    statement = _offers(on_node=node is not None, kinds=None if kinds is None else len(kinds))
    return [SharedSlice(*row) for row in tx.rows(statement, **values)]


def join(
    tx: Transaction,
    offered: Sequence[SharedSlice],
    tier: str,
    profile: str,
    seats: int,
    *,
    settled: bool,
) -> Allocation | None:
    """Allocate a seat on the first of these slices that has one; None when others were faster.

    Unless the cards are ``settled``, a slice on which another transaction allocates a seat counts
    as full: this never waits.
    """
    if not offered:
        return None
    by_id = {each.slice_id: each for each in offered}
    wanted = {"tier": tier, "of_profile": profile, "seats": seats}
    if tx.postgres:
        pick, ids = _PICK_SETTLED if settled else _PICK, list(by_id)
        # The second sees who has sat down on the slice until the first had it.
        with tx.together() as asked:
            if settled:
                asked.rows(_SETTLE, ids=ids)
            asked.first(pick, ids=ids, **wanted)
            asked.rows(_SEATS_TAKEN_AMONG, ids=ids)
        row = tx.first(pick, ids=ids, **wanted)
        leased = tx.rows(_SEATS_TAKEN_AMONG, ids=ids)
    else:
        row = tx.first(_JOIN, slice_id=offered[0].slice_id, **wanted)
        leased = tx.rows(_SEATS_TAKEN_OF, of_slice=offered[0].slice_id)
    if row is None:
        return None
    taken = {each.seat for each in leased if each.slice_id == row.id}
    offer = by_id[row.id]
    compute = offer.compute_slices
    return Allocation(
        row.id,
        row.uuid,
        offer.node,
        offer.card_uuid,
        row.profile,
        row.start,
        row.memory_mib,
        row.whole,
        compute / max(offer.card_compute, compute, 1),
        # As many numbers as leases are taken, so that one of the first is not.
        seat=next(seat for seat in range(len(taken) + 1) if seat not in taken),
    )
