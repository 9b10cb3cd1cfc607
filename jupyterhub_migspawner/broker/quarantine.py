"""Slices that are given to nobody because servers without a lease run on them.

Relies on :mod:`.marks` for what those servers' processes say. Promises that such a slice is
quarantined in the very transaction that offers its node's slices, and stays so until its servers
are gone or have leases; and that quarantines of others (an admin's, an error's) are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from jupyterhub_migspawner.broker.checks import REASON_LIMIT
from jupyterhub_migspawner.broker.context import BROKER
from jupyterhub_migspawner.broker.recorder import slice_event
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import MIG_OFF
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.policy.wording import moment, quoted

ORPHAN = "In use by a server that has no lease here:"
"""How the reason of a quarantine begins that ends with that server."""

STRAY = "In use without a lease, by"
"""How the reason of a quarantine begins where processes are on a slice that nobody has."""

LEFTOVER = "Not empty after"
"""How the reason of a quarantine begins where processes of, or beside, an ended lease stay."""

PASSING = (STRAY, LEFTOVER)
"""How the reasons of those quarantines begin that end with processes on the slice."""

MOST = 1_000
"""So many are kept of one node, and one for each slice besides; processes can claim to be as many
as they like."""


def changes(
    tx: Transaction,
    node: str,
    marks: Sequence[OrphanRow],
    unreadable: Collection[int],
    busy: Mapping[str, Sequence[int]],
    now: datetime,
) -> list[Callable[[], None]]:
    """Return what the marks of a node's living processes change; empty when all is known.

    ``unreadable`` are processes whose marks are not known now: an orphan that was one of them is
    not gone. ``busy`` are the processes that NVML lists, by the slice's UUID.
    """
    changes: list[Callable[[], None]] = []
    kept = {each.attempt: each for each in queries.orphans.every(tx)}
    places = _places(tx, node)
    seen = set()
    for mark in _without_lease(tx, marks, places):
        seen.add(mark.attempt)
        before = kept.get(mark.attempt)
        if before is None or not (before.was_vouched or before.vouched or _same(before, mark)):
            found = replace(mark, node=node, found_at=now, vouched=False)
            changes.append(lambda found=found: queries.orphans.keep(tx, found))  # type: ignore[misc]
        elif before.pids != mark.pids:
            changes.append(
                lambda mark=mark: queries.orphans.note_pids(tx, mark.attempt, mark.pids)  # type: ignore[misc]
            )
    for attempt, before in kept.items():
        if attempt in seen:
            continue
        known = queries.leases.by_attempt(tx, attempt) is not None
        if not known and (before.node != node or not set(before.pids).isdisjoint(unreadable)):
            continue
        if known or not before.vouched:
            changes.append(lambda attempt=attempt: queries.orphans.forget(tx, attempt))  # type: ignore[misc]
        elif before.pids:
            changes.append(lambda attempt=attempt: queries.orphans.note_pids(tx, attempt, ()))  # type: ignore[misc]
    if changes:
        return [*changes, lambda: _apply(quarantines(tx, node, now, busy))]
    return quarantines(tx, node, now, busy)


def note(
    tx: Transaction, node: str, marks: Sequence[OrphanRow], now: datetime
) -> tuple[OrphanRow, ...]:
    """Quarantine what these marks name, on the slices that are known; nothing is opened again.

    Returns those without a lease.
    """
    places = _places(tx, node)
    unknown = _without_lease(tx, marks, places)
    for mark in unknown:
        if queries.orphans.by_attempt(tx, mark.attempt) is None:
            queries.orphans.keep(tx, replace(mark, node=node, found_at=now, vouched=False))
    if unknown:
        queries.cards.lock_of_node(tx, node)
        _apply(quarantines(tx, node, now, {}))
    return tuple(unknown)


def reason_for(tx: Transaction, row: SliceRow) -> str:
    """Return why a slice must stay quarantined for servers without a lease, or nothing."""
    others = _places(tx, row.node)
    found = [each for each in queries.orphans.every(tx) if row.id in _covered(each, others)]
    return orphan_sentence(found) if found else ""


def _apply(changes: Iterable[Callable[[], None]]) -> None:
    for change in changes:
        change()


def quarantines(
    tx: Transaction, node: str, now: datetime, busy: Mapping[str, Sequence[int]]
) -> list[Callable[[], None]]:
    """Return what brings the quarantines of a node's slices in step with its orphans."""
    changes: list[Callable[[], None]] = []
    places = _places(tx, node)
    on: dict[int, list[OrphanRow]] = {}
    every = queries.orphans.every(tx)
    for each in every:
        uncut = (each.profile, each.start) == MIG_OFF and each.card_uuid in places.cards
        if uncut and not any((r.profile, r.start) == MIG_OFF for r in places.of(each.card_uuid)):
            changes.append(lambda each=each: _add_uncut(tx, each, now))  # type: ignore[misc]
        for slice_id in _covered(each, places):
            on.setdefault(slice_id, []).append(each)
    for row in places.rows:
        ours = row.quarantined.startswith(ORPHAN)
        why = orphan_sentence(on[row.id]) if row.id in on else ""
        if row.quarantined == why or (not why and not ours):
            continue
        if row.quarantined and not ours and not row.quarantined.startswith(PASSING):
            continue  # an admin's, or an error's: it is shut, and stays so until that is over
        left = busy.get(row.uuid or "", ())
        why = why or (stray_reason(left) if left else "")
        changes.append(lambda row=row, why=why: _quarantine(tx, row, why, now))  # type: ignore[misc]
    return changes


