"""Slices in the lease database: what agents report, and how many live leases hold each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import cards, slices
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import MIG_OFF
from jupyterhub_migspawner.model.slices import SliceDevice, SliceRow

_SELECT = (
    sa.select(
        slices.c.id,
        cards.c.node,
        slices.c.card_uuid,
        cards.c.card_index,
        slices.c.profile,
        slices.c.start,
        slices.c.size,
        slices.c.compute_slices,
        slices.c.memory_mib,
        slices.c.whole,
        slices.c.uuid,
        slices.c.gi_id,
        slices.c.ci_id,
        slices.c.present,
        slices.c.quarantined,
        slices.c.wanted,
    )
    .join(cards, cards.c.uuid == slices.c.card_uuid)
    .order_by(cards.c.node, cards.c.card_index, cards.c.uuid, slices.c.start, slices.c.id)
)
_OF_NODE = _SELECT.where(cards.c.node == sa.bindparam("of_node"))
_OF_CARD = _SELECT.where(slices.c.card_uuid == sa.bindparam("of_card"))
_BY_ID = _SELECT.where(slices.c.id == sa.bindparam("slice_id"))
_DEVICE = (
    sa.select(cards.c.device_minor, slices.c.gi_id, slices.c.ci_id, slices.c.uuid, slices.c.profile)
    .join(cards, cards.c.uuid == slices.c.card_uuid)
    .where(slices.c.id == sa.bindparam("slice_id"))
)
_SHARED = (
    sa.select(slices.c.id)
    .join(cards, cards.c.uuid == slices.c.card_uuid)
    .where(cards.c.node == sa.bindparam("of_node"), slices.c.shared_by.is_not(None))
)
_INSERT = sa.insert(slices).returning(slices.c.id)
_UPDATE = sa.update(slices).where(slices.c.id == sa.bindparam("slice_id"))
_UNTAKE = (
    sa.update(slices)
    .where(slices.c.id == sa.bindparam("slice_id"))
    .values(
        held=slices.c.held - 1,
        shared_by=sa.case((slices.c.held > 1, slices.c.shared_by), else_=sa.null()),
    )
)
_TAKE = (
    sa.update(slices)
    .where(slices.c.id == sa.bindparam("slice_id"))
    .values(held=slices.c.held + 1, shared_by=sa.bindparam("tier", type_=sa.Text()))
)


def select(
    tx: Transaction, *, node: str | None = None, card_uuid: str | None = None
) -> tuple[SliceRow, ...]:
    """Return the slices of a card, of a node or of all, in the order people list them."""
    if card_uuid is not None:
        rows: Sequence[Any] = tx.rows(_OF_CARD, of_card=card_uuid)
    elif node is not None:
        rows = tx.rows(_OF_NODE, of_node=node)
    else:
        rows = tx.rows(_SELECT)
    return tuple(SliceRow(*row) for row in rows)


def by_id(tx: Transaction, slice_id: int) -> SliceRow | None:
    """Return one slice, or None."""
    row = tx.first(_BY_ID, slice_id=slice_id)
    return SliceRow(*row) if row else None


def device(tx: Transaction, slice_id: int, slice_uuid: str) -> SliceDevice | None:
    """Return the numbers of a slice's device nodes.

    None where they are not known, or the slice has another UUID by now.
    """
    row = tx.first(_DEVICE, slice_id=slice_id)
    if row is None or row.uuid != slice_uuid or row.device_minor is None:
        return None
    instance = row.profile != MIG_OFF[0]
    if instance and (row.gi_id is None or row.ci_id is None):
        return None
    return SliceDevice(
        row.device_minor, row.gi_id if instance else None, row.ci_id if instance else None
    )


def shared(tx: Transaction, node: str) -> frozenset[int]:
    """Return the ids of a node's slices whose seats are given out one by one."""
    return frozenset(int(row[0]) for row in tx.rows(_SHARED, of_node=node))


def insert(tx: Transaction, **values: Any) -> int:
    """Add a slice that nobody holds; return its id."""
    return tx.insert(_INSERT, quarantined="", held=0, **values)


def update(tx: Transaction, slice_id: int, **changes: Any) -> None:
    """Change a slice."""
    tx.change(_UPDATE, slice_id=slice_id, **changes)


def take(tx: Transaction, slice_id: int, shared_by: str | None) -> None:
    """Count one live lease more on the slice, whatever its state.

    ``shared_by`` is the tier of its seats, None for a lease that holds it alone.
    """
    tx.change(_TAKE, slice_id=slice_id, tier=shared_by)


def untake(tx: Transaction, slice_id: int) -> None:
    """Count one live lease less on the slice; with the last one the slice is nobody's."""
    tx.change(_UNTAKE, slice_id=slice_id)
