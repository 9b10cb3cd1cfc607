"""Find free slices and allocate one of them.

:mod:`.seats` does the same for slices that are shared, :mod:`.cards` for whole cards.

A slice is free when its card is usable (not lost, drained, faulty or about to be re-cut, MIG on),
its node has reported lately, it was seen, is not quarantined and nobody holds it.

Taking locks the card first and the slice second. A small slice shares its card's lock with other
small ones; a whole card needs it alone. So on PostgreSQL a card is never given out whole while a
part of it is being taken, and on SQLite there is one writer anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jupyterhub_migspawner.db.conditions import (
    IN_SERVICE,
    ON_NODE,
    REPORTING,
    USABLE,
    kind_values,
    of_kinds,
    unheld,
)
from jupyterhub_migspawner.db.tables import FREE, cards, nodes, slices
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import Kinds
from jupyterhub_migspawner.policy.placement import CardLoad, FreeSlice

MOST_SETTLED = 64
"""How many cards one transaction waits for."""

MOST_OFFERED = 16
"""How many cards with a free slice are weighed against each other."""

MOST_TRIED = 8
"""How many of them are tried before waiting for those who are just taking from them."""

_OF_KIND = {
    False: slices.c.profile == sa.bindparam("of_profile"),
    True: sa.literal_column("slices.whole", sa.Boolean),
}


@lru_cache(maxsize=64)
def _offers(whole: bool, *, on_node: bool, kinds: int | None) -> sa.Select[Any]:
    """Return the query for the first cards with a free slice of a size.

    Each row has the first such slice, and the card's load. ``kinds`` is of how many kinds the cards
    may be, None for any. The index of free slices is read in its order until enough cards are
    found, and only the slices of those are looked at, so that the size of the cluster does not
    matter.
    """
    first = sa.select(slices.c.card_uuid, sa.func.min(slices.c.start).label("start"))
    if on_node or kinds is not None:
        first = first.join(cards, cards.c.uuid == slices.c.card_uuid)
    if on_node:
        first = first.where(ON_NODE)
    if kinds is not None:
        first = first.where(of_kinds(kinds))
    some = (
        first.where(_OF_KIND[whole], FREE, slices.c.card_uuid > sa.bindparam("after"))
        .group_by(slices.c.card_uuid)
        .order_by(slices.c.card_uuid)
        .limit(sa.literal_column(str(MOST_OFFERED)))
        .subquery("some")
    )
    chosen, mates = slices.alias("chosen"), slices.alias("mates")
    kind = chosen.c.whole if whole else chosen.c.profile == sa.bindparam("of_profile")

    def of_card(amount: sa.ColumnElement[Any]) -> sa.ScalarSelect[Any]:
        found = sa.select(sa.func.sum(amount)).where(mates.c.card_uuid == some.c.card_uuid)
        return found.correlate(some).scalar_subquery()

    return (
        sa.select(
            some.c.card_uuid,
            some.c.start,
            chosen.c.id,
            chosen.c.profile,
            chosen.c.compute_slices,
            cards.c.node,
            cards.c.card_index,
            cards.c.compute_slices.label("card_compute"),
            of_card(sa.case((unheld(mates), mates.c.compute_slices), else_=0)).label(
                "free_compute"
            ),
            of_card(mates.c.held).label("live"),
            sa.and_(USABLE, REPORTING).label("usable"),
        )
        .join(
            chosen,
            sa.and_(
                chosen.c.card_uuid == some.c.card_uuid,
                chosen.c.start == some.c.start,
                kind,
                unheld(chosen),
            ),
        )
        .join(cards, cards.c.uuid == some.c.card_uuid)
        .join(nodes, nodes.c.name == cards.c.node)
        .order_by(some.c.card_uuid)
    )


# Everybody who waits for several cards does so in the order of their UUIDs. What may be taken from
# them is read again once they are settled.
_SETTLE = (
    sa.select(cards.c.uuid)
    .where(
        cards.c.uuid == sa.any_(sa.bindparam("uuids", type_=postgresql.ARRAY(sa.Text))),
        IN_SERVICE,
    )
    .order_by(cards.c.uuid)
)
_SETTLE_SHARED = _SETTLE.with_for_update(read=True)
_SETTLE_ALONE = _SETTLE.with_for_update()
# Lock, on the cards given and in their order, the first free slice of the kind asked for, and hold
# it. (SQLAlchemy knows only one locking clause, and only for all tables of a query.)
_CHOICE = """
    WITH choice AS MATERIALIZED (
        SELECT slices.id
        FROM slices JOIN cards ON cards.uuid = slices.card_uuid
        WHERE cards.uuid = ANY(:uuids) AND slices.card_uuid = ANY(:uuids) AND {kind} AND {free}
          AND NOT cards.lost AND cards.drained = '' AND cards.problem = '' AND cards.mig_enabled
          AND cards.target IS NULL AND cards.reserved_for IS NULL
        ORDER BY array_position(:uuids, slices.card_uuid), slices.start, slices.id LIMIT 1
        FOR UPDATE OF slices {how}
    )
    UPDATE slices SET held = slices.held + 1, shared_by = CAST(:tier AS text)
    FROM choice WHERE slices.id = choice.id AND {free}
    RETURNING slices.id, slices.card_uuid, slices.compute_slices, slices.uuid, slices.profile,
        slices.start, slices.memory_mib, slices.whole
