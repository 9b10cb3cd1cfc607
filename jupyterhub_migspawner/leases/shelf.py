"""What can be given out: free slices, idle cards, and taking one of them.

A slice is free when its card is usable (not lost, drained, troubled or about to be re-cut, MIG on),
its node has reported lately, it was seen, is not quarantined and nobody holds it.

Taking locks the card first and the slice second. A small slice shares its card's lock with other
small ones; a whole card needs it alone. So on PostgreSQL a card is never given out whole while a
part of it is being taken, and on SQLite there is one writer anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jupyterhub_migspawner.leases.rows import MIG_OFF
from jupyterhub_migspawner.leases.schema import cards, nodes, slices
from jupyterhub_migspawner.leases.store import Transaction
from jupyterhub_migspawner.policy.placement import CardLoad, FreeSlice

_IN_SERVICE = sa.and_(
    sa.not_(cards.c.lost),
    cards.c.drained == "",
    cards.c.problem == "",
    cards.c.target.is_(None),
)
_USABLE = sa.and_(_IN_SERVICE, cards.c.mig_enabled, cards.c.reserved_for.is_(None))
# A card that is being emptied is there for its grant only.
_MAY_TAKE_ALL = sa.and_(
    _IN_SERVICE,
    sa.or_(cards.c.reserved_for.is_(None), cards.c.reserved_for == sa.bindparam("grant_id")),
    sa.case(
        (sa.bindparam("mig_off", type_=sa.Boolean()), sa.true()),
        else_=sa.and_(cards.c.mig_enabled, cards.c.whole_profile.is_not(None)),
    ),
)
_UNHELD = sa.and_(
    slices.c.held == 0,
    slices.c.present,
    slices.c.uuid.is_not(None),
    slices.c.wanted,
    slices.c.quarantined == "",
)
_REPORTING = nodes.c.heartbeat_at >= sa.bindparam("silent_before")

_LOADS = (
    sa.select(
        slices.c.card_uuid,
        sa.func.sum(sa.case((_UNHELD, slices.c.compute_slices), else_=0)).label("free_compute"),
        sa.func.sum(slices.c.held).label("live"),
        sa.func.sum(sa.case((slices.c.quarantined != "", 1), else_=0)).label("quarantined"),
    )
    .group_by(slices.c.card_uuid)
    .subquery("loads")
)

_FREE = (
    sa.select(
        slices.c.id,
        slices.c.card_uuid,
        slices.c.profile,
        slices.c.start,
        slices.c.compute_slices,
        cards.c.node,
        cards.c.card_index,
        cards.c.compute_slices.label("card_compute"),
        _LOADS.c.free_compute,
        _LOADS.c.live,
    )
    .join(cards, cards.c.uuid == slices.c.card_uuid)
    .join(nodes, nodes.c.name == cards.c.node)
    .join(_LOADS, _LOADS.c.card_uuid == slices.c.card_uuid)
    .where(_USABLE, _UNHELD, _REPORTING)
)
_ON_NODE = cards.c.node == sa.bindparam("on_node")
_OF_PROFILE = slices.c.profile == sa.bindparam("of_profile")
_FREE_OF_PROFILE = _FREE.where(_OF_PROFILE)
_FREE_OF_PROFILE_ON_NODE = _FREE_OF_PROFILE.where(_ON_NODE)
_FREE_WHOLE = _FREE.where(slices.c.whole)
_FREE_WHOLE_ON_NODE = _FREE_WHOLE.where(_ON_NODE)

# A card without a single slice has nothing live on it either, hence the outer join.
_WHOLE = (
    sa.select(
        cards.c.uuid,
        cards.c.node,
        cards.c.card_index,
        cards.c.compute_slices,
        cards.c.whole_profile,
        cards.c.whole_start,
        cards.c.whole_size,
        cards.c.whole_memory_mib,
        cards.c.memory_mib,
        cards.c.reserved_for,
        sa.func.coalesce(_LOADS.c.free_compute, 0).label("free_compute"),
        sa.func.coalesce(_LOADS.c.live, 0).label("live"),
    )
    .join(nodes, nodes.c.name == cards.c.node)
    .outerjoin(_LOADS, _LOADS.c.card_uuid == cards.c.uuid)
    .where(_MAY_TAKE_ALL, _REPORTING, sa.func.coalesce(_LOADS.c.quarantined, 0) == 0)
)
_BUSY = _WHOLE.where(sa.func.coalesce(_LOADS.c.live, 0) > 0)
_BUSY_ON_NODE = _BUSY.where(_ON_NODE)
_IDLE = _WHOLE.where(sa.func.coalesce(_LOADS.c.live, 0) == 0)
_IDLE_ON_NODE = _IDLE.where(_ON_NODE)

_BY_PROFILE = (
    sa.select(
        slices.c.profile,
        sa.func.count().label("total"),
        sa.func.sum(sa.case((sa.and_(_USABLE, _UNHELD, _REPORTING), 1), else_=0)).label("free"),
    )
    .join(cards, cards.c.uuid == slices.c.card_uuid)
    .join(nodes, nodes.c.name == cards.c.node)
    .where(slices.c.present, sa.not_(cards.c.lost))
    .group_by(slices.c.profile)
)
_WHOLE_CARDS = sa.select(sa.func.count()).where(
    sa.not_(cards.c.lost),
    sa.or_(cards.c.mig_enabled, sa.bindparam("mig_off", type_=sa.Boolean())),
)
_IDLE_COUNT = sa.select(sa.func.count()).select_from(_IDLE.subquery("idle"))

_LOCK_CARD = (
    sa.select(cards.c.uuid)
    .where(cards.c.uuid == sa.bindparam("card_uuid"), _MAY_TAKE_ALL)
    .with_for_update(skip_locked=True)
)
# Everybody who waits for several cards does so in the order of their UUIDs. What may be taken from
# them is read again once they are settled.
_SETTLE = (
    sa.select(cards.c.uuid)
    .where(
        cards.c.uuid == sa.any_(sa.bindparam("uuids", type_=postgresql.ARRAY(sa.Text))),
        _IN_SERVICE,
    )
    .order_by(cards.c.uuid)
)
_SETTLE_SHARED = _SETTLE.with_for_update(read=True)
_SETTLE_ALONE = _SETTLE.with_for_update()
# In the order of the ids given, the first that nobody is just taking. The card's lock is shared and
# skipped like the slice's, so that this never waits. (SQLAlchemy knows only one locking clause.)
_PICK = sa.text(
    """
    SELECT slices.id FROM slices JOIN cards ON cards.uuid = slices.card_uuid
    WHERE slices.id = ANY(:ids) AND slices.held = 0 AND slices.present
      AND slices.uuid IS NOT NULL AND slices.wanted AND slices.quarantined = ''
      AND NOT cards.lost AND cards.drained = '' AND cards.problem = '' AND cards.mig_enabled
      AND cards.target IS NULL AND cards.reserved_for IS NULL
    ORDER BY array_position(:ids, slices.id) LIMIT 1
    FOR UPDATE OF slices SKIP LOCKED FOR SHARE OF cards SKIP LOCKED
    """
).bindparams(sa.bindparam("ids", type_=postgresql.ARRAY(sa.BigInteger)))
# The conditions are repeated: the update decides, whatever was read before.
_TAKE = (
    sa.update(slices)
    .where(slices.c.id == sa.bindparam("slice_id"), _UNHELD)
    .values(held=slices.c.held + 1)
    .returning(slices.c.uuid, slices.c.profile, slices.c.start, slices.c.memory_mib, slices.c.whole)
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
_INSERT_SLICE = sa.insert(slices)
_TARGET = sa.update(cards).where(cards.c.uuid == sa.bindparam("card_uuid_is"))
_HOLD_UNCUT = (
    sa.update(slices)
    .where(slices.c.id == sa.bindparam("slice_id"), slices.c.held == 0)
    .values(held=1)
)

MOST_SETTLED = 64
"""How many cards one transaction waits for."""


@dataclass(frozen=True)
class Offer:
    """A free slice with its card's load, and the compute slices of the whole card."""

    slice: FreeSlice
    load: CardLoad
    card_compute: int


