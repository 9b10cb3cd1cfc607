"""``migspawner layout``: how this machine's cards are cut, against a file of layouts.

Promises that nothing is written before the whole file was found right for these cards, that a plan
shows every step, and that what must wait is named with who holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from jupyterhub_migspawner.agent import make_cutter, make_hooks
from jupyterhub_migspawner.agent.hooks import Hooks
from jupyterhub_migspawner.agent.layouts import Cutter
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.wanting import desired
from jupyterhub_migspawner.cli.applying import Applying, Result, aim, head_of
from jupyterhub_migspawner.cli.command import DONE, REFUSED, Command, argument
from jupyterhub_migspawner.cli.leases import operator
from jupyterhub_migspawner.cli.output import complain, cut_into, print_json, print_line
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import migrations
from jupyterhub_migspawner.errors import GpuError, MigspawnerError
from jupyterhub_migspawner.gpu.cards import Card, Inventory
from jupyterhub_migspawner.gpu.layout_reader import load_layouts
from jupyterhub_migspawner.gpu.layouts import Layout, export_layout
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.wording import plural

#: Seconds to wait for another process on this machine that is cutting cards.
PATIENCE = 60.0

_FILE = argument(
    "file", metavar="FILE", help="file with layouts in the format of nvidia-mig-parted, v1"
)
_NAME = argument("layout", metavar="NAME", help="the layout's name in the file")


class Export(Command):
    """Show how the cards are cut."""

    name = "migspawner layout export"
    description = (
        "Write the current layout of this machine's cards as a file. A message on standard error\n"
        "says where the desired layout differs."
    )
    arguments = (argument("--name", metavar="NAME", help="the layout's name; default: current"),)
    needs_tiers = False

    def run(self) -> int:
        """Read the cards and write the file's text."""
        mig = self.mig()
        cards = mig.open_nvml().inventory().cards
        _complain_each(_not_yet(mig, cards))
        text = export_layout(cards, self.option("name", "current"))
        if self.as_json:
            print_json(yaml.safe_load(text))
        else:
            print(text, end="", flush=True)
        return DONE


def _not_yet(mig: MigBroker, cards: Sequence[Card]) -> list[str]:
    """A sentence for each card whose present layout is not the desired one, if that is known."""
    try:
        if not migrations.check(mig.resolved_database_url()).current:
            return []
        broker = mig.open_broker()
        rows = {row.uuid: row for row in broker.cards(node=mig.node)}
        whole = {lease.card_uuid for lease in broker.leases(node=mig.node) if lease.whole}
    except MigspawnerError:
        # What is exported is in the driver; the database only adds to it.
        return []
    found = []
    for card in cards:
        row = rows.get(card.uuid)
        wish = desired(row, given_whole=card.uuid in whole) if row is not None else None
        here = {(each.profile, each.start) for each in card.instances if each.uuid is not None}
        if wish is None or (wish.mig, set(wish.wants)) == (card.mig_enabled, here):
            continue
        want = cut_into(name for name, _ in wish.wants) or "no slices"
        found.append(
            f"{head_of(card.index, card.uuid)} has another desired layout "
            f"({want if wish.mig else 'MIG off'}); the file has the present one."
        )
    return found


class Assert(Command):
    """Compare the cards with a layout."""

    name = "migspawner layout assert"
    description = (
        "Check whether this machine's cards are cut to a layout of the file.\n"
        "Exit status: 0 they are, 1 they are not."
    )
    arguments = (_FILE, _NAME)
    needs_tiers = False

    def run(self) -> int:
        """Compare card by card."""
        layout = load_layouts(self.given.file).layout(self.given.layout)
        cards = self.mig().open_nvml().inventory().cards
        wanted = layout.for_cards(cards)
        notices = layout.notices(cards)
        _complain_each(notices)
        rows: list[dict[str, Any]] = [
            {
                "card_index": card.index,
                "card_uuid": card.uuid,
                "so": not wanted[card.index].differs(card),
                "why": wanted[card.index].differs(card),
            }
            for card in cards
            if card.index in wanted
        ]
        unlike = [row for row in rows if not row["so"]]
        if self.as_json:
            print_json(
                {"layout": layout.name, "so": not unlike, "notices": list(notices), "cards": rows}
            )
        elif unlike:
            for row in unlike:
                text = f"{_head(row['card_index'], row['card_uuid'])}: {row['why']}"
                print_line(text)
        else:
            print_line(_matching(len(rows), len(rows), layout))
        return REFUSED if unlike else DONE