"""
# The card's lock is shared and skipped like the slice's, so that the first never waits. The second
# is for cards whose locks are held already.
_KIND = {False: "slices.profile = :of_profile", True: "slices.whole"}
_PICK, _PICK_SETTLED = (
    {
        whole: sa.text(_CHOICE.format(kind=kind, free=FREE, how=how)).bindparams(
            sa.bindparam("uuids", type_=postgresql.ARRAY(sa.Text))
        )
        for whole, kind in _KIND.items()
    }
    for how in ("SKIP LOCKED FOR SHARE OF cards SKIP LOCKED", "")
)
# The conditions are repeated: the update decides, whatever was read before. On SQLite nobody else
# can write between the two.
_TAKE = (
    sa.update(slices)
    .where(slices.c.id == sa.bindparam("slice_id"), unheld(slices))
    .values(held=slices.c.held + 1, shared_by=sa.bindparam("tier", type_=sa.Text()))
    .returning(
        slices.c.id,
        slices.c.card_uuid,
        slices.c.compute_slices,
        slices.c.uuid,
        slices.c.profile,
        slices.c.start,
        slices.c.memory_mib,
        slices.c.whole,
    )
)


@dataclass(frozen=True)
class Candidate:
    """A free slice with its card's load, and the compute slices of the whole card."""

    slice: FreeSlice
    load: CardLoad
    card_compute: int


@dataclass(frozen=True)
class Allocation:
    """What a new lease says about its slice.

    ``slice_uuid`` is None until the slice is cut; ``lease_id`` is the number that the lease will
    have, 0 where inserting it gives the number.
    """

    slice_id: int
    slice_uuid: str | None
    node: str
    card_uuid: str
    profile: str
    start: int
    memory_mib: int
    whole: bool
    share: float
    seat: int = 0
    lease_id: int = 0


def offers(
    tx: Transaction,
    profile: str | None,
    silent_before: datetime,
    node: str | None = None,
    kinds: Kinds | None = None,
) -> list[Candidate]:
    """Return free slices of a profile, or for None those that take a whole card.

    The first one of each card. Of at most :data:`MOST_OFFERED` cards, those that come first by
    their UUIDs, on a ``node`` and of certain ``kinds`` where these are given.
    """
    if kinds is not None and not kinds:
        return []
    values: dict[str, object] = {"silent_before": silent_before, **kind_values(kinds or ())}
    if profile is not None:
        values["of_profile"] = profile
    if node is not None:
        values["on_node"] = node
    statement = _offers(
        profile is None,
        on_node=node is not None,
        kinds=None if kinds is None else len(kinds),
    )
    after = ""
    while True:
        rows = tx.rows(statement, after=after, **values)
        found = [
            Candidate(
                FreeSlice(row.id, row.card_uuid, row.profile, row.start, row.compute_slices),
                CardLoad(
                    row.card_uuid, row.node, row.card_index, int(row.free_compute), int(row.live)
                ),
                row.card_compute,
            )
            for row in rows
            if row.usable
        ]
        if found or len(rows) < MOST_OFFERED:
            return found
        # All of these are out of service.
        after = rows[-1].card_uuid


def settle(tx: Transaction, card_uuids: Iterable[str], *, alone: bool) -> frozenset[str]:
    """Wait until nobody is just taking from these cards, and keep them so; return the usable ones.

    ``alone`` keeps everybody else away from them, otherwise others may take slices as well. On
    SQLite there is nobody else.
    """
    some = sorted(set(card_uuids))[:MOST_SETTLED]
    if not tx.postgres:
        return frozenset(some)
    found = tx.rows(_SETTLE_ALONE if alone else _SETTLE_SHARED, uuids=some)
    return frozenset(row.uuid for row in found)


def take(
    tx: Transaction,
    ranked: Sequence[Candidate],
    profile: str | None,
    *,
    settled: bool,
    shared_by: str | None = None,
) -> Allocation | None:
    """Hold the best slice of these cards that is to be had; None when others were faster.

    ``shared_by`` is the tier whose seats it is to have; without one it is held alone. Unless the
    cards are ``settled``, a slice that another transaction is just taking counts as gone: this
    never waits.
    """
    if not ranked:
        return None
    if tx.postgres:
        wanted = {} if profile is None else {"of_profile": profile}
        pick = (_PICK_SETTLED if settled else _PICK)[profile is None]
        uuids = [each.slice.card_uuid for each in (ranked if settled else ranked[:MOST_TRIED])]
        row = tx.first(pick, uuids=uuids, tier=shared_by, **wanted)
    else:
        row = tx.first(_TAKE, slice_id=ranked[0].slice.id, tier=shared_by)
    if row is None:
        return None
    offer = next(each for each in ranked if each.slice.card_uuid == row.card_uuid)
    compute = row.compute_slices
    return Allocation(
        row.id,
        row.uuid,
        offer.load.node,
        offer.load.card_uuid,
        row.profile,
        row.start,
        row.memory_mib,
        row.whole,
        compute / max(offer.card_compute, compute, 1),
    )
