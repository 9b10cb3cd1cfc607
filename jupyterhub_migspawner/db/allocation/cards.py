"""Find cards with nothing live on them and allocate one of them whole.

The card's lock is needed alone, so that no part of it is being taken meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.allocation.slices import Allocation
from jupyterhub_migspawner.db.conditions import (
    KIND,
    MAY_TAKE_ALL,
    ON_NODE,
    REPORTING,
    kind_of,
    unheld,
)
from jupyterhub_migspawner.db.tables import cards, nodes, slices
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import MIG_OFF, CardKind, Kinds
from jupyterhub_migspawner.policy.placement import CardLoad

_LOADS = (
    sa.select(
        slices.c.card_uuid,
        sa.func.sum(sa.case((unheld(slices), slices.c.compute_slices), else_=0)).label(
            "free_compute"
        ),
        sa.func.sum(slices.c.held).label("live"),
        sa.func.sum(sa.case((slices.c.quarantined != "", 1), else_=0)).label("quarantined"),
    )
    .group_by(slices.c.card_uuid)
    .subquery("loads")
)

# A card without a single slice has nothing live on it either, hence the outer join.
_WHOLE = (
    sa.select(
        cards.c.uuid,
        cards.c.node,
        cards.c.card_index,
        *KIND,
        cards.c.compute_slices,
        cards.c.whole_profile,
        cards.c.whole_start,
        cards.c.whole_size,
        cards.c.whole_memory_mib,
        cards.c.reserved_for,
        sa.func.coalesce(_LOADS.c.free_compute, 0).label("free_compute"),
        sa.func.coalesce(_LOADS.c.live, 0).label("live"),
    )
    .join(nodes, nodes.c.name == cards.c.node)
    .outerjoin(_LOADS, _LOADS.c.card_uuid == cards.c.uuid)
    .where(MAY_TAKE_ALL, REPORTING, sa.func.coalesce(_LOADS.c.quarantined, 0) == 0)
)
_BUSY = _WHOLE.where(sa.func.coalesce(_LOADS.c.live, 0) > 0)
_BUSY_ON_NODE = _BUSY.where(ON_NODE)
_IDLE = _WHOLE.where(sa.func.coalesce(_LOADS.c.live, 0) == 0)
_IDLE_ON_NODE = _IDLE.where(ON_NODE)

_LOCK_CARD = (
    sa.select(cards.c.uuid)
    .where(cards.c.uuid == sa.bindparam("card_uuid"), MAY_TAKE_ALL)
    .with_for_update(skip_locked=True)
)
_LIVE_ON_CARD = sa.select(
    sa.func.coalesce(sa.func.sum(slices.c.held), 0),
    sa.func.coalesce(sa.func.sum(sa.case((slices.c.quarantined != "", 1), else_=0)), 0),
).where(slices.c.card_uuid == sa.bindparam("card_uuid"))
_PLACE = sa.select(slices.c.id, slices.c.present, slices.c.uuid).where(
    slices.c.card_uuid == sa.bindparam("card_uuid"),
    slices.c.profile == sa.bindparam("of_profile"),
    slices.c.start == sa.bindparam("at_start"),
)
_INSERT_SLICE = sa.insert(slices).returning(slices.c.id)
_TARGET = sa.update(cards).where(cards.c.uuid == sa.bindparam("card_uuid_is"))
_HOLD_UNCUT = (
    sa.update(slices)
    .where(slices.c.id == sa.bindparam("slice_id"), slices.c.held == 0)
    .values(held=1)
)


@dataclass(frozen=True)
class IdleCard:
    """A card with nothing live on it, and the instance that would take all of it."""

    load: CardLoad
    compute_slices: int
    profile: str
    start: int
    size: int
    memory_mib: int
    kind: CardKind
    grant_id: int | None = None
    is_kept: bool = False

    @property
    def mig_off(self) -> bool:
        """Whether it is to be given out with MIG off."""
        return (self.profile, self.start) == MIG_OFF


def idle_cards(
    tx: Transaction,
    silent_before: datetime,
    node: str | None = None,
    *,
    grant_id: int | None = None,
    mig_off: bool = False,
    kinds: Kinds | None = None,
) -> list[IdleCard]:
    """Return cards that could be given out whole; if any are reserved for the grant, only these.

    With ``mig_off`` as cards without MIG, else as one slice over all of it; only of certain
    ``kinds`` where these are given.
    """
    values = {"silent_before": silent_before, "grant_id": grant_id, "mig_off": mig_off}
    if node is None:
        rows = tx.rows(_IDLE, **values)
    else:
        rows = tx.rows(_IDLE_ON_NODE, **values, on_node=node)
    rows = _of_kinds(rows, kinds)
    reserved = [row for row in rows if row.reserved_for is not None]
    return [
        IdleCard(
            CardLoad(row.uuid, row.node, row.card_index, int(row.free_compute), 0),
            row.compute_slices,
            MIG_OFF[0] if mig_off else row.whole_profile,
            MIG_OFF[1] if mig_off else row.whole_start,
            row.whole_size or 0,
            row.memory_mib if mig_off else row.whole_memory_mib,
            kind_of(row),
            grant_id,
            bool(reserved),
        )
        for row in reserved or rows
    ]


def is_kept(
    tx: Transaction,
    silent_before: datetime,
    grant_id: int,
    node: str | None = None,
    *,
    mig_off: bool,
    kinds: Kinds | None = None,
) -> bool:
    """Tell whether an idle card is set aside for the grant."""
    values = {"silent_before": silent_before, "grant_id": grant_id, "mig_off": mig_off}
    if node is None:
        rows = tx.rows(_IDLE, **values)
    else:
        rows = tx.rows(_IDLE_ON_NODE, **values, on_node=node)
    return any(row.reserved_for is not None for row in _of_kinds(rows, kinds))


def _of_kinds(rows: Sequence[Any], kinds: Kinds | None) -> list[Any]:
    """Return those of some cards that are of certain kinds: all are read anyway."""
    return [row for row in rows if kinds is None or kind_of(row) in kinds]


def busy_cards(
    tx: Transaction,
    silent_before: datetime,
    node: str | None = None,
    *,
    grant_id: int | None = None,
    mig_off: bool = False,
    kinds: Kinds | None = None,
) -> list[tuple[CardLoad, bool]]:
    """Return cards that could be given out whole but for who is on them, and their reservations.

    Each card comes with whether it is reserved. Only of certain ``kinds`` where these are given.
    """
    values = {"silent_before": silent_before, "grant_id": grant_id, "mig_off": mig_off}
    if node is None:
        rows = tx.rows(_BUSY, **values)
    else:
        rows = tx.rows(_BUSY_ON_NODE, **values, on_node=node)
    return [
        (
            CardLoad(row.uuid, row.node, row.card_index, int(row.free_compute), int(row.live)),
            row.reserved_for is not None,
        )
        for row in _of_kinds(rows, kinds)
    ]


def take_card(tx: Transaction, card: IdleCard) -> Allocation | None:
    """Hold a whole card: target it for the re-cut and hold the slice that this will make.

    A card that turns out to be cut whole already needs no target. Returns None when another lease
    took a part of it, or all of it, meanwhile, or is just about to.
    """
    uuid = card.load.card_uuid
    lock = {"card_uuid": uuid, "grant_id": card.grant_id, "mig_off": card.mig_off}
    place = {"card_uuid": uuid, "of_profile": card.profile, "at_start": card.start}
    # Read again once nobody else can take from the card.
    if tx.postgres:
        with tx.together() as asked:
            asked.rows(_LOCK_CARD, **lock)
            asked.rows(_LIVE_ON_CARD, card_uuid=uuid)
            asked.rows(_PLACE, **place)
    if tx.first(_LOCK_CARD, **lock) is None:
        return None
    live, quarantined = tx.first(_LIVE_ON_CARD, card_uuid=uuid)
    if live or quarantined:
        return None
    found = tx.first(_PLACE, **place)
    slice_id = (
        int(found[0])
        if found
        else tx.insert(
            _INSERT_SLICE,
            card_uuid=uuid,
            profile=card.profile,
            start=card.start,
            size=card.size,
            compute_slices=card.compute_slices,
            memory_mib=card.memory_mib,
            whole=True,
            uuid=None,
            gi_id=None,
            ci_id=None,
            present=False,
            wanted=True,
            quarantined="",
            held=0,
        )
    )
    cut_already = found is not None and found.present and found.uuid is not None
    target = None if cut_already else [[card.profile, card.start]]
    tx.send(_TARGET, card_uuid_is=uuid, target=target)
    tx.send(_HOLD_UNCUT, slice_id=slice_id)
    return Allocation(
        slice_id,
        found.uuid if cut_already else None,
        card.load.node,
        uuid,
        card.profile,
        card.start,
        card.memory_mib,
        True,
        1.0,
    )
