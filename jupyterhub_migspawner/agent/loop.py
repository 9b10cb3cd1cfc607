"""One agent per node: what happens to cards and slices happens here.

Relies on the broker for the desired layout and on NVML for what is. Promises that every step can be
repeated, so that a crash anywhere is mended by the next round; that nothing with a live lease or a
process on it is destroyed; and that an error of the cards or the database ends a round, never the
loop.

``tick`` blocks (a cut takes seconds on real cards): call it from one separate thread, never from
an event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.agent.environments import Environments
from jupyterhub_migspawner.agent.families import Families
from jupyterhub_migspawner.agent.hooks import Hooks
from jupyterhub_migspawner.agent.layouts import Cutter
from jupyterhub_migspawner.agent.lock import CuttingLock
from jupyterhub_migspawner.agent.orphans import read_marks
from jupyterhub_migspawner.agent.quarantine import Strays
from jupyterhub_migspawner.agent.returns import hold_back
from jupyterhub_migspawner.agent.usage import Usage
from jupyterhub_migspawner.agent.vacancy import Vacancy
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.marks import NAMES
from jupyterhub_migspawner.broker.quarantine import ORPHAN, orphan_sentence
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.model.cards import CardRow
from jupyterhub_migspawner.model.inventory import Inventory
from jupyterhub_migspawner.outages import Outage

log = logging.getLogger("migspawner.agent")


#: Most seconds between two tries to cut a card that cannot be cut.
LONGEST_PAUSE = 300.0


@dataclass(frozen=True)
class Tried:
    """What was last tried on a card, when it may be tried again, and how it went."""

    asked: object
    again: float
    pause: float
    failed: bool


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
        lock: CuttingLock | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self._broker = broker
        self._nvml = nvml
        self.node = node
        self._inventory_seconds = inventory_seconds
        self._proc = proc
        self._monotonic = monotonic
        self._next_inventory = monotonic()
        parts: dict[str, Any] = {"node": node, "proc": proc, "monotonic": monotonic}
        self._environments = Environments(proc, names=NAMES)
        parts["families"] = Families(
            broker, node=node, proc=proc, keep=True, environments=self._environments
        )
        self._vacancy = Vacancy(broker, nvml, **parts)
        self._strays = Strays(broker, nvml, **parts)
        self._usage = Usage(broker, nvml, **parts)
        self._cutter = Cutter(
            broker,
            nvml,
            node=node,
            lock=lock,
            hooks=hooks,
            agent=True,
            check=self._check,
            marks=lambda: read_marks(proc, self._environments),
            pulse=self._pulse,
        )
        self._tried: dict[str, Tried] = {}
        self._outages: dict[str, Outage] = {}
        #: Whether the cards were read, and still can be.
        self.knows_cards = False

    def tick(self) -> None:
        """Run one round.

        Cards that cannot be read keep the node from being offered (no heartbeat), but slices that
        are being given back are looked at all the same. Raises :exc:`.DatabaseError` when the lease
        database is away.
        """
        self._environments.begin()
        if self._makes_way():
            return
        self._listen()
        read = False
        if self._monotonic() >= self._next_inventory:
            self._next_inventory = self._monotonic() + self._inventory_seconds
            read = self.take_inventory()
            self._broker.processes.forget_ended()
        self._vacancy.look_at_all()
        if read:
            self._strays.look()
        self._usage.look()
        self._cut_cards()

    def _makes_way(self) -> bool:
        """Stand back while the command line needs the cards free of onlookers; tell if it does."""
        try:
            if not self._cutter.make_way():
                return False
        except GpuError as error:
            # Nothing can be cut; everything else can.
            self._say("turn", str(error))
            return False
        self._stay_alive()
        return True

    def _stay_alive(self) -> None:
        # Only what this agent has seen itself still holds: after a restart of the node, what is
        # written down is from before.
        if self.knows_cards:
            self._broker.nodes.note_alive(self.node)

    def _pulse(self) -> None:
        """Do between the steps of a cut what cannot wait for its end.

        A cut takes longer than people who wait for a slice, or the node's heartbeat, should.
        """
        self._environments.begin()
        self._stay_alive()
        self._vacancy.look_at_all()

    def take_inventory(self) -> bool:
        """Store what the cards are now; return False when they cannot be read."""
        try:
            found = self._cutter.read()
        except GpuError as error:
            self.knows_cards = False
            self._say("inventory", f"Node {self.node} offers nothing: {error}")
            return False
        self._worked("inventory")
        if found is None:
            # Another process is cutting, which reads the cards as well.
            self._stay_alive()
            return False
        self.knows_cards = True
        self._name_left_out()
        self._name_orphans()
        return True

    def _name_left_out(self) -> None:
        """Log which cards of this machine belong to another node, and what to do about it."""
        for card in self._cutter.left_out:
            self._say(
                f"moved {card.uuid}",
                f"Node {self.node} leaves out card {card.uuid}: it belongs to node {card.node}. If "
                f"it was moved here, run `migspawner cards move {card.uuid} {self.node}` on the "
                "hub.",
            )

    def _name_orphans(self) -> None:
        """Log which servers run here without a lease, and what to do about it."""
        mine = [each for each in self._broker.orphans.find() if each.node == self.node]
        self._outages = {
            about: outage
            for about, outage in self._outages.items()
            if not about.startswith(ORPHAN)
            or about.removeprefix(ORPHAN) in {o.attempt for o in mine}
        }
        for orphan in mine:
            self._say(f"{ORPHAN}{orphan.attempt}", f"Node {self.node}: {orphan_sentence([orphan])}")

    def _listen(self) -> None:
        """Store what the driver reported by itself since the last round."""
        try:
            reported = self._nvml.events()
        except GpuError:
            return  # the reading of the cards says what is wrong
        for event in reported:
            if event.xid is not None:
                self._broker.cards.record_xid(self.node, event)

    def _check(self, found: Inventory) -> Inventory:
        return hold_back(self._broker, self.node, found, self._proc, self._environments)

    def _cut_cards(self) -> None:
        behind = self._cutter.behind()
        self._tried = {c.uuid: self._tried[c.uuid] for c in behind if c.uuid in self._tried}
        for card in behind:
            try:
                self._cut(card)
            except GpuError as error:
                self._say(card.uuid, f"Card {card.index} ({card.uuid}) is not cut yet: {error}")

    def _cut(self, card: CardRow) -> None:
        """Bring one card nearer to its desired layout, unless it waits for the same as before."""
        live = [
            each for each in self._broker.leases.find(node=self.node) if each.card_uuid == card.uuid
        ]
        asked = (card.layout, card.target, card.mig_wanted, [(e.id, e.state) for e in live])
        before = self._tried.get(card.uuid)
        if before is not None and before.asked == asked and self._monotonic() < before.again:
            return
        # Longer and longer while it fails: each try may stop and start the admin's monitoring.
        pause = self._inventory_seconds
        if before is not None and before.asked == asked and before.failed:
            pause = min(2 * before.pause, LONGEST_PAUSE)
        self._tried[card.uuid] = Tried(asked, self._monotonic() + pause, pause, failed=True)
        outcome = self._cutter.converge(card.uuid)
        again = 0.0 if outcome.busy else self._monotonic() + pause
        self._tried[card.uuid] = Tried(asked, again, pause, failed=False)
        if outcome.waiting:
            head = f"Card {card.index} ({card.uuid}) waits to be cut"
            self._say(card.uuid, f"{head}: {' '.join(outcome.waiting)}")
        else:
            self._worked(card.uuid)

    def _say(self, about: str, text: str) -> None:
        """Log what is wrong once in an outage, not every second."""
        outage = self._outages.setdefault(about, Outage(monotonic=self._monotonic))
        if outage.failed(text):
            log.warning("%s", text)

    def _worked(self, about: str) -> None:
        if about in self._outages and self._outages[about].worked():
            del self._outages[about]
