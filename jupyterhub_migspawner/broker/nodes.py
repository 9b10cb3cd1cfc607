"""Nodes: what their agents report, and which of them are there.

Relies on inventories as :mod:`jupyterhub_migspawner.gpu` reads them. Promises that an inventory
never takes a slice away from a lease: it says what is there, not who holds it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from jupyterhub_migspawner.broker import inventory_changes, quarantine
from jupyterhub_migspawner.broker.checks import NAME_LIMIT, text, wanted_name
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.db import queries
from jupyterhub_migspawner.db.transaction import Transaction
from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.inventory import Inventory
from jupyterhub_migspawner.model.nodes import NodeRow
from jupyterhub_migspawner.model.orphans import OrphanRow

CLOCK_SECONDS = 0.5
"""Changes of the difference of clocks that are worth a note."""


class Nodes:
    """Use cases about nodes."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def record_inventory(
        self,
        node: str,
        found: Inventory,
        *,
        alive: bool = True,
        marks: Sequence[OrphanRow] | None = None,
        unreadable: Collection[int] = (),
    ) -> tuple[CardRow, ...]:
        """Record what a node's agent has read: its heartbeat, cards and slices.

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

        Returns the cards that are left out because they belong to another node, for which this
        process has no rights.
        """
        text("node name", node, NAME_LIMIT, empty=False)

        def work(tx: Transaction) -> tuple[CardRow, ...]:
            now = self._context.now()
            known = queries.nodes.by_name(tx, node)
            if known is None:
                queries.events.append(
                    tx, now, node, "node.seen", node=node, driver=found.driver_version
                )
            elif alive and found.boot_id and known.boot_id not in (None, found.boot_id):
                queries.events.append(tx, now, node, "node.booted", node=node)
            if alive or known is None:
                beat = now if alive else self._context.silent_before(now) - timedelta(days=1)
                queries.nodes.heartbeat(tx, node, beat, found.driver_version, found.boot_id)
            if alive and (ahead := self._context.clock_ahead(tx)) is not None:
                before = None if known is None else known.clock_ahead
                if before is None or abs(ahead - before) >= CLOCK_SECONDS:
                    queries.nodes.note_clock(tx, node, ahead)
            # Most reports change nothing and need no lock; a change is worked out again under it.
            if inventory_changes.changes(tx, node, found, now, alive=alive):
                queries.cards.lock_of_node(tx, node)
                for change in inventory_changes.changes(tx, node, found, now, alive=alive):
                    change()
            others = [queries.cards.by_uuid(tx, each.uuid) for each in found.cards if tx.node]
            left_out = tuple(
                each.row
                for each in others
                if each is not None and inventory_changes.is_anothers(tx, each)
            )
            if marks is None:
                return left_out
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
            return left_out

        return self._context.run(work)

    def note_alive(self, node: str) -> None:
        """Record a heartbeat of a node whose agent is at work on something long.

        What it reported before still holds.
        """
        self._context.run(lambda tx: queries.nodes.beat(tx, wanted_name(node), self._context.now()))

    def note_boot(self, node: str, boot_id: str) -> bool:
        """Record which boot of a node's kernel this is; return whether it is another than before.

        After a restart the node is offered nothing until its agent has looked at the cards: their
        slices are gone, whatever was read before. Nothing changes for a node that nobody has
        reported from, or when ``boot_id`` is empty.
        """
        text("boot id", boot_id, NAME_LIMIT)

        def work(tx: Transaction) -> bool:
            known = queries.nodes.by_name(tx, wanted_name(node))
            if known is None or not boot_id or known.boot_id in (None, boot_id):
                return False
            now = self._context.now()
            beat = min(known.heartbeat_at, self._context.silent_before(now) - timedelta(seconds=1))
            queries.nodes.heartbeat(tx, node, beat, known.driver_version, boot_id)
            queries.events.append(tx, now, node, "node.booted", node=node)
            return True

        return self._context.run(work)

    def find(self) -> tuple[NodeRow, ...]:
        """Return all nodes by name."""
        return self._context.read(queries.nodes.select)

    def live(self) -> tuple[NodeRow, ...]:
        """Return the nodes whose agent has reported lately."""
        silent_before = self._context.silent_before(self._context.now())
        return tuple(node for node in self.find() if node.heartbeat_at >= silent_before)
