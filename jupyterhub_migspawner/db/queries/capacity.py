"""How many slices and whole cards are free, without counting them all each time.

A process counts once and keeps the sums; from then on it counts again only those cards that the
event log names since, because whatever changes a card or a slice writes its event in the same
transaction. Nothing is added to what taking a lease has to write, and nobody waits for a counter.

How many there are in all goes by the desired layouts of the cards in service: it does not change
while a card is lent whole or is being re-cut. Cards that are drained or have a problem are counted
apart, as out of service; lost ones are not counted.

Promises the numbers as they are committed, or as the asking transaction has changed them. Should a
change have left no event, it is seen when all is counted again, at the latest after
:data:`RELOAD`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jupyterhub_migspawner.db.conditions import (
    IN_SERVICE,
    KIND,
    OUT_OF_SERVICE,
    USABLE,
    kind_of,
    unheld,
)
from jupyterhub_migspawner.db.tables import cards, events, nodes, slices
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import Kinds

RELOAD = timedelta(minutes=1)
"""How long sums are kept up before all is counted again."""

MOST_EVENTS = 2_000
"""With more events than these to read, counting all is faster."""

MOST_CARDS = 50
"""With more cards than these to count, counting all is faster."""

Key = tuple[object, ...]

# How many seats of a shared slice are taken, and whether it may be joined while some are not.
_SEATED = sa.case((slices.c.shared_by.is_not(None), slices.c.held), else_=sa.literal_column("0"))
_OPEN = sa.and_(
    slices.c.shared_by.is_not(None),
    slices.c.present,
    slices.c.uuid.is_not(None),
    slices.c.wanted,
    slices.c.quarantined == "",
)
_FACTS = (
    sa.select(
        cards.c.uuid,
        cards.c.node,
        *KIND,
        cards.c.lost,
        cards.c.layout,
        cards.c.mig_enabled,
        OUT_OF_SERVICE.label("out_of_service"),
        cards.c.reserved_for,
        IN_SERVICE.label("in_service"),
        USABLE.label("usable"),
        cards.c.whole_profile.is_not(None).label("has_whole"),
        slices.c.profile,
        slices.c.shared_by,
        _SEATED.label("seated"),
        sa.func.sum(sa.case((_OPEN, 1), else_=0)).label("open"),
        sa.func.sum(sa.case((unheld(slices), 1), else_=0)).label("free"),
        sa.func.sum(sa.case((sa.and_(slices.c.whole, unheld(slices)), 1), else_=0)).label(
            "whole_free"
        ),
        sa.func.sum(slices.c.held).label("held"),
        sa.func.sum(sa.case((slices.c.quarantined != "", 1), else_=0)).label("quarantined"),
    )
    .outerjoin(slices, slices.c.card_uuid == cards.c.uuid)
    .group_by(cards.c.uuid, slices.c.profile, slices.c.shared_by, _SEATED)
)
_LOG = (
    sa.select(events.c.id, events.c.card_uuid)
    .order_by(events.c.id)
    .limit(sa.literal_column(str(MOST_EVENTS)))
)
_NEW = events.c.id > sa.bindparam("after")
_SINCE = _LOG.where(_NEW)
# On PostgreSQL numbers are drawn before they are committed: those that were missing may have come.
_SINCE_OR_LATE = _LOG.where(
    sa.or_(
        _NEW,
        events.c.id == sa.any_(sa.bindparam("missing", type_=postgresql.ARRAY(sa.BigInteger))),
    )
)
# Card by card: a database keeps its plan for that, and there are few.
_OF_CARD = _FACTS.where(cards.c.uuid == sa.bindparam("uuid"))
_LAST = (
    sa.select(events.c.id).order_by(events.c.id.desc()).limit(sa.literal_column(str(MOST_EVENTS)))
)
_SILENT = sa.select(nodes.c.name).where(nodes.c.heartbeat_at < sa.bindparam("silent_before"))


Adds = tuple[tuple[Key, int], ...]
"""What one card adds to the sums."""


@dataclass(frozen=True)
class Sums:
    """What all cards add up to, and what each of them adds; never changed once it is made.

    A few cards that have changed since lie on top of the many, so that the many are not copied for
    each of them.
    """

    many: Mapping[Key, int] = field(default_factory=dict)
    of_many: Mapping[str, Adds] = field(default_factory=dict)
    few: Mapping[Key, int] = field(default_factory=dict)
    of_few: Mapping[str, Adds] = field(default_factory=dict)

    def __getitem__(self, key: Key) -> int:
        return self.many.get(key, 0) + self.few.get(key, 0)

    def changed(self, cards: Mapping[str, Adds]) -> Sums:
        """Return the sums with these cards adding something else than before."""
        few, of_few = dict(self.few), dict(self.of_few)
        for uuid, adds in cards.items():
            before = of_few[uuid] if uuid in of_few else self.of_many.get(uuid, ())
            for key, amount in before:
                few[key] = few.get(key, 0) - amount
            for key, amount in adds:
                few[key] = few.get(key, 0) + amount
            of_few[uuid] = adds
        if len(of_few) <= MOST_CARDS:
            return Sums(self.many, self.of_many, few, of_few)
        many = dict(self.many)
        for key, amount in few.items():
            many[key] = many.get(key, 0) + amount
        return Sums(many, {**self.of_many, **of_few})


@dataclass(frozen=True)
class Count:
    """The sums as of one event."""

    loaded_at: datetime
    last: int
    missing: frozenset[int]
    sums: Sums
    silent: tuple[str, ...] = ()

    def _everywhere(self, kinds: Kinds | None, *key: object) -> int:
        """Return a sum over cards of certain kinds, or of all."""
        among = (None,) if kinds is None else kinds
        return sum(self.sums[(kind, *key)] for kind in among)

    def _reporting(self, kinds: Kinds | None, *key: object, node: str | None = None) -> int:
        """Return a sum over the nodes that have reported lately, or over one ``node`` if it has.

        The last part of a key is the node.
        """
        if node is not None:
            return 0 if node in self.silent else self._everywhere(kinds, *key, node)
        silent = sum(self._everywhere(kinds, *key, node) for node in self.silent)
        return self._everywhere(kinds, *key, None) - silent

    def of_profile(
        self, profile: str, kinds: Kinds | None = None, node: str | None = None
    ) -> tuple[int, int]:
        """Return (free, total) of a profile: slices to give out, and those of all desired layouts.

        Like all counts, over the cards of certain ``kinds`` and of a ``node``, where given.
        """
        free = self._reporting(kinds, "free", profile, node=node)
        return free, self._everywhere(kinds, "total", profile, node)

    def seats(
        self,
        tier: str,
        profile: str,
        seats: int,
        kinds: Kinds | None = None,
        node: str | None = None,
    ) -> tuple[int, int]:
        """Return (free, total) seats of a tier that has so many on each slice of a profile."""
        free, total = self.of_profile(profile, kinds, node)
        left = sum(
            (seats - taken) * self._reporting(kinds, "open", profile, tier, taken, node=node)
            for taken in range(1, seats)
        )
        return left + seats * free, seats * total

    def whole(
        self,
        *,
        mig_off: bool,
        grant_id: int | None = None,
        kinds: Kinds | None = None,
        node: str | None = None,
    ) -> tuple[int, int]:
        """Return (free, total) of whole cards: idle ones, and all in service to be given out."""
        free = self._reporting(kinds, "idle", mig_off, None, node=node)
        if grant_id is not None:
            free += self._reporting(kinds, "idle", mig_off, grant_id, node=node)
        return free, self._everywhere(kinds, "whole", mig_off, node)

    def out_of_profile(
        self, profile: str, kinds: Kinds | None = None, node: str | None = None
    ) -> int:
        """Return how many cards with this profile in their layout are out of service."""
        return self._everywhere(kinds, "out", profile, node)

    def whole_out(
        self, *, mig_off: bool, kinds: Kinds | None = None, node: str | None = None
    ) -> int:
        """Return how many cards that could be given out whole are out of service."""
        return self._everywhere(kinds, "whole out", mig_off, node)


class Capacity:
    """The count of one process; thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._count: Count | None = None

    def count(self, tx: Transaction, now: datetime, silent_before: datetime) -> Count:
        """Return the numbers now; ``silent_before`` says which nodes' heartbeats are too old."""
        known = self._count
        if known is None or not timedelta(0) <= now - known.loaded_at < RELOAD:
            known = None
        count = (known and _followed(tx, known)) or _loaded(tx, now)
        # What a transaction has changed may never be committed; one that has written no event has
        # changed no card and no slice.
        if count is not known and not tx.announced:
            with self._guard:
                kept = self._count
                if kept is None or known is None or count.last >= kept.last:
                    self._count = count
        silent = tuple(row.name for row in tx.rows(_SILENT, silent_before=silent_before))
        return replace(count, silent=silent)


