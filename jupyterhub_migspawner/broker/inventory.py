"""What the agents report, and what stands where: nodes, cards, slices.

Relies on inventories as :mod:`jupyterhub_migspawner.gpu` reads them. Promises that an inventory
never takes a slice away from a lease: it says what is there, not who holds it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from jupyterhub_migspawner.broker import quarantine, recording
from jupyterhub_migspawner.broker.base import (
    BROKER,
    NAME_LIMIT,
    REASON_LIMIT,
    BrokerBase,
    stored,
    text,
    wanted_id,
    wanted_name,
)
from jupyterhub_migspawner.broker.quarantine import PASSING, STRAY, stray_reason
from jupyterhub_migspawner.broker.statuses import (
    DRAINING,
    FREE,
    LEASED,
    MISSING,
    QUARANTINED,
    SliceStatus,
)
from jupyterhub_migspawner.broker.wanting import is_reached, mark_wanted
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.store import Transaction
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.gpu.cards import GpuEvent, Inventory
from jupyterhub_migspawner.gpu.xids import is_uncontained, xid_name
from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.nodes import NodeRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.model.slices import SliceRow
from jupyterhub_migspawner.policy.wording import moment, quoted


class Inventories(BrokerBase):
    """Use cases about cards and slices."""

    def record_inventory(
        self,
        node: str,
        found: Inventory,
        *,
        alive: bool = True,
        marks: Sequence[OrphanRow] | None = None,
        unreadable: Collection[int] = (),
    ) -> None:
        """Take over what a node's agent has read: its heartbeat, cards and slices.

        ``marks`` are those of all living processes that have one, read before this is called; what
        they use without a lease is quarantined before it could be offered. None where nobody has
        looked: then what was found before stays. ``unreadable`` are processes whose marks are not
        known.

        ``alive=False`` is for a process that reads the cards without being the agent: the node is
        not offered because of it, and no card is lost because it did not see it. A lost card's
        leases are over, with the reason.

        The first sight of a card that is cut makes its base layout. Cards that are not listed any
        more are lost; slices that are not listed are missing, except on a card with a problem,
        whose list may be short.
        """
        text("node name", node, NAME_LIMIT, empty=False)

        def work(tx: Transaction) -> None:
            now = self._now()
            known = queries.nodes.by_name(tx, node)
            if known is None:
                queries.events.append(
                    tx, now, node, "node.seen", node=node, driver=found.driver_version
                )
            elif alive and found.boot_id and known.boot_id not in (None, found.boot_id):
                queries.events.append(tx, now, node, "node.booted", node=node)
            if alive or known is None:
                beat = now if alive else self._silent_before(now) - timedelta(days=1)
                queries.nodes.heartbeat(tx, node, beat, found.driver_version, found.boot_id)
            # Most reports change nothing and need no lock; a change is worked out again under it.
            if recording.changes(tx, node, found, now, alive=alive):
                queries.cards.lock_of_node(tx, node)
                for change in recording.changes(tx, node, found, now, alive=alive):
                    change()
            if marks is None:
                return
            busy = {
                each.uuid: [process.pid for process in each.processes]
                for card in found.cards
                for each in card.instances
                if each.uuid and each.processes
            }
            if quarantine.changes(tx, node, marks, unreadable, busy, now):
                queries.cards.lock_of_node(tx, node)
                for change in quarantine.changes(tx, node, marks, unreadable, busy, now):
                    change()

        self._run(work)

    def note_alive(self, node: str) -> None:
        """The node's agent is at work on something long; what it reported before still holds."""
        self._run(lambda tx: queries.nodes.beat(tx, wanted_name(node), self._now()))

    def note_boot(self, node: str, boot_id: str) -> bool:
        """Say which boot of a node's kernel this is; whether it is another than before.

        After a restart the node is offered nothing until its agent has looked at the cards: their
        slices are gone, whatever was read before. Nothing changes for a node that nobody has
        reported from, or when ``boot_id`` is empty.
        """
        text("boot id", boot_id, NAME_LIMIT)

        def work(tx: Transaction) -> bool:
            known = queries.nodes.by_name(tx, wanted_name(node))
            if known is None or not boot_id or known.boot_id in (None, boot_id):
                return False
            now = self._now()
            beat = min(known.heartbeat_at, self._silent_before(now) - timedelta(seconds=1))
            queries.nodes.heartbeat(tx, node, beat, known.driver_version, boot_id)
            queries.events.append(tx, now, node, "node.booted", node=node)
            return True

        return self._run(work)

    def finish_target(self, card_uuid: str) -> bool:
        """Note that a card has reached its target, as the last recorded inventory shows it.

        True when it had one and the slices that are there are exactly those; otherwise nothing
        changes.
        """

        def work(tx: Transaction) -> bool:
            queries.cards.lock(tx, card_uuid)
            card = queries.cards.by_uuid(tx, card_uuid)
            if card is None or card.row.target is None:
                return False
            present = {
                (row.profile, row.start)
                for row in queries.slices.select(tx, card_uuid=card_uuid)
                if row.present
            }
            if not is_reached(card.row, present):
                return False
            queries.cards.update(tx, card_uuid, target=None)
            mark_wanted(tx, card_uuid)
            queries.events.append(
                tx,
                self._now(),
                card.row.node,
                "card.cut",
                card_uuid=card_uuid,
                layout=recording.plain(card.row.target),
            )
            return True

        return self._run(work)

    def nodes(self) -> tuple[NodeRow, ...]:
        """All nodes by name."""
        return self._read(queries.nodes.select)

    def live_nodes(self) -> tuple[NodeRow, ...]:
        """Nodes whose agent has reported lately."""
        silent_before = self._silent_before(self._now())
        return tuple(node for node in self.nodes() if node.heartbeat_at >= silent_before)

    def cards(self, node: str | None = None) -> tuple[CardRow, ...]:
        """Cards of one node or of all."""
        of_node = None if node is None else wanted_name(node)
        records = self._read(lambda tx: queries.cards.select(tx, of_node))
        return tuple(record.row for record in records)

    def slices(self, node: str | None = None) -> tuple[SliceStatus, ...]:
        """Slices of a node, or all, that are there or ought to be, with state and live leases."""
        of_node = None if node is None else wanted_name(node)

        def work(tx: Transaction) -> tuple[SliceStatus, ...]:
            silent_before = self._silent_before(self._now())
            silent = {n.name: n for n in queries.nodes.select(tx) if n.heartbeat_at < silent_before}
            cards = {record.row.uuid: record.row for record in queries.cards.select(tx, of_node)}
            live = queries.leases.select(tx, node=of_node)
            leases: dict[int, list[LeaseRow]] = {}
            for lease in live:
                leases.setdefault(lease.slice_id, []).append(lease)
            whole = {lease.card_uuid for lease in live if lease.whole}
            statuses = []
            for row in queries.slices.select(tx, node=of_node):
                card, on_it = cards.get(row.card_uuid), tuple(leases.get(row.id, ()))
                if card is None:
                    continue  # it was seen for the first time after the cards were read
                wanted = (
                    (row.profile, row.start) in card.layout
                    and card.target is None
                    and card.uuid not in whole
                )
                if row.present or on_it or row.quarantined or wanted:
                    state, why = _state(row, card, on_it, silent.get(card.node))
                    statuses.append(SliceStatus(row, state, on_it, why))
            return tuple(statuses)

        return self._read(work)

    def quarantine(self, slice_id: int, why: str, actor: str) -> SliceRow:
        """Give a slice to nobody from now on; a lease on it goes on and ends as usual.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``, ``options``.
        """
        text("reason", why, REASON_LIMIT, empty=False)
        return self._set_quarantine(slice_id, why, actor)

    def unquarantine(self, slice_id: int, actor: str) -> SliceRow:
        """Let a quarantined slice be given out again; no change when it is not quarantined."""
        return self._set_quarantine(slice_id, "", actor)

    def _set_quarantine(self, slice_id: int, why: str, actor: str) -> SliceRow:
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> SliceRow:
            row = queries.slices.by_id(tx, wanted_id(slice_id))
            if row is None:
                raise Refusal(f"There is no slice {slice_id}.", reason="not-found")
            queries.cards.lock(tx, row.card_uuid)
            row = queries.slices.by_id(tx, slice_id) or row
            # A server that runs there keeps it shut, whatever other sources say.
            then = why or quarantine.reason_for(tx, row)
            if row.quarantined == then:
                return row
            queries.slices.update(tx, slice_id, quarantined=then)
            kind = "slice.quarantined" if then else "slice.unquarantined"
            recording.slice_event(tx, self._now(), actor, kind, row, why=then or row.quarantined)
            return queries.slices.by_id(tx, slice_id) or row

        return self._run(work)

    def shut_out(self, slice_id: int, pids: Sequence[int], who: str = "") -> bool:
        """Quarantine a slice that processes use though nobody has it; False when it is leased.

        ``who`` are the processes in words. The slice comes back by :meth:`let_in_again` when they
        are gone, or by hand.
        """
        why = f"{STRAY} {who}." if who else stray_reason(pids)
        return self._set_passing(slice_id, why, leased=False)

    def keep_back(self, slice_id: int, why: str) -> bool:
        """Quarantine a slice that is not empty after a lease on it, until :meth:`let_in_again`.

        ``why`` begins with :data:`.quarantine.LEFTOVER`. False where it is quarantined for another
        reason.
        """
        return self._set_passing(slice_id, stored(why), leased=True)

    def _set_passing(self, slice_id: int, why: str, *, leased: bool) -> bool:
        """Quarantine a slice until a process is gone. The event is that of the first reason only:
        processes that start others again and again fill no log."""

        def work(tx: Transaction) -> bool:
            row = queries.slices.by_id(tx, wanted_id(slice_id))
            if row is None:
                return False
            queries.cards.lock(tx, row.card_uuid)
            row = queries.slices.by_id(tx, slice_id)
            if row is None or (row.quarantined and not row.quarantined.startswith(PASSING)):
                return False
            live = queries.leases.select(tx, card_uuid=row.card_uuid)
            if not leased and any(lease.slice_id == row.id for lease in live):
                return False
            if row.quarantined != why:
                queries.slices.update(tx, row.id, quarantined=why)
            if not row.quarantined:
                recording.slice_event(tx, self._now(), BROKER, "slice.quarantined", row, why=why)
            return True

        return self._run(work)

    def let_in_again(self, slice_id: int) -> None:
        """Take back what :meth:`shut_out` or :meth:`keep_back` did; other quarantines stay."""

        def work(tx: Transaction) -> None:
            row = queries.slices.by_id(tx, wanted_id(slice_id))
            if row is None:
                return
            queries.cards.lock(tx, row.card_uuid)
            row = queries.slices.by_id(tx, slice_id)
            if row is None or not row.quarantined.startswith(PASSING):
                return
            queries.slices.update(tx, row.id, quarantined="")
            why = "the processes on it are gone"
            recording.slice_event(tx, self._now(), BROKER, "slice.unquarantined", row, why=why)

        self._run(work)

    def record_xid(self, node: str, event: GpuEvent) -> None:
        """Note an XID error on the slice or card it hit.

        After one that the hardware did not contain, the slice is quarantined, or the card drained
        when it hit all of it; leases on them go on. Where the driver reports a recovery action, it
        decides for those XIDs that can be serious or harmless.
        """
        if event.xid is None:
            return
        xid = event.xid
        what = f"XID {xid} ({xid_name(xid)})" if xid_name(xid) else f"XID {xid}"
        bad = is_uncontained(xid, event.recovery_action)

        def work(tx: Transaction) -> None:
            queries.cards.lock(tx, event.card_uuid)
            card = queries.cards.by_uuid(tx, event.card_uuid)
            if card is None:
                return
            now = self._now()
            row = next(
                (
                    each
                    for each in queries.slices.select(tx, card_uuid=event.card_uuid)
                    if each.present and event.gi_id is not None and each.gi_id == event.gi_id
                ),
                None,
            )
            for lease in queries.leases.select(tx, card_uuid=event.card_uuid):
                if row is None or lease.slice_id == row.id:
                    recording.lease_event(tx, lease, now, node, kind="lease.xid", xid=xid, why=what)
            if row is None:
                queries.events.append(
                    tx, now, node, "card.xid", card_uuid=event.card_uuid, xid=xid, why=what
                )
                if bad and not card.drained:
                    why = f"{what}; reset it or restart its node, then `migspawner cards resume`"
                    queries.cards.update(tx, event.card_uuid, drained=why)
                    queries.events.append(
                        tx, now, node, "card.drained", card_uuid=event.card_uuid, why=why
                    )
                return
            recording.slice_event(tx, now, node, "slice.xid", row, xid=xid, why=what)
            if bad and not row.quarantined:
                why = f"{what}; reset its card, then `migspawner cards resume`"
                queries.slices.update(tx, row.id, quarantined=why)
                recording.slice_event(tx, now, node, "slice.quarantined", row, why=why)

        self._run(work)

    def drain_card(self, card_uuid: str, why: str, actor: str) -> CardRow:
        """Give out nothing new on a card; leases on it go on.

        Raises :class:`~jupyterhub_migspawner.errors.Refusal`: ``not-found``, ``options``.
        """
        text("reason", why, REASON_LIMIT, empty=False)
        return self._set_drained(card_uuid, why, actor)

    def resume_card(self, card_uuid: str, actor: str) -> CardRow:
        """Take back a drain; no change when the card is not drained."""
        return self._set_drained(card_uuid, "", actor)

    def _set_drained(self, card_uuid: str, why: str, actor: str) -> CardRow:
        text("actor", actor, NAME_LIMIT)

        def work(tx: Transaction) -> CardRow:
            queries.cards.lock(tx, wanted_name(card_uuid))
            card = queries.cards.by_uuid(tx, wanted_name(card_uuid))
            if card is None:
                raise Refusal(f"There is no card {quoted(card_uuid)}.", reason="not-found")
            if card.drained == why:
                return card.row
            queries.cards.update(tx, card_uuid, drained=why)
            kind = "card.drained" if why else "card.resumed"
            queries.events.append(tx, self._now(), actor, kind, card_uuid=card_uuid, why=why)
            after = queries.cards.by_uuid(tx, card_uuid) or card
            return after.row

        return self._run(work)


