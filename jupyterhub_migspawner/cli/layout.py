"""``migspawner layout``: how this machine's cards are cut, against a file of layouts.

Relies on the broker for who holds what and on :mod:`..agent.cutting` for carrying plans out, the
same code that the node's agent runs, which may be at work at the same time. Promises that nothing
is written before the whole file was found right for these cards, that a plan shows every step, and
that what must wait is named with who holds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from jupyterhub_migspawner.agent import make_cutter
from jupyterhub_migspawner.agent.cutting import Cutter, plan_card
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.layouts import held_by
from jupyterhub_migspawner.broker.wanting import Desired
from jupyterhub_migspawner.cli.command import DONE, REFUSED, Command, argument
from jupyterhub_migspawner.cli.leases import operator
from jupyterhub_migspawner.cli.output import complain, print_json, printable
from jupyterhub_migspawner.errors import GpuError, Refusal
from jupyterhub_migspawner.gpu.cards import Card
from jupyterhub_migspawner.gpu.codes import Code
from jupyterhub_migspawner.gpu.layout_reader import load_layouts
from jupyterhub_migspawner.gpu.layouts import CardLayout, Layout, export_layout
from jupyterhub_migspawner.gpu.partition import Create, Plan, Want
from jupyterhub_migspawner.leases.rows import LeaseRow

#: Seconds to wait for somebody else on this machine who is cutting cards.
PATIENCE = 60.0

#: Seconds the agent is given to do what cannot be done while two processes hold the driver open,
#: and between two looks whether it has.
AGENT_PATIENCE = 20.0
PAUSE = 0.5

_FILE = argument("file", metavar="FILE", help="layouts in the file format of nvidia-mig-parted, v1")
_NAME = argument("layout", metavar="NAME", help="which of its configurations")


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


def aim(layout: Layout, cards: Sequence[Card], leases: Sequence[LeaseRow]) -> list[Aim]:
    """What the layout wants of each card it names, and the plan to get there.

    A card with a problem is blocked by it. Raises :exc:`.ConfigError` when one could never be so.
    """
    wanted = layout.for_cards(cards)
    aims = []
    for card in cards:
        want = wanted.get(card.uuid)
        if want is None or not card.mig_capable:
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
            keep = frozenset((lease.profile, lease.start) for lease in live)
            places = layout.places(card, want, keep)
        wish = Desired(places, want.mig_enabled)
        aims.append(Aim(card, want, wish, plan_card(card, wish, live)))
    return aims


class Applying:
    """Carries a layout out beside whoever else cuts cards on this machine."""

    def __init__(
        self,
        broker: Broker,
        cutter: Cutter,
        layout: Layout,
        *,
        actor: str,
        let_go: Callable[[], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._broker = broker
        self._cutter = cutter
        self._layout = layout
        self._actor = actor
        self._let_go = let_go
        self._sleep = sleep

    def card(self, aim_: Aim, patience: float = PATIENCE) -> tuple[str, ...]:
        """Bring one card there; what has to wait, in sentences. Raises :exc:`.GpuError`."""
        if aim_.card.problem:
            raise GpuError(aim_.card.problem)
        wish = aim_.wish or Desired((), True)
        self._broker.set_layout(aim_.card.uuid, wish.wants, wish.mig, self._actor)
        waiting = self._converge(aim_.card.uuid, patience) or self._whole(aim_.card.uuid, wish)
        if aim_.wish is not None or waiting:
            return waiting
        found = self._cutter.read(patience)
        card = found.card(aim_.card.uuid) if found is not None else None
        if card is None:
            raise GpuError(f"Card {aim_.card.index} ({aim_.card.uuid}) cannot be read any more.")
        places = self._layout.places(card, aim_.wanted)
        self._broker.set_layout(card.uuid, places, True, self._actor)
        return self._converge(card.uuid, patience)

    def _whole(self, card_uuid: str, wish: Desired) -> tuple[str, ...]:
        """Who has all of the card, so that it takes its layout only afterwards."""
        return tuple(
            held_by(lease)
            for lease in self._broker.leases(node=self._cutter.node)
            if lease.card_uuid == card_uuid
            and lease.whole
            and (lease.profile, lease.start) not in wish.wants
        )

    def _converge(self, card_uuid: str, patience: float) -> tuple[str, ...]:
        try:
            outcome = self._cutter.converge(card_uuid, patience)
        except GpuError as error:
            # The agent holds the driver open too, and so this process and it are in each other's
            # way. Letting go lets the agent do the step: it has the same wish.
            if error.code != Code.IN_USE or not self._agent_lives():
                raise
            self._let_go()
            if not self._done_by_agent(card_uuid):
                raise
            return ()
        if outcome.busy:
            return ("Somebody else on this machine is cutting cards.",)
        return outcome.waiting

    def _done_by_agent(self, card_uuid: str) -> bool:
        patience = AGENT_PATIENCE
        while patience > 0:
            if all(card.uuid != card_uuid for card in self._cutter.behind()):
                return True
            self._sleep(PAUSE)
            patience -= PAUSE
        return False

    def _agent_lives(self) -> bool:
        return any(node.name == self._cutter.node for node in self._broker.live_nodes())


class Export(Command):
    """Show how the cards are cut."""

    name = "migspawner layout export"
    description = (
        "Write how this machine's cards are cut now, as a file of layouts with one configuration."
    )
    arguments = (argument("--name", metavar="NAME", help="what to call it; default: current"),)

    def run(self) -> int:
        """Read the cards and write the file's text."""
        cards = self.mig().open_nvml().inventory().cards
        text = export_layout(cards, self.option("name", "current"))
        if self.as_json:
            print_json(yaml.safe_load(text))
        else:
            print(text, end="", flush=True)
        return DONE