class Apply(Command):
    """Bring the cards to a layout."""

    tells_time = True
    name = "migspawner layout apply"
    description = (
        "Cut this machine's cards to a layout of the file, and keep them so. Only differences are\n"
        "changed, and nothing that is in use. The agent changes slices that are in use when their\n"
        "last lease ends; until then no other user gets them.\n"
        "Exit status: 0 the cards are cut, 1 refused or something is still in use."
    )
    arguments = (
        _FILE,
        _NAME,
        argument("--dry-run", action="store_true", help="show the plan without changing anything"),
    )
    needs_tiers = False

    def run(self) -> int:
        """Plan, say so, and carry it out."""
        layout = load_layouts(self.given.file).layout(self.given.layout)
        options = self.mig()
        hooks, broker = make_hooks(options), options.open_broker()
        cutter = make_cutter(options, operator())
        applying = Applying(broker, cutter, layout, actor=operator())
        if self.option("dry_run", False):
            results = self._plan(layout, cutter.look(), broker.leases(node=options.node))
            return self._finish(layout, results, dry=True)
        troubles: list[str] = []
        with cutter.lock.taken(PATIENCE) as mine:
            found = cutter.read() if mine else None
            if found is None:
                results = self._done_by_others(layout, cutter, applying, broker)
                return self._finish(layout, results, dry=False)
            results = self._plan(layout, found, broker.leases(node=options.node))
            to_cut = [each.aim.card for each in results if each.aim.cuts]

            def report(command: str, trouble: str) -> None:
                for card in to_cut:
                    broker.record_step(card.uuid, operator(), f"run {command}", error=trouble)

            if not to_cut:
                hooks = Hooks()
            try:
                # No card gets a desired layout before all commands for before did well.
                with hooks.around(_about(options.node, to_cut), report, troubles.append):
                    applying.want(results)
                    applying.cut(results)
            finally:
                for trouble in troubles:
                    complain(f"migspawner: {trouble}")
        status = self._finish(layout, results, dry=False)
        return REFUSED if troubles else status

    def _done_by_others(
        self, layout: Layout, cutter: Cutter, applying: Applying, broker: Broker
    ) -> list[Result]:
        """The report when all is as desired, although the lock was not available."""
        # The driver is left alone while cards are on their way: who cuts may need them free.
        if not cutter.behind():
            leases = broker.leases(node=cutter.node)
            results = [Result(each) for each in aim(layout, cutter.look().cards, leases)]
            if applying.kept(results):
                return results
        raise GpuError(
            f"Another process on this machine has been cutting cards for {PATIENCE:.0f} seconds. "
            "Nothing was changed. Try again."
        )

    def _plan(self, layout: Layout, found: Inventory, leases: Sequence[LeaseRow]) -> list[Result]:
        results = [Result(each) for each in aim(layout, found.cards, leases)]
        _complain_each(layout.notices(found.cards))
        if not self.as_json:
            for result in results:
                self._show_plan(_row(result))
        return results

    def _show_plan(self, row: dict[str, Any]) -> None:
        head = _head(row["card_index"], row["card_uuid"])
        if not row["steps"] and not row["waiting"]:
            print_line(f"{head}: nothing to do")
            return
        print_line(f"{head}:")
        for step in row["steps"]:
            print_line(f"  {step}")
        for why in row["waiting"]:
            print_line(f"  wait: {why}")

    def _finish(self, layout: Layout, results: Sequence[Result], *, dry: bool) -> int:
        rows = [_row(each, dry=dry) for each in results]
        behind = [row for row in rows if not row["done"]]
        if self.as_json:
            print_json({"layout": layout.name, "dry_run": dry, "cards": rows})
        elif dry:
            print("Nothing was changed.", flush=True)
        else:
            for row in behind:
                if row["error"]:
                    complain(f"migspawner: {row['error']}")
                head = head_of(row["card_index"], row["card_uuid"])
                for why in row["waiting"]:
                    complain(f"migspawner: {why if head in why else f'{head} waits: {why}'}")
            print_line(_matching(len(rows) - len(behind), len(rows), layout))
        if dry:
            return REFUSED if any(row["waiting"] for row in rows) else DONE
        return REFUSED if behind else DONE


def _matching(done: int, total: int, layout: Layout) -> str:
    verb = "matches" if done == 1 else "match"
    return f"{done} of {plural(total, 'card')} {verb} the layout {layout.name}."


def _about(node: str, cards: Sequence[Card]) -> dict[str, str]:
    """What the commands around a cut find in their environment: several cards with commas."""
    return {
        "MIGSPAWNER_NODE": node,
        "MIGSPAWNER_CARD_UUID": ",".join(card.uuid for card in cards),
        "MIGSPAWNER_CARD_INDEX": ",".join(str(card.index) for card in cards),
    }


def _complain_each(notices: Sequence[str]) -> None:
    for notice in notices:
        complain(f"migspawner: {notice}")


def _head(index: int, uuid: str) -> str:
    """A card as lines of a list begin."""
    head = head_of(index, uuid)
    return head[0].lower() + head[1:]


def _row(result: Result, *, dry: bool = True) -> dict[str, Any]:
    wish = result.aim.wish
    wants = wish.wants if result.wants is None and wish is not None else result.wants
    waiting = result.aim.plan.blocked if dry else result.waiting
    return {
        "card_index": result.aim.card.index,
        "card_uuid": result.aim.card.uuid,
        "mig": result.aim.wanted.mig_enabled,
        "slices": None
        if wants is None
        else [{"profile": profile, "start": start} for profile, start in wants],
        "steps": result.aim.steps,
        "waiting": list(waiting),
        "error": result.error,
        "done": result.aim.plan.done and wish is not None if dry else result.done,
    }


class LayoutGroup(Command):
    """The layouts."""

    name = "migspawner layout"
    description = "The layouts of this machine's cards."
    runs = False
    below = {
        "export": (Export, "write the current layout to a file"),
        "assert": (Assert, "check the cards against a file"),
        "apply": (Apply, "cut the cards to a layout of a file"),
    }
