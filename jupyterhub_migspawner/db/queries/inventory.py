"""Nodes, cards and slices in the lease database, as the agents report them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from jupyterhub_migspawner.db.columns import UtcTime
from jupyterhub_migspawner.db.conditions import KIND, OUT_OF_SERVICE, kind_of
from jupyterhub_migspawner.db.store import Transaction
from jupyterhub_migspawner.db.tables import cards, nodes, slices
from jupyterhub_migspawner.model.cards import CardRow, Layout
from jupyterhub_migspawner.model.nodes import NodeRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.policy.card_filter import CardKind, Kinds

_CARD = sa.select(
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
).order_by(cards.c.node, cards.c.card_index, cards.c.uuid)
_OUT_OF_SERVICE = (
    sa.select(cards.c.layout, cards.c.drained, cards.c.problem, *KIND)
    .where(OUT_OF_SERVICE)
    .order_by(cards.c.node, cards.c.card_index, cards.c.uuid)
)
_KIND_BY_CARD = sa.select(cards.c.uuid, *KIND)
_KINDS = sa.select(*KIND).where(~cards.c.lost).distinct()
_CARDS_OF_NODE = _CARD.where(cards.c.node == sa.bindparam("of_node"))
_CARD_BY_UUID = _CARD.where(cards.c.uuid == sa.bindparam("card_uuid"))

_SLICE = (
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
_SLICES_OF_NODE = _SLICE.where(cards.c.node == sa.bindparam("of_node"))
_SLICES_OF_CARD = _SLICE.where(slices.c.card_uuid == sa.bindparam("of_card"))
_SLICE_BY_ID = _SLICE.where(slices.c.id == sa.bindparam("slice_id"))

_NODE = sa.select(
    nodes.c.name, nodes.c.heartbeat_at, nodes.c.driver_version, nodes.c.boot_id
).order_by(nodes.c.name)
_NODE_BY_NAME = _NODE.where(nodes.c.name == sa.bindparam("node_name"))

_BEAT = (
    sa.update(nodes)
    .where(nodes.c.name == sa.bindparam("node_name"))
    .values(heartbeat_at=sa.bindparam("at", type_=UtcTime()))
)
_INSERT_CARD = sa.insert(cards)
_UPDATE_CARD = sa.update(cards).where(cards.c.uuid == sa.bindparam("card_uuid_is"))
_INSERT_SLICE = sa.insert(slices).returning(slices.c.id)
_UPDATE_SLICE = sa.update(slices).where(slices.c.id == sa.bindparam("slice_id"))
# Ordered, so that two transactions that lock the cards of a node cannot wait for each other.
_LOCK_CARDS_OF_NODE = (
    sa.select(cards.c.uuid)
    .where(cards.c.node == sa.bindparam("of_node"))
    .order_by(cards.c.uuid)
    .with_for_update()
)
_LOCK_CARD = sa.select(cards.c.uuid).where(cards.c.uuid == sa.bindparam("card_uuid"))
_LOCK_CARD = _LOCK_CARD.with_for_update()
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


def _upsert_node(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "heartbeat_at": insert.excluded.heartbeat_at,
            "driver_version": insert.excluded.driver_version,
            "boot_id": sa.func.coalesce(insert.excluded.boot_id, nodes.c.boot_id),
        },
    )


_HEARTBEAT_SQLITE = _upsert_node(sqlite.insert(nodes))
_HEARTBEAT_POSTGRES = _upsert_node(postgresql.insert(nodes))


@dataclass(frozen=True)
class CardRecord:
    """A card row with what its state is made of, and all columns as ``stored``."""

    row: CardRow
    lost: bool
    drained: str
    stored: Mapping[str, Any]


def reasons_out_of_service(
    tx: Transaction, profile: str | None, *, mig_off: bool = False, kinds: Kinds | None = None
) -> tuple[str, ...]:
    """Why cards with this profile in their layout are drained or have a problem, each once.

    Cards of certain ``kinds``, where these are given. None stands for whole cards, with
    ``mig_off`` also those without MIG.
    """
    found = []
    for row in tx.rows(_OUT_OF_SERVICE):
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
        ),
        lost=row.lost,
        drained=row.drained,
        stored=row._asdict(),
    )


def heartbeat(
    tx: Transaction, node: str, at: datetime, driver_version: str, boot_id: str = ""
) -> None:
    """Note that a node's agent is alive; adds the node at first."""
    statement = _HEARTBEAT_POSTGRES if tx.postgres else _HEARTBEAT_SQLITE
    tx.change(
        statement,
        name=node,
        heartbeat_at=at,
        driver_version=driver_version,
        boot_id=boot_id or None,
    )