@dataclass(frozen=True)
class IdleCard:
    """A card with nothing live on it, and the instance that would take all of it."""

    load: CardLoad
    compute_slices: int
    profile: str
    start: int
    size: int
    memory_mib: int
    grant_id: int | None = None

    @property
    def mig_off(self) -> bool:
        """Whether it is to be given out with MIG off."""
        return (self.profile, self.start) == MIG_OFF


@dataclass(frozen=True)
class Taken:
    """What a new lease says about its slice; ``uuid`` is None until the slice is cut."""

    slice_id: int
    slice_uuid: str | None
    node: str
    card_uuid: str
    profile: str
    start: int
    memory_mib: int
    whole: bool
    share: float


def offers(
    tx: Transaction, profile: str | None, silent_before: datetime, node: str | None = None
) -> list[Offer]:
    """Free slices of a profile, or for None those that take a whole card."""
    values: dict[str, object] = {"silent_before": silent_before}
    if profile is None:
        statement = _FREE_WHOLE if node is None else _FREE_WHOLE_ON_NODE
    else:
        statement = _FREE_OF_PROFILE if node is None else _FREE_OF_PROFILE_ON_NODE
        values["of_profile"] = profile
    if node is not None:
        values["on_node"] = node
    return [
        Offer(
            FreeSlice(row.id, row.card_uuid, row.profile, row.start, row.compute_slices),
            CardLoad(row.card_uuid, row.node, row.card_index, int(row.free_compute), int(row.live)),
            row.card_compute,
        )
        for row in tx.rows(statement, **values)
    ]


