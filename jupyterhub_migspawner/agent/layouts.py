"""Reconcile a card's MIG layout with the desired one.

Used by the node's agent in its rounds and by the command line for ``layout apply``, at the same
time if it so happens. Relies on the broker for the desired layout and who holds what, and on NVML
for what is. Promises: an instance is destroyed only after the broker gave it up for that, and never
with a process on it; every step is recorded; after a crash at any step the next round plans again
from the card as it then is and goes on; what must wait is named with who holds it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jupyterhub_migspawner.agent.hooks import Hooks
from jupyterhub_migspawner.agent.lock import CuttingLock
from jupyterhub_migspawner.agent.orphans import Marks, read_marks
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.layouts import held_by
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import partition
from jupyterhub_migspawner.gpu.nvml import Nvml
from jupyterhub_migspawner.gpu.partition import Destroy, Mode, Plan, Step
from jupyterhub_migspawner.model.cards import CardRow, Want
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import Card, Instance, Inventory
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.inventory import recognise
from jupyterhub_migspawner.policy.layouts import Desired, desired

log = logging.getLogger("migspawner.agent")

#: Seconds in which the node's agent notices another process that cuts, and lets go of the driver.
LET_GO_SECONDS = 5.0
PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class Outcome:
    """What one look at a card came to: the steps done, and in sentences what has to wait.

    ``busy`` is True when another process on this machine was cutting, so that nothing was tried.
    """

    card_uuid: str
    steps: tuple[Step, ...] = ()
    waiting: tuple[str, ...] = ()
    busy: bool = False

    @property
    def done(self) -> bool:
        """Whether the card has its desired layout."""
        return not self.busy and not self.waiting


def plan_card(found: Card, goal: Desired, live: Sequence[LeaseRow]) -> Plan:
    """Return the plan for a card as read, given the live leases on it.

    Pure. Raises :exc:`.GpuError` when the card could never be so.
    """
    held = {(lease.profile, lease.start): lease for lease in live}
    plan = partition.plan(found, goal.wants, frozenset(held), mig=goal.mig)
    if not plan.steps and not plan.blocked:
        return plan
    wanted = set(goal.wants)
    sentences = {
        f"{name} at {start} is leased.": held_by(lease)
        for (name, start), lease in held.items()
        if (name, start) not in wanted
    }
    plan = replace(plan, blocked=tuple(sentences.get(each, each) for each in plan.blocked))
    holders = [each for each in live if each.slice_uuid is not None]
    if holders and any(isinstance(step, Mode) for step in plan.steps):
        # A change of mode takes all of the card, and so waits for everybody on it.
        return Plan((), tuple(held_by(each) for each in holders))
    return plan


class Cutter:
    """The cutter of one node's cards; ``actor`` is named in the events of what it does."""

    def __init__(
        self,
        broker: Broker,
        nvml: Nvml,
        *,
        node: str,
        lock: CuttingLock | None = None,
        hooks: Hooks | None = None,
        actor: str = "",
        agent: bool = False,
        check: Callable[[Inventory], Inventory] = lambda inventory: inventory,
        marks: Callable[[], Marks] = read_marks,
        pulse: Callable[[], None] = lambda: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Cut the cards of ``node``.

        ``agent`` says that its readings are the node's heartbeat; ``check`` may add problems.
        ``marks`` reads those of the node's processes. ``pulse`` is called between steps, each of
        which takes seconds.
        """
        self._broker = broker
        self._nvml = nvml
        self.node = node
        self.lock = lock or CuttingLock(None, node)
        self._hooks = hooks or Hooks()
        self._actor = actor or node
        self._agent = agent
        self._check = check
        self._marks = marks
        self._pulse = pulse
        self._sleep = sleep
        #: Cards of this machine that the last reading left out: they are another node's.
        self.left_out: tuple[CardRow, ...] = ()

    def read(self, patience: float = 0.0) -> Inventory | None:
        """Read the cards and store what is there; return None while another process is cutting.

        Not while another process cuts: a reading from before a destruction would make the slice
        available again. Raises :exc:`.GpuError` when the cards cannot be read at all.
        """
        with self.lock.taken() as mine:
            if mine:
                return self._read()
        self._step_back()
        with self.lock.taken(patience) as mine:
            return self._read() if mine else None

    def _read(self) -> Inventory:
        found = self.look()
        # Before the database is asked: what is launched from now on has its lease already.
        marks = self._marks()
        self.left_out = self._broker.nodes.record_inventory(
            self.node,
            found,
            alive=self._agent,
            marks=marks.found,
            unreadable=marks.unreadable,
        )
        return found

    def look(self) -> Inventory:
        """Read the cards and store nothing.

        Raises :exc:`.GpuError` as :meth:`read` does.
        """
        known = self._broker.cards.find(node=self.node)
        found = recognise(self._nvml.inventory(), known)
        forbidden = [each for each in found.cards if each.code == Code.NO_PERMISSION]
        if forbidden and not self._agent:
            # What one user may not see is no problem of the card and is not recorded as one.
            raise GpuError(forbidden[0].problem, code=Code.NO_PERMISSION)
        return self._check(found)

    def make_way(self) -> bool:
        """Let go of the driver when a process that cuts needs the cards alone; tell if it does.

        Not for every cut: who lets go hears nothing of the errors that cards report meanwhile.
        """
        if not self.lock.must_let_go():
            return False
        self._nvml.close()
        return True

    def _step_back(self) -> None:
        if self._agent:
            self.make_way()
        else:
            self._nvml.close()  # nothing is missed by it

    def behind(self) -> list[CardRow]:
        """Return cards that do not have their desired layout yet, as far as the last reading shows.

        Without the driver: the cards are read every few seconds anyway. Left out are cards with a
        problem, until a reading finds them well again.
        """
        whole = {each.card_uuid for each in self._broker.leases.find(node=self.node) if each.whole}
        there: dict[str, set[Want]] = {}
        for status in self._broker.slices.find(node=self.node):
            row = status.row
            if row.present and row.gi_id is not None:
                there.setdefault(row.card_uuid, set()).add((row.profile, row.start))
        found = []
        for card in self._broker.cards.find(node=self.node):
            goal = desired(card, given_whole=card.uuid in whole)
            if goal is None or card.problem:
                continue
            reached = (card.mig_enabled, there.get(card.uuid, set())) == (goal.mig, set(goal.wants))
            # On a card that has no layout set, an admin may be half way through a cut
            # by hand.
            unfinished = card.incomplete and bool(card.layout_by)
            if not reached or unfinished or card.target is not None:
                found.append(card)
        return found

    def converge(self, card_uuid: str, patience: float = 0.0) -> Outcome:
        """Bring one card as near to its desired layout as is possible now.

        Raises :exc:`.GpuError` when a step fails; what was done before stays done.
        """
        with self.lock.taken() as mine:
            if mine:
                return self._cut(card_uuid)
        self._step_back()
        with self.lock.taken(patience) as mine:
            return self._cut(card_uuid) if mine else Outcome(card_uuid, busy=True)

    def _goal(self, card_uuid: str) -> Desired | None:
        # One question for the card as it now is: it may have been given another layout meanwhile.
        card = next(
            (c for c in self._broker.cards.find(node=self.node) if c.uuid == card_uuid), None
        )
        if card is None:
            return None
        whole = any(lease.whole for lease in self._live(card_uuid))
        return desired(card, given_whole=whole)

    def _live(self, card_uuid: str) -> list[LeaseRow]:
        return [
            each for each in self._broker.leases.find(node=self.node) if each.card_uuid == card_uuid
        ]

    def _cut(self, card_uuid: str) -> Outcome:
        goal = self._goal(card_uuid)
        if goal is None:
            return Outcome(card_uuid)
        found = self.look().card(card_uuid)
        if found is None or found.problem:
            raise GpuError(found.problem if found else "the driver no longer lists it.")
        plan = plan_card(found, goal, self._live(card_uuid))
        waiting = list(plan.blocked)
        done: list[Step] = []
        if plan.steps:
            about = {
                "MIGSPAWNER_NODE": self.node,
                "MIGSPAWNER_CARD_UUID": card_uuid,
                "MIGSPAWNER_CARD_INDEX": str(found.index),
            }
            try:
                with self._hooks.around(about, lambda c, t: self._hook(card_uuid, c, t)):
                    for step in plan.steps:
                        why = self._step(found, step)
                        if why:
                            waiting.append(why)
                            break
                        done.append(step)
                        self._pulse()
            finally:
                # New UUIDs are only known now, also of what was done before a step that failed;
                # and what was claimed but is still there goes back to the shelf.
                self._read()
        else:
            self._read()
        self._broker.layouts.finish_target(card_uuid)
        return Outcome(card_uuid, tuple(done), tuple(waiting))

    def _step(self, card: Card, step: Step) -> str:
        """Do one step; return a sentence when it has to wait."""
        if isinstance(step, Destroy):
            why = self._broker.layouts.claim_slice(
                card.uuid, (step.profile, step.start), self._actor
            )
        elif isinstance(step, Mode):
            why = self._broker.layouts.claim_mode(card.uuid, step.enabled, self._actor)
            # Let go of what this process has open on the card, its event registrations too.
            self._nvml.close()
        else:
            why = ""
        if why:
            return why
        try:
            made = self._apply(card, step)
        except GpuError as error:
            self._broker.layouts.record_step(card.uuid, self._actor, str(step), error=str(error))
            raise
        uuid = made[0].uuid if made else None
        self._broker.layouts.record_step(card.uuid, self._actor, str(step), uuid=uuid)
        log.info("Card %d (%s): %s", card.index, card.uuid, step)
        return ""

    def _apply(self, card: Card, step: Step) -> tuple[Instance, ...]:
        # The agent lets go of the driver when it sees that it does not hold the lock.
        patience = 0.0 if self._agent else LET_GO_SECONDS
        if not isinstance(step, Mode):
            try:
                return self._try(card, step, 0.0)
            except GpuError as error:
                if error.code != Code.IN_USE or not patience:
                    raise
        # Nobody may have the card open for this one, or a process that only reads is in its way.
        with self.lock.alone():
            return self._try(card, step, patience)

    def _try(self, card: Card, step: Step, patience: float) -> tuple[Instance, ...]:
        while True:
            try:
                return partition.apply(self._nvml, card.uuid, Plan((step,)))
            except GpuError as error:
                if error.code != Code.IN_USE or patience <= 0:
                    raise
            self._nvml.close()
            self._sleep(PAUSE_SECONDS)
            patience -= PAUSE_SECONDS

    def _hook(self, card_uuid: str, command: str, problem: str) -> None:
        self._broker.layouts.record_step(card_uuid, self._actor, f"run {command}", error=problem)
        if problem:
            log.warning("Card %s: the command `%s` %s", card_uuid, command, problem)
