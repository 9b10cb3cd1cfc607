"""From the layout a card has to the one it should have, touching only what differs.

:func:`plan` decides and is pure; :func:`apply` carries a plan out step by step. A plan can be made
again at any moment from the card as it then is, so one that was cut off half way is continued by
planning again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.arrange import Want, arrange, is_legal
from jupyterhub_migspawner.model.codes import Code
from jupyterhub_migspawner.model.inventory import Card, Instance, Placement

__all__ = ["Create", "Destroy", "Mode", "Plan", "Step", "Want", "apply", "arrange", "plan"]


@dataclass(frozen=True)
class Mode:
    """A step that turns MIG on or off for the card."""

    enabled: bool

    def __str__(self) -> str:
        return f"turn MIG {'on' if self.enabled else 'off'}"


@dataclass(frozen=True)
class Destroy:
    """A step that destroys the instance that has this id and lies there."""

    gi_id: int
    profile: str
    start: int

    def __str__(self) -> str:
        return f"destroy {self.profile} at {self.start}"


@dataclass(frozen=True)
class Create:
    """A step that cuts a slice of the profile at that memory slot."""

    profile: str
    start: int

    def __str__(self) -> str:
        return f"create {self.profile} at {self.start}"


Step = Mode | Destroy | Create


@dataclass(frozen=True)
class Plan:
    """What to do, in order, and in sentences what cannot be done now.

    With ``blocked`` empty the steps end in the desired layout; otherwise they end as near to it as
    is possible while what blocks stays.
    """

    steps: tuple[Step, ...]
    blocked: tuple[str, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the card already is as desired."""
        return not self.steps and not self.blocked


def plan(
    card: Card,
    want: Sequence[Want],
    keep: frozenset[Want] = frozenset(),
    *,
    mig: bool = True,
) -> Plan:
    """Plan the steps from the card as it is to exactly ``want``, destroying as little as possible.

    ``card`` is as just read; a card with a problem is not touched. ``want`` is profile and start of
    each slice the card should have. ``keep`` are slices that must stay whatever is desired, because
    there is a lease on them. ``mig`` is False to turn MIG off; ``want`` is then empty.

    Raises :exc:`.GpuError` when ``want`` could never exist on this card.
    """
    if card.problem:
        return Plan((), (card.problem,))
    if not card.mig_capable:
        if not mig and not want:
            return Plan(())
        raise GpuError(f"Card {card.index} ({card.uuid}) is a {card.model} and cannot be cut.")
    if not mig and want:
        raise GpuError("A card with MIG off has no slices: leave them out.")
    if not card.mig_enabled:
        return _from_mig_off(card, want, mig)
    why = is_legal(card.profiles, want)
    if why:
        raise GpuError(f"Card {card.index} ({card.uuid}) cannot be cut like this: {why}")

    wanted = frozenset(want)
    blocked: list[str] = []
    staying: list[Instance] = []
    steps: list[Step] = []
    for each in sorted(card.instances, key=lambda instance: instance.start):
        here = (each.profile, each.start)
        if here in wanted:
            staying.append(each)
        elif here in keep:
            staying.append(each)
            blocked.append(f"{each.profile} at {each.start} is leased.")
        elif each.processes:
            staying.append(each)
            pids = ", ".join(str(process.pid) for process in each.processes)
            blocked.append(f"{each.profile} at {each.start} is used by process {pids}.")
        else:
            steps.append(Destroy(each.gi_id, each.profile, each.start))
    if not mig and not blocked:
        return Plan((*steps, Mode(False)))
    present = {(each.profile, each.start) for each in staying if each.uuid is not None}
    places = {each.name: each for each in card.profiles}
    for name, start in sorted(wanted - present, key=lambda each: each[1]):
        place = Placement(start, places[name].size)
        above = next(
            (
                each
                for each in staying
                if (each.profile, each.start) != (name, start) and place.overlaps(each.placement)
            ),
            None,
        )
        if above is None:
            steps.append(Create(name, start))
        else:
            blocked.append(
                f"{name} at {start} must wait for {above.profile} at {above.start} to end."
            )
    return Plan(tuple(steps), tuple(blocked))


class Driver(Protocol):
    """What carrying out a plan needs; :class:`~jupyterhub_migspawner.gpu.nvml.Nvml` has it."""

    def card(self, card_uuid: str) -> Card:
        """Return one card as it is now."""

    def create_instance(self, card_uuid: str, profile_name: str, start: int) -> Instance:
        """Cut a slice; return it."""

    def destroy_instance(self, card_uuid: str, gi_id: int) -> None:
        """Destroy a GPU instance."""

    def set_mig_mode(self, card_uuid: str, enabled: bool) -> Card:
        """Turn MIG on or off; return the card as it is then."""


def apply(
    nvml: Driver,
    card_uuid: str,
    plan: Plan,
    on_step: Callable[[Step, Instance | None], None] = lambda step, instance: None,
) -> tuple[Instance, ...]:
    """Carry the plan's steps out, one after the other, and return the slices that were made.

    ``on_step`` is called after each step, with the new slice after a creation: its UUID was read
    back from the driver. Before a destruction the card is read again; an instance that is not the
    planned one any more, or that a process has come to use, is not touched.

    Raises :exc:`.GpuError` when a step failed; those before it are done, and a new plan continues
    from there.
    """
    made: list[Instance] = []
    for step in plan.steps:
        instance: Instance | None = None
        if isinstance(step, Mode):
            nvml.set_mig_mode(card_uuid, step.enabled)
        elif isinstance(step, Destroy):
            _destroy(nvml, card_uuid, step)
        else:
            instance = nvml.create_instance(card_uuid, step.profile, step.start)
            made.append(instance)
        on_step(step, instance)
    return tuple(made)


def _destroy(nvml: Driver, card_uuid: str, step: Destroy) -> None:
    card = nvml.card(card_uuid)
    if card.problem:
        raise GpuError(card.problem)
    found = next((each for each in card.instances if each.gi_id == step.gi_id), None)
    if found is None:
        return
    if (found.profile, found.start) != (step.profile, step.start):
        raise GpuError(
            f"Card {card.index} ({card_uuid}) was re-cut by another process: GPU instance"
            f" {step.gi_id} is now {found.profile} at {found.start}. Plan again."
        )
    if found.processes:
        pids = ", ".join(str(each.pid) for each in found.processes)
        raise GpuError(
            f"Card {card.index} ({card_uuid}): {step.profile} at {step.start} is not destroyed,"
            f" process {pids} uses it. End it, then plan again.",
            code=Code.IN_USE,
        )
    nvml.destroy_instance(card_uuid, step.gi_id)


def _from_mig_off(card: Card, want: Sequence[Want], mig: bool) -> Plan:
    if not mig:
        return Plan(())
    # Some drivers tell the profiles only once MIG is on; then the driver judges each creation.
    why = is_legal(card.profiles, want) if card.profiles else ""
    if why:
        raise GpuError(f"Card {card.index} ({card.uuid}) cannot be cut like this: {why}")
    creations = [Create(name, start) for name, start in sorted(want, key=lambda each: each[1])]
    return Plan((Mode(True), *creations))
