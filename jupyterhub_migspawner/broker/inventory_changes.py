"""From an inventory to changes in the lease database.

:func:`changes` compares what an agent has read with what is stored and returns what has to be
written; nothing is written until those are called. Each writes its event as well.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from jupyterhub_migspawner.broker import recovery
from jupyterhub_migspawner.broker.recorder import lease_event, slice_event
from jupyterhub_migspawner.broker.targets import back_to_layout, update_desired
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.queries.cards import CardRecord
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.gpu.arrange import is_legal
from jupyterhub_migspawner.model.cards import MIG_OFF, Layout
from jupyterhub_migspawner.model.inventory import Card, Instance, Inventory, Profile
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.policy.inventory import is_dead, recognise

Change = Callable[[], None]


def changes(
    tx: Transaction, node: str, found: Inventory, now: datetime, *, alive: bool = True
) -> list[Change]:
    """Return what this inventory of this node changes; empty when everything is known already.

    ``alive`` says that the node's agent has read it.
    """
    stored = {record.row.uuid: record for record in queries.cards.select(tx, node)}
    slices: dict[str, list[SliceRow]] = {}
    for row in queries.slices.select(tx, node=node):
        slices.setdefault(row.card_uuid, []).append(row)
    found = recognise(found, [record.row for record in stored.values()])
    todo: list[Change] = []
    seen = set()
    for card in found.cards:
        # Nobody has ever read its UUID.
        if not card.uuid or card.uuid in seen:
            continue
        seen.add(card.uuid)
        record = stored.get(card.uuid)
        known = slices.get(card.uuid, [])
        if record is None:
            # New here; perhaps it was in another node before.
            record = queries.cards.by_uuid(tx, card.uuid)
            if is_anothers(tx, record):
                continue
            known = list(queries.slices.select(tx, card_uuid=card.uuid))
        dead = is_dead(card, record.row.problem_since if record else None, now)
        of_card = _card_changes(tx, node, card, record, dead, now)
        if dead:
            if record is None or not record.lost:
                of_card.append(_lose(tx, node, card.uuid, known, now, card.problem))
        else:
            of_card += _slice_changes(tx, node, card, known, now)
            drained = record.drained if record is not None else ""
            of_card += recovery.changes(tx, node, card, drained, now)
        if of_card:
            of_card.append(lambda uuid=card.uuid: update_desired(tx, uuid))  # type: ignore[misc]
        todo += of_card
    # An onlooker's list, or one with a card that nobody can name, proves no card gone.
    if not alive or any(not card.uuid for card in found.cards):
        return todo
    for uuid, record in stored.items():
        if uuid not in seen and not record.lost:
            why = f"Card {record.row.index} ({uuid}) is no longer listed by the driver."
            todo.append(_lose(tx, node, uuid, slices.get(uuid, []), now, why))
    return todo


def is_anothers(tx: Transaction, record: CardRecord | None) -> bool:
    """Tell whether a card belongs to a node that this process may not write for.

    With rights on all nodes it takes the card along, with its leases. A node with a role of its own
    must not: an admin moves the card.
    """
    return record is not None and tx.node not in ("", record.row.node)


def _card_changes(
    tx: Transaction, node: str, card: Card, record: CardRecord | None, dead: bool, now: datetime
) -> list[Change]:
    values = _values(node, card)
    since = record.row.problem_since if record is not None else None
    values["problem_since"] = (since or now) if card.problem else None
    found = tuple(sorted(_slices_of(card), key=lambda want: want[1]))
    if record is not None and card.problem:
        # It may not have told these; tiers know it by them.
        values["model"] = values["model"] or record.row.model
        values["memory_mib"] = values["memory_mib"] or record.row.memory_mib
        if values["device_minor"] is None:
            del values["device_minor"]
    if record is None:
        first = {**values, "layout": plain(found), "mig_wanted": card.mig_enabled}
        return [lambda: _add(tx, node, card.uuid, first, now)]
    if dead and record.lost:
        return []
    if not dead:
        values["lost"] = False
    changed = {k: v for k, v in values.items() if record.stored[k] != v}
    changed |= _adopted(tx, card, record, found)
    if not changed:
        return []
    kind = "card.back" if record.lost else "card.changed"

    def update() -> None:
        queries.cards.update(tx, card.uuid, **changed)
        queries.events.append(tx, now, node, kind, card_uuid=card.uuid, changed=_told(changed))
        if "node" in changed:
            # A machine that was renamed, or whose card moved to another one, goes on with the
            # leases on it: nobody else could ever prove them empty.
            queries.leases.follow_card(tx, card.uuid, node)

    return [update]


def _adopted(tx: Transaction, card: Card, record: CardRecord, found: Layout) -> dict[str, Any]:
    """Return what becomes of the layout of a card when nobody has set one and it is cut by hand.

    New slices join it, and what they lie over leaves it. Slices that are gone stay in it: a restart
    of the node takes them all, and they have to come back.
    """
    row = record.row
    if row.layout_by or row.target is not None or not found or _given_whole(tx, card.uuid):
        return {}
    sizes = {profile.name: profile.size for profile in card.profiles}
    new = [want for want in found if want not in row.layout]
    taken = {slot for name, start in new for slot in range(start, start + sizes.get(name, 1))}
    stays = [
        (name, start)
        for name, start in row.layout
        if taken.isdisjoint(range(start, start + sizes.get(name, 1)))
    ]
    layout = tuple(sorted([*stays, *new], key=lambda want: want[1]))
    if is_legal(card.profiles, layout):
        layout = found
    changed: dict[str, Any] = {}
    if layout != row.layout:
        changed["layout"] = plain(layout)
    if not row.mig_wanted:
        changed["mig_wanted"] = True
    return changed


def _given_whole(tx: Transaction, card_uuid: str) -> bool:
    return any(lease.whole for lease in queries.leases.select(tx, card_uuid=card_uuid))


def _add(tx: Transaction, node: str, uuid: str, values: dict[str, Any], now: datetime) -> None:
    unknown = {
        "compute_slices": 0,
        "whole_profile": None,
        "whole_start": None,
        "whole_size": None,
        "whole_memory_mib": None,
    }
    queries.cards.insert(
        tx, **{**unknown, **values}, uuid=uuid, lost=False, drained="", target=None
    )
    queries.events.append(tx, now, node, "card.seen", card_uuid=uuid, **_told(values))


def _told(values: dict[str, Any]) -> dict[str, Any]:
    """Return a card's values for an event, without the time: the event has its own."""
    return {name: value for name, value in values.items() if name != "problem_since"}


