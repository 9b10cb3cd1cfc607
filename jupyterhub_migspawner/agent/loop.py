"""One agent per node: what happens to cards and slices happens here.

Relies on the broker for what is wanted and on NVML for what is. Promises that every step can be
repeated, so that a crash anywhere is mended by the next round; that nothing with a live lease or a
process on it is destroyed; and that trouble with the cards or the database ends a round, never the
loop.

``tick`` blocks (a cut takes seconds on real cards): call it from one thread of its own, never from
an event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from jupyterhub_migspawner.agent.vacancy import Vacancy, marked_processes
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import partition
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.leases.rows import CardRow

log = logging.getLogger("migspawner.agent")


class Agent:
    """The loop's body for one node. ``inventory_seconds`` is also the beat of its heart."""

    def __init__(
        self,
        broker: Broker,
        nvml: Nvml,
        *,
        node: str,
        inventory_seconds: float = 5.0,
        proc: Path = Path("/proc"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._nvml = nvml
        self.node = node
        self._inventory_seconds = inventory_seconds
        self._proc = proc
        self._monotonic = monotonic
        self._next_inventory = monotonic()
        self._vacancy = Vacancy(broker, nvml, node=node, proc=proc, monotonic=monotonic)
        self._said: dict[str, str] = {}

    def tick(self) -> None:
        """One round. Raises :exc:`.DatabaseError` when the lease database is away.

        Cards that cannot be read keep the node from being offered (no heartbeat), but slices that
        are being given back are looked at all the same.
        """
        if self._monotonic() >= self._next_inventory:
            self._next_inventory = self._monotonic() + self._inventory_seconds
            self.take_inventory()
            self._broker.forget_cancelled_attempts()
        self._cut_cards()
        self._vacancy.look_at_all()
        self._call_off_lost_starts()

    def take_inventory(self) -> bool:
        """Write what the cards are now to the lease database. False when they cannot be read."""
        try:
            inventory = self._nvml.inventory()
        except GpuError as error:
            self._say("inventory", f"Node {self.node} offers nothing: {error}")
            return False
        self._said.pop("inventory", None)
        self._broker.record_inventory(self.node, inventory)
        return True

    def _cut_cards(self) -> None:
        for card in self._broker.cards(node=self.node):
            if card.target is None or card.state == "lost":
                continue
            try:
                self._cut(card)
            except GpuError as error:
                self._say(card.uuid, f"Card {card.index} ({card.uuid}) is not cut yet: {error}")

    def _cut(self, card: CardRow) -> None:
        """Bring one card to its target; what was done stays done when a step fails."""
        assert card.target is not None
        found = {c.uuid: c for c in self._nvml.inventory().cards}.get(card.uuid)
        if found is None or found.problem:
            raise GpuError(found.problem if found else "the driver does not list it any more.")
        live = self._broker.leases(node=self.node)
        keep = frozenset(
            (lease.profile, lease.start) for lease in live if lease.card_uuid == card.uuid
        )
        plan = partition.plan(found, card.target, keep)
        if plan.blocked:
            raise GpuError(" ".join(plan.blocked))
        if plan.steps:
            partition.apply(
                self._nvml,
                card.uuid,
                plan,
                lambda step, _: log.info("Card %d: %s", card.index, step),
            )
        # The UUIDs of new slices are only known now; the lease that waits for one gets it here.
        if self.take_inventory():
            self._broker.finish_target(card.uuid)
        self._said.pop(card.uuid, None)

    def _call_off_lost_starts(self) -> None:
        """A start that never finished and left nothing behind gives its slice back.

        Where a process of it does run, the hub has the last word: the service makes the lease
        active when the hub knows the server, and gives it back when the hub does not.
        """
        late = self._broker.overdue(node=self.node)
        if not late:
            return
        marked = marked_processes(self._proc)
        for lease in late:
            if lease.attempt not in marked:
                self._broker.cancel_attempt(lease.attempt, "the start never finished")

    def _say(self, about: str, text: str) -> None:
        """Log what is wrong once, not every second."""
        if self._said.get(about) != text:
            log.warning("%s", text)
            self._said[about] = text