def stray_reason(pids: Sequence[int]) -> str:
    """Return the reason of a quarantine for processes that use a slice without a lease."""
    listed = ", ".join(map(str, sorted(pids)[:5]))
    who = f"process {listed}" if len(pids) == 1 else f"processes {listed}"
    return f"{STRAY} {who}{' and more' if len(pids) > 5 else ''}."


def _quarantine(tx: Transaction, row: SliceRow, why: str, now: datetime) -> None:
    queries.slices.update(tx, row.id, quarantined=why)
    kind = "slice.quarantined" if why else "slice.unquarantined"
    said = why or "the server without a lease has ended or has a lease now"
    slice_event(tx, now, BROKER, kind, row, why=said)


def _add_uncut(tx: Transaction, orphan: OrphanRow, now: datetime) -> None:
    """Add the slice of a card with MIG off, which has none until it is lent, as in use already."""
    record = queries.cards.by_uuid(tx, orphan.card_uuid)
    if record is None:
        return
    card = record.row
    slice_id = queries.slices.insert(
        tx,
        card_uuid=card.uuid,
        profile=MIG_OFF[0],
        start=MIG_OFF[1],
        size=0,
        compute_slices=card.compute_slices,
        memory_mib=card.memory_mib,
        whole=True,
        uuid=None if card.mig_enabled else card.uuid,
        gi_id=None,
        ci_id=None,
        present=not card.mig_enabled,
        wanted=True,
    )
    row = queries.slices.by_id(tx, slice_id)
    if row is not None:
        _quarantine(tx, row, orphan_sentence([orphan]), now)


def orphan_sentence(found: Sequence[OrphanRow]) -> str:
    """Return the reason of a quarantine for these servers, with what to do about it."""
    one = found[0]
    server = f"server {quoted(one.server)}" if one.server else "the default server"
    who = f"{server} of {quoted(one.user)}" if one.user else "a server of an unknown user"
    since = f", since {moment(one.since)}" if one.since is not None else ""
    process = f", process {one.pids[0]}" if one.pids else ""
    if process and not one.vouched:
        # Its environment says so, which its user can set freely.
        process = f", as process {one.pids[0]} itself reports"
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"{ORPHAN} {who}{process}{since}{more}. `migspawner leases adopt` gives it one; otherwise "
        "the slice is free again when that server has ended."
    )[:REASON_LIMIT]


@dataclass(frozen=True)
class _Places:
    """The cards and slices of a node."""

    node: str
    cards: frozenset[str]
    rows: tuple[SliceRow, ...]

    def of(self, card_uuid: str) -> tuple[SliceRow, ...]:
        return tuple(row for row in self.rows if row.card_uuid == card_uuid)


def _places(tx: Transaction, node: str) -> _Places:
    cards = frozenset(record.row.uuid for record in queries.cards.select(tx, node))
    return _Places(node, cards, queries.slices.select(tx, node=node))


def _without_lease(tx: Transaction, marks: Sequence[OrphanRow], places: _Places) -> list[OrphanRow]:
    """Return those marks that name something of this node and no lease of this database.

    However many there are, none is left out that alone names a slice: a user who lets a thousand
    processes claim one slice must not hide the server on another.
    """
    found: list[OrphanRow] = []
    named: set[int | str] = set()
    for mark in marks:
        names: set[int | str] = {*_covered(mark, places)}
        if (mark.profile, mark.start) == MIG_OFF and mark.card_uuid in places.cards:
            names.add(mark.card_uuid)
        if not names or (len(found) >= MOST and names <= named):
            continue
        if queries.leases.by_attempt(tx, mark.attempt) is None:
            found.append(mark)
            named |= names
    return found


def _covered(mark: OrphanRow, places: _Places) -> set[int]:
    """Return the slices that lie where the mark's slice lies, whatever they are called by now.

    By its place on the card; the UUID alone where nothing else is known, and besides: a slice that
    was created again may have got the UUID of an earlier one.
    """
    found = {row.id for row in places.rows if row.uuid and row.uuid == mark.slice_uuid}
    rows = places.of(mark.card_uuid)
    if mark.start is None:
        return found
    if (mark.profile, mark.start) == MIG_OFF:
        return found | {row.id for row in rows}
    sizes = [row.size for row in places.rows if row.profile == mark.profile]
    size = max([*sizes, _least_size(mark.profile)])
    whole = any(row.whole for row in rows if (row.profile, row.start) == (mark.profile, mark.start))
    for row in rows:
        same = (row.profile, row.start) == (mark.profile, mark.start)
        overlaps = row.start < mark.start + size and mark.start < row.start + row.size
        if same or whole or (overlaps and row.present):
            found.add(row.id)
    return found


def _least_size(profile: str) -> int:
    """Return how many memory slots a profile takes at least, by its name: 3 for ``3g.20gb``."""
    number = profile.partition("g.")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 3 else 1


def _same(before: OrphanRow, mark: OrphanRow) -> bool:
    kept = {"pids": (), "found_at": None, "node": ""}
    return replace(before, **kept) == replace(mark, **kept)  # type: ignore[arg-type]
