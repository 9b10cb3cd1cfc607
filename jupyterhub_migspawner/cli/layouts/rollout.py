"""Apply a layout to this machine's cards: set all desired layouts first, then cut one by one.

Relies on the broker for who holds what and on :mod:`..agent.cutting` for carrying plans out, the
same code that the node's agent runs. Promises that slices no layout has any more are lent to nobody
while the first cards are cut, that no card is cut that was not planned to be, that one card's
error does not keep the others from their layout and is reported with the card's name, and that what
must wait is named with who holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jupyterhub_migspawner.agent.layouts import Cutter, plan_card
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.layouts import held_by
from jupyterhub_migspawner.errors import GpuError, Refusal
from jupyterhub_migspawner.gpu.layouts import CardLayout, Layout
from jupyterhub_migspawner.gpu.partition import Create, Plan, Want
from jupyterhub_migspawner.model.cards import MIG_OFF
from jupyterhub_migspawner.model.inventory import Card
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.layouts import Desired


@dataclass(frozen=True)
class Aim:
    """One card, what the file wants of it, and where the slices go.

    ``goal`` is None when MIG must be on to know that.
    """

    card: Card
    wanted: CardLayout
    goal: Desired | None
    plan: Plan

    @property
    def cuts(self) -> bool:
        """Whether there is something that can be cut now."""
        return bool(self.plan.steps) or (self.goal is None and not self.plan.blocked)

    @property
    def steps(self) -> list[str]:
        """The plan's steps in words, the reading of new UUIDs among them."""
        words = []
        for step in self.plan.steps:
            words.append(str(step))
            if isinstance(step, Create):
                words.append(f"read the UUID of {step.profile} at {step.start}")
        if self.goal is None and not self.card.problem:
            words.append(f"create {', '.join(self.wanted.names)} where the card then allows it")
        return words


def places_beside(
    layout: Layout, card: Card, want: CardLayout, live: Sequence[LeaseRow]
) -> tuple[Want, ...]:
    """Return where the desired slices go: what is leased stays if it can, and is not built over."""
    leased = frozenset((lease.profile, lease.start) for lease in live)
    return layout.places(card, want, keep=leased, avoid=leased)


def aim(layout: Layout, cards: Sequence[Card], leases: Sequence[LeaseRow]) -> list[Aim]:
    """Return what the layout wants of each card it names, and the plan to get there.

    A card with a problem is blocked by it. Raises :exc:`.ConfigError` when one could never be so.
    """
    wanted = layout.for_cards(cards)
    aims = []
    for card in cards:
        want = wanted.get(card.index)
        if want is None:
            continue
        if card.problem:
            aims.append(Aim(card, want, None, Plan((), (card.problem,))))
            continue
        live = [lease for lease in leases if lease.card_uuid == card.uuid]
        if want.mig_enabled and want.names and not card.profiles:
            # Some drivers tell the profiles only once MIG is on.
            first = plan_card(card, Desired((), True), live)
            aims.append(Aim(card, want, None, first))
            continue
        places: tuple[Want, ...] = ()
        if want.mig_enabled:
            places = places_beside(layout, card, want, live)
        goal = Desired(places, want.mig_enabled)
        aims.append(Aim(card, want, goal, plan_card(card, goal, live)))
    return aims


@dataclass
class Result:
    """How it went with one card: what has to wait, or what went wrong, in sentences.

    ``wants`` are the slices it was given as its layout; None before that.
    """

    aim: Aim
    wants: tuple[Want, ...] | None = None
    waiting: tuple[str, ...] = ()
    error: str = ""

    @property
    def done(self) -> bool:
        """Whether the card has its desired layout."""
        return not self.waiting and not self.error


class Rollout:
    """Applies a layout; the caller holds the node's cutting lock all the time."""

    def __init__(self, broker: Broker, cutter: Cutter, layout: Layout, *, actor: str) -> None:
        self._broker = broker
        self._cutter = cutter
        self._layout = layout
        self._actor = actor

    def want(self, results: Sequence[Result]) -> None:
        """Set the desired layout of all cards, before the first is cut."""
        for result in results:
            try:
                self._want(result)
            except (GpuError, Refusal) as error:
                result.error = named(result.aim.card, str(error))

    def cut(self, results: Sequence[Result]) -> None:
        """Bring every card as near to it as is possible now.

        One that nothing could be done about when it was planned is left to the agent, should it
        have become free meanwhile: the commands around this cut were not for it.
        """
        for result in results:
            if result.error:
                continue
            try:
                result.waiting = self._cut(result)
            except (GpuError, Refusal) as error:
                result.error = named(result.aim.card, str(error))

    def kept(self, results: Sequence[Result]) -> bool:
        """Return whether all cards have their desired layout already, and keep it."""
        rows = {row.uuid: row for row in self._broker.cards.find(node=self._cutter.node)}
        for result in results:
            card, goal = result.aim.card, result.aim.goal
            if goal is None or not result.aim.plan.done:
                return False
            if not card.mig_capable:
                continue
            row = rows.get(card.uuid)
            if row is None or not row.layout_by or row.target is not None:
                return False
            if (row.layout, row.mig_wanted) != (goal.wants, goal.mig):
                return False
        return True

    def _want(self, result: Result) -> None:
        card, wanted = result.aim.card, result.aim.wanted
        if card.problem:
            raise GpuError(card.problem)
        if not card.mig_capable:
            return  # MIG is to be off, and that it always is

        def choose(live: Sequence[LeaseRow]) -> tuple[Want, ...]:
            if result.aim.goal is None or not wanted.mig_enabled:
                return ()
            return places_beside(self._layout, card, wanted, live)

        row = self._broker.layouts.choose(card.uuid, choose, wanted.mig_enabled, self._actor)
        if result.aim.goal is not None:
            result.wants = row.layout

    def _cut(self, result: Result) -> tuple[str, ...]:
        aim_ = result.aim
        uuid = aim_.card.uuid
        if not aim_.cuts:
            return aim_.plan.blocked or self._whole(result)
        waiting = self._cutter.converge(uuid).waiting or self._whole(result)
        if aim_.goal is not None or waiting:
            return waiting
        # Only now, with MIG on, the card tells its profiles and where they go.
        found = self._cutter.read()
        card = found.card(uuid) if found is not None else None
        if card is None or card.problem:
            raise GpuError(card.problem if card else "the driver no longer lists it.")
        now = card

        def choose(live: Sequence[LeaseRow]) -> tuple[Want, ...]:
            return places_beside(self._layout, now, aim_.wanted, live)

        result.wants = self._broker.layouts.choose(uuid, choose, True, self._actor).layout
        return self._cutter.converge(uuid).waiting

    def _whole(self, result: Result) -> tuple[str, ...]:
        """Return who has all of the card, so that it takes its layout only afterwards."""
        fine = set(result.wants or ()) if result.aim.wanted.mig_enabled else {MIG_OFF}
        return tuple(
            held_by(lease)
            for lease in self._broker.leases.find(node=self._cutter.node)
            if lease.card_uuid == result.aim.card.uuid
            and lease.whole
            and (lease.profile, lease.start) not in fine
        )


def named(card: Card, sentence: str) -> str:
    """Return the sentence, after the card's index and UUID unless it has them itself."""
    head = head_of(card.index, card.uuid)
    return sentence if head in sentence else f"{head}: {sentence}"


def head_of(index: int, uuid: str) -> str:
    """Return a card as sentences about it begin."""
    return f"Card {index} ({uuid})" if uuid else f"Card {index}"