def _lose(
    tx: Transaction, node: str, uuid: str, known: list[SliceRow], now: datetime, why: str
) -> Change:
    def lose() -> None:
        queries.cards.update(tx, uuid, lost=True)
        queries.events.append(tx, now, node, "card.lost", card_uuid=uuid, why=why)
        live = queries.leases.select(tx, card_uuid=uuid)
        # The session's user reads it, to whom a UUID says nothing.
        plainly = why.replace(f" ({uuid})", f" of node {node}")
        for lease in live:
            reason = (
                "Your session has lost its GPU: save your work and start again. For your admins: "
                f"{plainly}"
            )
            after = queries.leases.lose(tx, lease.id, now, reason)
            if after is not None:
                queries.slices.untake(tx, lease.slice_id)
                lease_event(tx, after, now, node, why=reason)
        for row in known:
            if row.present:
                _vanish(tx, node, row, now)
        if any(lease.whole for lease in live):
            back_to_layout(tx, uuid, now, node)

    return lose


def _slice_changes(
    tx: Transaction, node: str, card: Card, known: list[SliceRow], now: datetime
) -> list[Change]:
    here = _slices_of(card)
    whole = _whole_profile(card)
    todo: list[Change] = []
    rows = {(row.profile, row.start): row for row in known}
    for want, instance in here.items():
        is_whole = instance.whole or (whole is not None and instance.profile == whole.name)
        todo += _seen(tx, node, card.uuid, rows.get(want), instance, is_whole, now)
    todo += _uncut(tx, node, card, rows.get(MIG_OFF), now)
    for want, row in rows.items():
        if want == MIG_OFF:
            continue
        # The list of a card with a problem may be short: nothing is proven gone.
        if row.present and want not in here and not card.problem:
            todo.append(lambda row=row: _vanish(tx, node, row, now))  # type: ignore[misc]
    return todo