def _loaded(tx: Transaction, now: datetime) -> Count:
    # The log first: what comes in between is counted twice over and not left out.
    ids = [row.id for row in reversed(tx.rows(_LAST))]
    first, last = (ids[0], ids[-1]) if ids else (0, 0)
    return Count(now, last, _gaps(tx, ids, first), Sums().changed(_adds(tx.rows(_FACTS))))


def _followed(tx: Transaction, count: Count) -> Count | None:
    """Return the count with what has happened since; None when all has to be counted."""
    if count.missing:
        log = tx.rows(_SINCE_OR_LATE, after=count.last, missing=sorted(count.missing))
    else:
        log = tx.rows(_SINCE, after=count.last)
    if not log:
        return count
    if len(log) >= MOST_EVENTS:
        return None
    ids = [row.id for row in log]
    came = count.missing.intersection(ids)
    missing = (count.missing - came) | _gaps(tx, ids[len(came) :], count.last + 1)
    after = replace(count, last=max(count.last, ids[-1]), missing=missing)
    changed = {row.card_uuid for row in log if row.card_uuid is not None}
    if len(changed) > MOST_CARDS:
        return None
    facts = [row for uuid in changed for row in tx.rows(_OF_CARD, uuid=uuid)]
    return replace(after, sums=after.sums.changed(_adds(facts)))