class Assert(Command):
    """Compare the cards with a layout."""

    name = "migspawner layout assert"
    description = (
        "Say whether this machine's cards are cut as a configuration of the file wants.\n"
        "Exit status: 0 they are, 1 they are not."
    )
    arguments = (_FILE, _NAME)

    def run(self) -> int:
        """Compare card by card."""
        layout = load_layouts(self.given.file).layout(self.given.layout)
        cards = self.mig().open_nvml().inventory().cards
        wanted = layout.for_cards(cards)
        rows = [
            {
                "card_index": card.index,
                "card_uuid": card.uuid,
                "so": not wanted[card.uuid].differs(card),
                "why": wanted[card.uuid].differs(card),
            }
            for card in cards
            if card.uuid in wanted
        ]
        unlike = [row for row in rows if not row["so"]]
        if self.as_json:
            print_json({"layout": layout.name, "so": not unlike, "cards": rows})
        elif unlike:
            for row in unlike:
                text = f"card {row['card_index']} ({row['card_uuid']}): {row['why']}"
                print(printable(text), flush=True)
        else:
            print(printable(f"All {len(rows)} cards are as {layout.name} wants."), flush=True)
        return REFUSED if unlike else DONE


class Apply(Command):
    """Bring the cards to a layout."""

    name = "migspawner layout apply"
    description = (
        "Cut this machine's cards as a configuration of the file wants, and keep them so.\n"
        "Only what differs is touched, and nothing that somebody has. What must wait is given to\n"
        "nobody any more and cut when its last lease ends, by the agent.\n"
        "Exit status: 0 the cards are so, 1 refused or something has to wait."
    )
    arguments = (
        _FILE,
        _NAME,
        argument("--dry-run", action="store_true", help="show the plan, change nothing"),
    )

    def run(self) -> int:
        """Plan, say so, and carry it out."""
        layout = load_layouts(self.given.file).layout(self.given.layout)
        options = self.mig()
        nvml, broker = options.open_nvml(), options.open_broker()
        cutter = make_cutter(options, operator())
        dry = self.option("dry_run", False)
        found = nvml.inventory() if dry else cutter.read(PATIENCE)
        if found is None:
            raise GpuError(
                f"Somebody else on this machine has been cutting cards for {PATIENCE:.0f} seconds. "
                "Try again."
            )
        aims = aim(layout, found.cards, broker.leases(node=options.node))
        rows = [_row(each) for each in aims]
        for row in rows:
            self._show_plan(row)
        if not dry:
            applying = Applying(broker, cutter, layout, actor=operator(), let_go=nvml.close)
            for each, row in zip(aims, rows, strict=True):
                self._carry_out(applying, each, row)
        return self._finish(layout, rows, dry)

    def _show_plan(self, row: dict[str, Any]) -> None:
        if self.as_json:
            return
        head = f"card {row['card_index']} ({row['card_uuid']})"
        if not row["steps"] and not row["waiting"]:
            print(printable(f"{head}: nothing to do"), flush=True)
            return
        print(printable(f"{head}:"), flush=True)
        for step in row["steps"]:
            print(printable(f"  {step}"), flush=True)
        for why in row["waiting"]:
            print(printable(f"  wait: {why}"), flush=True)

    def _carry_out(self, applying: Applying, aim_: Aim, row: dict[str, Any]) -> None:
        """One card's trouble does not keep the others from their layout."""
        try:
            row["waiting"] = list(applying.card(aim_))
        except (GpuError, Refusal) as error:
            row["waiting"], row["error"] = [], str(error)
        row["done"] = not row["waiting"] and not row["error"]

    def _finish(self, layout: Layout, rows: list[dict[str, Any]], dry: bool) -> int:
        behind = [row for row in rows if not row["done"]]
        if self.as_json:
            print_json({"layout": layout.name, "dry_run": dry, "cards": rows})
        elif dry:
            print("Nothing was changed.", flush=True)
        else:
            for row in behind:
                for why in [row["error"]] if row["error"] else row["waiting"]:
                    head = "" if row["error"] else f"Card {row['card_index']} waits: "
                    complain(f"migspawner: {head}{why}")
            text = f"{len(rows) - len(behind)} of {len(rows)} cards are as {layout.name} wants."
            print(printable(text), flush=True)
        if dry:
            return REFUSED if any(row["waiting"] for row in rows) else DONE
        return REFUSED if behind else DONE


def _row(aim_: Aim) -> dict[str, Any]:
    wish = aim_.wish
    return {
        "card_index": aim_.card.index,
        "card_uuid": aim_.card.uuid,
        "mig": aim_.wanted.mig_enabled,
        "slices": None
        if wish is None
        else [{"profile": profile, "start": start} for profile, start in wish.wants],
        "steps": aim_.steps,
        "waiting": list(aim_.plan.blocked),
        "error": "",
        "done": aim_.plan.done and wish is not None,
    }


class LayoutGroup(Command):
    """The layouts."""

    name = "migspawner layout"
    description = "How this machine's cards are cut, and how they should be."
    runs = False
    below = {
        "export": (Export, "write how the cards are cut as a file of layouts"),
        "assert": (Assert, "are the cards cut as a file says?"),
        "apply": (Apply, "cut the cards as a file says"),
    }