def idle_cards(
    tx: Transaction,
    silent_before: datetime,
    node: str | None = None,
    *,
    grant_id: int | None = None,
    mig_off: bool = False,
) -> list[IdleCard]:
    """Cards that could be given out whole, those first that are reserved for the grant.

    With ``mig_off`` as cards without MIG, else as one slice over all of it.
    """
    values = {"silent_before": silent_before, "grant_id": grant_id, "mig_off": mig_off}
    if node is None:
        rows = tx.rows(_IDLE, **values)
    else:
        rows = tx.rows(_IDLE_ON_NODE, **values, on_node=node)
    reserved = [row for row in rows if row.reserved_for is not None]
    return [
        IdleCard(
            CardLoad(row.uuid, row.node, row.card_index, int(row.free_compute), 0),
            row.compute_slices,
            MIG_OFF[0] if mig_off else row.whole_profile,
            MIG_OFF[1] if mig_off else row.whole_start,
            row.whole_size or 0,
            row.memory_mib if mig_off else row.whole_memory_mib,
            grant_id,
        )
        for row in reserved or rows
    ]


def busy_cards(
    tx: Transaction,
    silent_before: datetime,
    node: str | None = None,
    *,
    grant_id: int | None = None,
    mig_off: bool = False,
) -> list[tuple[CardLoad, bool]]:
    """Cards that could be given out whole but for who is on them, and whether each is reserved."""
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
        for row in rows
    ]


def counts(tx: Transaction, silent_before: datetime) -> dict[str, tuple[int, int]]:
    """Profile to (free, total), counting slices that exist on cards that are not lost."""
    rows = tx.rows(_BY_PROFILE, silent_before=silent_before)
    return {row.profile: (int(row.free), int(row.total)) for row in rows}


def whole_counts(
    tx: Transaction,
    silent_before: datetime,
    *,
    grant_id: int | None = None,
    mig_off: bool = False,
) -> tuple[int, int]:
    """(free, total) of whole cards: idle ones, and all that are not lost and could be given."""
    free = tx.first(_IDLE_COUNT, silent_before=silent_before, grant_id=grant_id, mig_off=mig_off)[0]
    return int(free), int(tx.first(_WHOLE_CARDS, mig_off=mig_off)[0])


def settle(tx: Transaction, card_uuids: Iterable[str], *, alone: bool) -> frozenset[str]:
    """Wait until nobody is just taking from these cards, and keep them so; which are usable.

    ``alone`` keeps everybody else away from them, otherwise others may take slices as well. On
    SQLite there is nobody else.
    """
    some = sorted(set(card_uuids))[:MOST_SETTLED]
    if not tx.postgres:
        return frozenset(some)
    found = tx.rows(_SETTLE_ALONE if alone else _SETTLE_SHARED, uuids=some)
    return frozenset(row.uuid for row in found)


def take(tx: Transaction, ranked: Sequence[Offer], *, settled: bool) -> Taken | None:
    """Hold the best of these slices that is to be had; None when others were faster everywhere.

    Unless their cards are ``settled``, a slice that another transaction is just taking counts as
    gone: this never waits.
    """
    if tx.postgres and not settled and ranked:
        picked = tx.first(_PICK, ids=[offer.slice.id for offer in ranked])
        ranked = [offer for offer in ranked if picked and offer.slice.id == picked.id]
    for offer in ranked:
        chosen = offer.slice
        row = tx.first(_TAKE, slice_id=chosen.id)
        if row is not None:
            return Taken(
                chosen.id,
                row.uuid,
                offer.load.node,
                chosen.card_uuid,
                row.profile,
                row.start,
                row.memory_mib,
                row.whole,
                chosen.compute_slices / max(offer.card_compute, chosen.compute_slices, 1),
            )
    return None


def take_card(tx: Transaction, card: IdleCard) -> Taken | None:
    """Hold a whole card: target it for the re-cut and hold the slice that this will make.

    A card that turns out to be cut whole already needs no target. None when somebody took a part
    of it, or all of it, meanwhile, or is just about to.
    """
    uuid = card.load.card_uuid
    if tx.first(_LOCK_CARD, card_uuid=uuid, grant_id=card.grant_id, mig_off=card.mig_off) is None:
        return None
    # Read anew now that nobody else can take from the card.
    live, quarantined = tx.first(_LIVE_ON_CARD, card_uuid=uuid)
    if live or quarantined:
        return None
    found = tx.first(_PLACE, card_uuid=uuid, of_profile=card.profile, at_start=card.start)
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
    tx.change(_TARGET.values(target=target), card_uuid_is=uuid)
    tx.change(_HOLD_UNCUT, slice_id=slice_id)
    return Taken(
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