def beat(tx: Transaction, node: str, at: datetime) -> None:
    """Note that the agent of a node that is known is still alive."""
    tx.change(_BEAT, node_name=node, at=at)


def all_nodes(tx: Transaction) -> tuple[NodeRow, ...]:
    """All nodes by name."""
    return tuple(NodeRow(*row) for row in tx.rows(_NODE))


def node_by_name(tx: Transaction, name: str) -> NodeRow | None:
    """One node, or None."""
    row = tx.first(_NODE_BY_NAME, node_name=name)
    return NodeRow(*row) if row else None


def card_records(tx: Transaction, node: str | None = None) -> tuple[CardRecord, ...]:
    """Cards of one node or of all, in the order people list them."""
    rows = tx.rows(_CARD) if node is None else tx.rows(_CARDS_OF_NODE, of_node=node)
    return tuple(_record(row) for row in rows)


def card_record(tx: Transaction, card_uuid: str) -> CardRecord | None:
    """One card, or None."""
    row = tx.first(_CARD_BY_UUID, card_uuid=card_uuid)
    return _record(row) if row else None


def kinds(tx: Transaction) -> Kinds:
    """The kinds of cards there are; those that are lost are not."""
    return frozenset(kind_of(row) for row in tx.rows(_KINDS))


def kinds_by_card(tx: Transaction) -> dict[str, CardKind]:
    """Of which kind each card is, by UUID; lost ones too."""
    return {row.uuid: kind_of(row) for row in tx.rows(_KIND_BY_CARD)}


def lock_card(tx: Transaction, card_uuid: str) -> None:
    """Let nobody else change the card, or allocate a slice of it, until the transaction ends."""
    tx.rows(_LOCK_CARD, card_uuid=card_uuid)


def lock_cards_of_node(tx: Transaction, node: str) -> None:
    """As :func:`lock_card`, for all cards of a node."""
    tx.rows(_LOCK_CARDS_OF_NODE, of_node=node)


def insert_card(tx: Transaction, **values: Any) -> None:
    """Add a card."""
    tx.change(_INSERT_CARD, **values)


def update_card(tx: Transaction, card_uuid: str, **changes: Any) -> None:
    """Change a card."""
    tx.change(_UPDATE_CARD, card_uuid_is=card_uuid, **changes)


def slice_rows(
    tx: Transaction, *, node: str | None = None, card_uuid: str | None = None
) -> tuple[SliceRow, ...]:
    """Slices of a card, of a node or of all, in the order people list them."""
    if card_uuid is not None:
        rows: Sequence[Any] = tx.rows(_SLICES_OF_CARD, of_card=card_uuid)
    elif node is not None:
        rows = tx.rows(_SLICES_OF_NODE, of_node=node)
    else:
        rows = tx.rows(_SLICE)
    return tuple(SliceRow(*row) for row in rows)


def slice_row(tx: Transaction, slice_id: int) -> SliceRow | None:
    """One slice, or None."""
    row = tx.first(_SLICE_BY_ID, slice_id=slice_id)
    return SliceRow(*row) if row else None


def insert_slice(tx: Transaction, **values: Any) -> int:
    """Add a slice that nobody holds; returns its id."""
    return tx.insert(_INSERT_SLICE, quarantined="", held=0, **values)


def update_slice(tx: Transaction, slice_id: int, **changes: Any) -> None:
    """Change a slice."""
    tx.change(_UPDATE_SLICE, slice_id=slice_id, **changes)


def take(tx: Transaction, slice_id: int, shared_by: str | None) -> None:
    """One live lease on the slice more, whatever its state; ``shared_by`` is the tier of seats."""
    tx.change(_TAKE, slice_id=slice_id, tier=shared_by)


def untake(tx: Transaction, slice_id: int) -> None:
    """One live lease on the slice less; with the last one the slice is nobody's."""
    tx.change(_UNTAKE, slice_id=slice_id)