def _uncut(
    tx: Transaction, node: str, card: Card, row: SliceRow | None, now: datetime
) -> list[Change]:
    """Return what changes for a card lent with MIG off: it is a slice while MIG is off."""
    if (
        row is None
        or card.problem
        or (row.present, row.uuid)
        == (
            not card.mig_enabled,
            None if card.mig_enabled else card.uuid,
        )
    ):
        return []

    def change() -> None:
        if card.mig_enabled:
            _vanish(tx, node, row, now)
            return
        queries.slices.update(tx, row.id, present=True, uuid=card.uuid)
        queries.leases.fill_uuid(tx, row.id, card.uuid)
        slice_event(tx, now, node, "slice.seen", row, uuid=card.uuid)

    return [change]


def _seen(
    tx: Transaction,
    node: str,
    card_uuid: str,
    row: SliceRow | None,
    instance: Instance,
    whole: bool,
    now: datetime,
) -> list[Change]:
    values: dict[str, Any] = {
        "size": instance.size,
        "compute_slices": instance.compute_slices,
        "memory_mib": instance.memory_mib,
        "whole": whole,
        "uuid": instance.uuid,
        "gi_id": instance.gi_id,
        "ci_id": instance.ci_id,
        "present": True,
    }
    if row is not None and all(getattr(row, k) == v for k, v in values.items()):
        return []

    def see() -> None:
        place: dict[str, Any] = {"profile": instance.profile, "start": instance.start}
        if row is None:
            slice_id = queries.slices.insert(tx, card_uuid=card_uuid, **place, **values)
        else:
            slice_id = row.id
            queries.slices.update(tx, slice_id, **values)
        # Who leased a whole card before it was cut learns here what to bind to.
        queries.leases.fill_uuid(tx, slice_id, str(instance.uuid))
        queries.events.append(
            tx,
            now,
            node,
            "slice.seen",
            card_uuid=card_uuid,
            slice_id=slice_id,
            uuid=instance.uuid,
            **place,
        )

    return [see]


def _vanish(tx: Transaction, node: str, row: SliceRow, now: datetime) -> None:
    # The UUID goes too: the next instance at this place may well have another one.
    queries.slices.update(tx, row.id, present=False, uuid=None, gi_id=None, ci_id=None)
    slice_event(tx, now, node, "slice.missing", row, uuid=row.uuid)


def plain(layout: Layout) -> list[list[Any]]:
    """Return a layout as JSON keeps it."""
    return [[profile, start] for profile, start in layout]


def _slices_of(card: Card) -> dict[tuple[str, int], Instance]:
    """Return the instances that are slices: with a compute instance and a named profile."""
    return {(i.profile, i.start): i for i in card.instances if i.uuid and i.profile}


def _whole_profile(card: Card) -> Profile | None:
    """Return the profile that takes the whole card: a plain one before one with attributes.

    An RTX PRO 6000 has ``4g.96gb`` and ``4g.96gb+gfx``.
    """
    whole = [p for p in card.profiles if p.whole and p.placements]
    return min(whole, key=lambda p: (bool(p.attributes), -p.compute_slices, p.name), default=None)


def _values(node: str, card: Card) -> dict[str, Any]:
    values: dict[str, Any] = {
        "node": node,
        "card_index": card.index,
        "device_minor": card.minor if card.minor >= 0 else None,
        "model": card.model,
        "memory_mib": card.memory_mib,
        "mig_enabled": card.mig_enabled,
        "problem": card.problem,
    }
    if not card.problem:
        values["incomplete"] = len(_slices_of(card)) < len(card.instances)
    profile = _whole_profile(card)
    # A card that does not list its profiles now keeps what it said before.
    if profile is not None:
        values |= {
            "compute_slices": max(p.compute_slices for p in card.profiles),
            "whole_profile": profile.name,
            "whole_start": profile.placements[0].start,
            "whole_size": profile.placements[0].size,
            "whole_memory_mib": profile.memory_mib,
        }
    return values