def _gaps(tx: Transaction, ids: Sequence[int], first: int) -> frozenset[int]:
    """Return ids that were drawn and are not there: undone, or of running transactions."""
    if not tx.postgres or not ids:
        return frozenset()
    # What is further back than so many has long been committed or undone.
    return frozenset(range(max(first, ids[-1] - MOST_EVENTS), ids[-1])).difference(ids)


def _adds(facts: Iterable[Any]) -> dict[str, Adds]:
    """Return what each of these cards adds."""
    rows: dict[str, list[Any]] = {}
    for row in facts:
        rows.setdefault(row.uuid, []).append(row)
    return {uuid: tuple(_adds_of(of_one)) for uuid, of_one in rows.items()}


def _adds_of(rows: Sequence[Any]) -> Iterable[tuple[Key, int]]:
    """Yield what one card adds to the sums; ``rows`` are its facts, profile by profile.

    Everything is added for cards of its kind, and for all cards (None).
    """
    kind = kind_of(rows[0])
    for key, amount in _facts_of(rows):
        yield (kind, *key), amount
        yield (None, *key), amount


def _facts_of(rows: Sequence[Any]) -> Iterable[tuple[Key, int]]:
    card = rows[0]
    if card.lost:
        return
    layout = Counter(profile for profile, _ in card.layout)
    for profile, number in layout.items():
        for node in (card.node, None):
            if card.out_of_service:
                yield ("out", profile, node), 1
            else:
                yield ("total", profile, node), number
    for row in rows:
        # A card without slices has one row without a profile.
        if row.profile is None:
            continue
        if card.usable and row.free:
            for node in (card.node, None):
                yield ("free", row.profile, node), int(row.free)
        if card.usable and row.open:
            for node in (card.node, None):
                yield ("open", row.profile, row.shared_by, row.seated, node), int(row.open)
    idle = card.in_service and not any(row.held or row.quarantined for row in rows)
    # A free slice over all of a card is taken as a slice is, whatever was on the card before.
    cut_whole = card.usable and any(row.whole_free for row in rows)
    for mig_off in (False, True):
        if not (card.with_mig or mig_off):
            continue
        for node in (card.node, None):
            yield ("whole out" if card.out_of_service else "whole", mig_off, node), 1
        if (idle and (mig_off or (card.mig_enabled and card.has_whole))) or (
            cut_whole and not mig_off
        ):
            for node in (card.node, None):
                yield ("idle", mig_off, card.reserved_for, node), 1
