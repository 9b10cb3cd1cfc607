"""How many slices and whole cards are free, without counting them all each time.

A process counts once and keeps the sums; from then on it counts only those cards anew that the
event log names since, because whatever changes a card or a slice writes its event in the same
transaction. Nothing is added to what taking a lease has to write, and nobody waits for a counter.

Promises the numbers as they are committed, or as the asking transaction has changed them. Should a
change have left no event, it is seen when all is counted again, at the latest after
:data:`RELOAD`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from jupyterhub_migspawner.leases.conditions import IN_SERVICE, USABLE, unheld
from jupyterhub_migspawner.leases.schema import cards, events, nodes, slices
from jupyterhub_migspawner.leases.store import Transaction

RELOAD = timedelta(minutes=1)
"""How long sums are kept up before all is counted again."""

MOST_EVENTS = 2_000
"""With more events than these to read, counting all is faster."""

Key = tuple[object, ...]

_FACTS = (
    sa.select(
        cards.c.uuid,
        cards.c.node,
        cards.c.lost,
        cards.c.mig_enabled,
        cards.c.reserved_for,
        IN_SERVICE.label("in_service"),
        USABLE.label("usable"),
        cards.c.whole_profile.is_not(None).label("has_whole"),
        slices.c.profile,
        sa.func.sum(sa.case((slices.c.present, 1), else_=0)).label("present"),
        sa.func.sum(sa.case((unheld(slices), 1), else_=0)).label("free"),
        sa.func.sum(slices.c.held).label("held"),
        sa.func.sum(sa.case((slices.c.quarantined != "", 1), else_=0)).label("quarantined"),
    )
    .outerjoin(slices, slices.c.card_uuid == cards.c.uuid)
    .group_by(cards.c.uuid, slices.c.profile)
)
_NEW = events.c.id > sa.bindparam("after")
# On PostgreSQL numbers are drawn before they are committed: those that were missing may have come.
_NEW_OR_LATE = sa.or_(
    _NEW,
    events.c.id == sa.any_(sa.bindparam("missing", type_=postgresql.ARRAY(sa.BigInteger))),
)


def _news(new: sa.ColumnElement[bool]) -> tuple[sa.Select[Any], sa.Select[Any]]:
    log = sa.select(events.c.id, events.c.card_uuid).where(new).order_by(events.c.id)
    changed = sa.select(events.c.card_uuid).where(new, events.c.card_uuid.is_not(None))
    return (
        log.limit(sa.literal_column(str(MOST_EVENTS))),
        _FACTS.where(cards.c.uuid.in_(changed)),
    )


_SINCE, _FACTS_SINCE = _news(_NEW)
_SINCE_OR_LATE, _FACTS_SINCE_OR_LATE = _news(_NEW_OR_LATE)
_LAST = (
    sa.select(events.c.id).order_by(events.c.id.desc()).limit(sa.literal_column(str(MOST_EVENTS)))
)
_SILENT = sa.select(nodes.c.name).where(nodes.c.heartbeat_at < sa.bindparam("silent_before"))


@dataclass(frozen=True)
class Count:
    """The sums as of one event, and what each card adds to them."""

    loaded_at: datetime
    last: int
    missing: frozenset[int]
    sums: Counter[Key] = field(default_factory=Counter)
    of_card: dict[str, tuple[tuple[Key, int], ...]] = field(default_factory=dict)
    silent: tuple[str, ...] = ()

    def _reporting(self, *key: object) -> int:
        """A sum over the nodes that have reported lately; the last part of a key is the node."""
        silent = sum(self.sums[(*key, node)] for node in self.silent)
        return self.sums[(*key, None)] - silent

    def of_profile(self, profile: str) -> tuple[int, int]:
        """(free, total) of a profile, counting slices that exist on cards that are not lost."""
        return self._reporting("free", profile), self.sums[("total", profile)]

    def whole(self, *, mig_off: bool, grant_id: int | None = None) -> tuple[int, int]:
        """(free, total) of whole cards: idle ones, and all that are not lost and could be given."""
        free = self._reporting("idle", mig_off, None)
        if grant_id is not None:
            free += self._reporting("idle", mig_off, grant_id)
        return free, self.sums[("whole", mig_off)]


class Census:
    """The count of one process; thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._count: Count | None = None

    def count(self, tx: Transaction, now: datetime, silent_before: datetime) -> Count:
        """The numbers now; ``silent_before`` says which nodes' heartbeats are too old."""
        known = self._count
        if known is None or not timedelta(0) <= now - known.loaded_at < RELOAD:
            known = None
        count = (known and _followed(tx, known)) or _loaded(tx, now)
        # What a writing transaction sees of its own may never be committed.
        if count is not known and not tx.writing:
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
    count = Count(now, last, _gaps(tx, ids, first))
    return _changed(count, tx.rows(_FACTS), set())


def _followed(tx: Transaction, count: Count) -> Count | None:
    """The count with what has happened since; None when all has to be counted."""
    values: dict[str, Any] = {"after": count.last}
    since, facts = _SINCE, _FACTS_SINCE
    if count.missing:
        since, facts = _SINCE_OR_LATE, _FACTS_SINCE_OR_LATE
        values["missing"] = sorted(count.missing)
    log = tx.rows(since, **values)
    if not log:
        return count
    if len(log) >= MOST_EVENTS:
        return None
    ids = [row.id for row in log]
    came = count.missing.intersection(ids)
    missing = (count.missing - came) | _gaps(tx, ids[len(came) :], count.last + 1)
    after = replace(count, last=max(count.last, ids[-1]), missing=missing)
    changed = {row.card_uuid for row in log if row.card_uuid is not None}
    return _changed(after, tx.rows(facts, **values), changed) if changed else after


def _gaps(tx: Transaction, ids: Sequence[int], first: int) -> frozenset[int]:
    """Numbers that were drawn and are not there: undone, or of transactions that still run."""
    if not tx.postgres or not ids:
        return frozenset()
    return frozenset(range(first, ids[-1])).difference(ids)


def _changed(count: Count, facts: Iterable[Any], gone: set[str]) -> Count:
    """The count with these cards counted anew, and those that are gone left out."""
    sums, of_card = count.sums.copy(), dict(count.of_card)
    rows: dict[str, list[Any]] = {uuid: [] for uuid in gone}
    for row in facts:
        rows.setdefault(row.uuid, []).append(row)
    for uuid, of_one in rows.items():
        for key, amount in of_card.pop(uuid, ()):
            sums[key] -= amount
        if of_one:
            of_card[uuid] = tuple(_adds(of_one))
            for key, amount in of_card[uuid]:
                sums[key] += amount
    return replace(count, sums=sums, of_card=of_card)


def _adds(rows: Sequence[Any]) -> Iterable[tuple[Key, int]]:
    """What one card adds to the sums; ``rows`` are its facts, profile by profile."""
    card = rows[0]
    if card.lost:
        return
    for row in rows:
        # A card without slices has one row without a profile.
        if row.profile is None:
            continue
        if row.present:
            yield ("total", row.profile), int(row.present)
        if card.usable and row.free:
            for node in (card.node, None):
                yield ("free", row.profile, node), int(row.free)
    idle = card.in_service and not any(row.held or row.quarantined for row in rows)
    for mig_off in (False, True):
        if not (card.mig_enabled or mig_off):
            continue
        yield ("whole", mig_off), 1
        if idle and (mig_off or card.has_whole):
            for node in (card.node, None):
                yield ("idle", mig_off, card.reserved_for, node), 1
