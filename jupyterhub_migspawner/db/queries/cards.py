"""Cards in the lease database, as their agents report them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from jupyterhub_migspawner.db.conditions import KIND, OUT_OF_SERVICE, kind_of
from jupyterhub_migspawner.db.tables import cards
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import CardKind, CardRow, Kinds, Layout

_SELECT = sa.select(
    cards.c.uuid,
    cards.c.node,
    cards.c.card_index,
    cards.c.model,
    cards.c.memory_mib,
    cards.c.mig_enabled,
    cards.c.lost,
    cards.c.drained,
    cards.c.layout,
    cards.c.target,
    cards.c.problem,
    cards.c.compute_slices,
    cards.c.whole_profile,
    cards.c.whole_start,
    cards.c.whole_size,
    cards.c.whole_memory_mib,
    cards.c.mig_wanted,
    cards.c.layout_by,
    cards.c.reserved_for,
    cards.c.reserved_until,
    cards.c.problem_since,
    cards.c.incomplete,
    cards.c.device_minor,
).order_by(cards.c.node, cards.c.card_index, cards.c.uuid)
_OUT_OF_SERVICE = (
    sa.select(cards.c.node, cards.c.layout, cards.c.drained, cards.c.problem, *KIND)
    .where(OUT_OF_SERVICE)
    .order_by(cards.c.node, cards.c.card_index, cards.c.uuid)
)
_KIND_BY_CARD = sa.select(cards.c.uuid, *KIND)
_KINDS = sa.select(*KIND).where(~cards.c.lost).distinct()
_OF_NODE = _SELECT.where(cards.c.node == sa.bindparam("of_node"))
_BY_UUID = _SELECT.where(cards.c.uuid == sa.bindparam("card_uuid"))
_INSERT = sa.insert(cards)
_UPDATE = sa.update(cards).where(cards.c.uuid == sa.bindparam("card_uuid_is"))
# Ordered, so that two transactions that lock the cards of a node cannot wait for each other.
_LOCK_OF_NODE = (
    sa.select(cards.c.uuid)
    .where(cards.c.node == sa.bindparam("of_node"))
    .order_by(cards.c.uuid)
    .with_for_update()
)
_LOCK = sa.select(cards.c.uuid).where(cards.c.uuid == sa.bindparam("card_uuid"))
_LOCK = _LOCK.with_for_update()


@dataclass(frozen=True)
class CardRecord:
    """A card row with what its state is made of, and all columns as ``stored``."""

    row: CardRow
    lost: bool
    drained: str
    stored: Mapping[str, Any]


def reasons_out_of_service(
    tx: Transaction,
    profile: str | None,
    node: str | None = None,
    *,
    mig_off: bool = False,
    kinds: Kinds | None = None,
) -> tuple[str, ...]:
    """Return why cards with this profile in their layout are out of service, each reason once.

    They are drained or have a problem. Cards of a ``node`` and of certain ``kinds``, where given.
    None stands for whole cards, with ``mig_off`` also those without MIG.
    """
    found = []
    for row in tx.rows(_OUT_OF_SERVICE):
        if node is not None and row.node != node:
            continue
        kind = kind_of(row)
        if profile is None:
            counts = mig_off or kind.mig
        else:
            counts = any(name == profile for name, _ in row.layout)
        if counts and (kinds is None or kind in kinds):
            found.append(row.drained or row.problem)
    return tuple(dict.fromkeys(found))


def _layout(value: Any) -> Layout:
    return tuple((str(profile), int(start)) for profile, start in value)


def _record(row: Any) -> CardRecord:
    state = "lost" if row.lost else "draining" if row.drained else "ok"
    whole = (row.whole_profile, row.whole_start) if row.whole_profile is not None else None
    return CardRecord(
        CardRow(
            uuid=row.uuid,
            node=row.node,
            index=row.card_index,
            model=row.model,
            memory_mib=row.memory_mib,
            mig_enabled=row.mig_enabled,
            state=state,
            layout=_layout(row.layout),
            target=None if row.target is None else _layout(row.target),
            problem=row.problem,
            compute_slices=row.compute_slices,
            whole=whole,
            mig_wanted=row.mig_wanted,
            layout_by=row.layout_by or "",
            reserved_for=row.reserved_for,
            reserved_until=row.reserved_until,
            problem_since=row.problem_since,
            incomplete=row.incomplete,
            drained=row.drained,
            device_minor=row.device_minor,
        ),
        lost=row.lost,
        drained=row.drained,
        stored=row._asdict(),
    )


def select(tx: Transaction, node: str | None = None) -> tuple[CardRecord, ...]:
    """Return the cards of one node or of all, in the order people list them."""
    rows = tx.rows(_SELECT) if node is None else tx.rows(_OF_NODE, of_node=node)
    return tuple(_record(row) for row in rows)


def by_uuid(tx: Transaction, card_uuid: str) -> CardRecord | None:
    """Return one card, or None."""
    row = tx.first(_BY_UUID, card_uuid=card_uuid)
    return _record(row) if row else None


def kinds(tx: Transaction) -> Kinds:
    """Return the kinds of cards there are; those that are lost do not count."""
    return frozenset(kind_of(row) for row in tx.rows(_KINDS))


def kinds_by_card(tx: Transaction) -> dict[str, CardKind]:
    """Return of which kind each card is, by UUID; lost ones too."""
    return {row.uuid: kind_of(row) for row in tx.rows(_KIND_BY_CARD)}


def lock(tx: Transaction, card_uuid: str) -> None:
    """Let nobody else change the card, or allocate a slice of it, until the transaction ends."""
    tx.rows(_LOCK, card_uuid=card_uuid)


def lock_of_node(tx: Transaction, node: str) -> None:
    """Lock all cards of a node as :func:`lock` does one."""
    tx.rows(_LOCK_OF_NODE, of_node=node)


def insert(tx: Transaction, **values: Any) -> None:
    """Add a card."""
    tx.change(_INSERT, **values)


def update(tx: Transaction, card_uuid: str, **changes: Any) -> None:
    """Change a card."""
    tx.change(_UPDATE, card_uuid_is=card_uuid, **changes)
