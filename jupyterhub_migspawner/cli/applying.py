"""Carrying a layout out on this machine's cards: all of them wanted first, then cut one by one.

Relies on the broker for who holds what and on :mod:`..agent.cutting` for carrying plans out, the
same code that the node's agent runs. Promises that slices no layout has any more are lent to nobody
while the first cards are cut, that one card's trouble does not keep the others from their layout,
and that what must wait is named with who holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jupyterhub_migspawner.agent.cutting import Cutter, plan_card
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.layouts import held_by
from jupyterhub_migspawner.broker.wanting import Desired
from jupyterhub_migspawner.errors import GpuError, Refusal
from jupyterhub_migspawner.gpu.cards import Card
from jupyterhub_migspawner.gpu.layouts import CardLayout, Layout
from jupyterhub_migspawner.gpu.partition import Create, Plan, Want
from jupyterhub_migspawner.leases.rows import LeaseRow


@dataclass(frozen=True)
class Aim:
    """One card, what the file wants of it, and where the slices go; None when MIG must be on to
    know that.
    """

    card: Card
    wanted: CardLayout
    wish: Desired | None
    plan: Plan

    @property
    def steps(self) -> list[str]:
        """The plan's steps in words, the reading of new UUIDs among them."""
        words = []
        for step in self.plan.steps:
            words.append(str(step))
            if isinstance(step, Create):
                words.append(f"read the UUID of {step.profile} at {step.start}")
        if self.wish is None and not self.card.problem:
            words.append(f"create {', '.join(self.wanted.names)} where the card then allows it")
        return words


def places_beside(
    layout: Layout, card: Card, want: CardLayout, live: Sequence[LeaseRow]
) -> tuple[Want, ...]:
    """Where the wanted slices go: what is leased stays if it can, and is not built over."""
    leased = frozenset((lease.profile, lease.start) for lease in live)
    return layout.places(card, want, keep=leased, avoid=leased)


def aim(layout: Layout, cards: Sequence[Card], leases: Sequence[LeaseRow]) -> list[Aim]:
    """What the layout wants of each card it names, and the plan to get there.

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
        if not card.mig_capable:
            continue  # MIG is to be off, and that it is for ever
        live = [lease for lease in leases if lease.card_uuid == card.uuid]
        if want.mig_enabled and want.names and not card.profiles:
            # Some drivers tell the profiles only once MIG is on.
            first = plan_card(card, Desired((), True), live)
            aims.append(Aim(card, want, None, first))
            continue
        places: tuple[Want, ...] = ()
        if want.mig_enabled:
            places = places_beside(layout, card, want, live)
        wish = Desired(places, want.mig_enabled)
        aims.append(Aim(card, want, wish, plan_card(card, wish, live)))
    return aims


@dataclass
class Result:
    """How it went with one card: what has to wait, or what went wrong, in sentences."""

    aim: Aim
    waiting: tuple[str, ...] = ()
    error: str = ""

    @property
    def done(self) -> bool:
        """Whether the card is as wanted."""
        return not self.waiting and not self.error


class Applying:
    """Carries a layout out; whoever calls holds the node's cutting lock all the time."""

    def __init__(self, broker: Broker, cutter: Cutter, layout: Layout, *, actor: str) -> None:
        self._broker = broker
        self._cutter = cutter
        self._layout = layout
        self._actor = actor

    def want(self, results: Sequence[Result]) -> None:
        """Say of all cards what they shall be, before the first is cut."""
        for result in results:
            try:
                self._want(result)
            except (GpuError, Refusal) as error:
                result.error = str(error)

    def cut(self, results: Sequence[Result]) -> None:
        """Bring every card as near to it as is possible now."""
        for result in results:
            if result.error:
                continue
            try:
                result.waiting = self._cut(result.aim)
            except (GpuError, Refusal) as error:
                result.error = str(error)

    def _want(self, result: Result) -> None:
        card, wanted = result.aim.card, result.aim.wanted
        if card.problem:
            raise GpuError(card.problem)

        def choose(live: Sequence[LeaseRow]) -> tuple[Want, ...]:
            if result.aim.wish is None or not wanted.mig_enabled:
                return ()
            return places_beside(self._layout, card, wanted, live)

        self._broker.choose_layout(card.uuid, choose, wanted.mig_enabled, self._actor)

    def _cut(self, aim_: Aim) -> tuple[str, ...]:
        uuid = aim_.card.uuid
        waiting = self._cutter.converge(uuid).waiting or self._whole(uuid)
        if aim_.wish is not None or waiting:
            return waiting
        # Only now, with MIG on, the card tells its profiles and where they go.
        found = self._cutter.read()
        card = found.card(uuid) if found is not None else None
        if card is None or card.problem:
            raise GpuError(
                card.problem if card else f"Card {aim_.card.index} ({uuid}) is not listed any more."
            )
        places = self._layout.places(card, aim_.wanted)
        self._broker.set_layout(uuid, places, True, self._actor)
        return self._cutter.converge(uuid).waiting

    def _whole(self, card_uuid: str) -> tuple[str, ...]:
        """Who has all of the card, so that it takes its layout only afterwards."""
        (layout,) = [c.layout for c in self._broker.cards(self._cutter.node) if c.uuid == card_uuid]
        return tuple(
            held_by(lease)
            for lease in self._broker.leases(node=self._cutter.node)
            if lease.card_uuid == card_uuid
            and lease.whole
            and (lease.profile, lease.start) not in layout
        )