def _not_empty(row: SliceRow, leases: Sequence[LeaseRow]) -> str:
    """The sentence about a leased slice on which a session has ended without a proof so far."""
    ended = [lease.releasing_at or lease.since for lease in leases if lease.ending]
    if not ended:
        return ""
    said = f"A session on it ended at {moment(min(ended))}, and the slice is not proven empty yet."
    return f"{said} {row.quarantined}".rstrip()


def _state(
    row: SliceRow, card: CardRow, leases: Sequence[LeaseRow], silent: NodeRow | None
) -> tuple[str, str]:
    if leases:
        if row.wanted or leases[0].whole:
            return LEASED, _not_empty(row, leases)
        last = "the lease ends" if len(leases) == 1 else "its leases end"
        why = f"The card's layout no longer has this slice; it will be destroyed when {last}."
        return DRAINING, why
    if row.quarantined:
        return QUARANTINED, row.quarantined
    if card.state == "lost":
        return MISSING, f"Node {card.node} no longer lists its card."
    if not row.present:
        return MISSING, f"Node {card.node} does not list it."
    if silent is not None:
        return MISSING, f"Node {card.node} has not reported since {moment(silent.heartbeat_at)}."
    if card.state == "draining":
        return DRAINING, "Its card is drained."
    if card.problem:
        return DRAINING, card.problem
    if card.target is not None:
        return DRAINING, "Its card is being re-cut."
    if not row.wanted:
        return DRAINING, "The card's layout no longer has this slice."
    if card.reserved_for is not None:
        return DRAINING, f"Its card is being emptied for grant {card.reserved_for}."
    return FREE, ""
