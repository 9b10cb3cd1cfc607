"""``migspawner layout``: how this machine's cards are cut, against a file of layouts.

Promises that nothing is written before the whole file was found right for these cards, that a plan
shows every step, and that what must wait is named with who holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import yaml

from jupyterhub_migspawner.agent import make_cutter, make_hooks
from jupyterhub_migspawner.agent.hooks import Hooks
from jupyterhub_migspawner.agent.layouts import Cutter
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.command import Group, answers, gathers
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, Invocation, operator
from jupyterhub_migspawner.cli.layouts.rollout import Result, Rollout, aim, head_of
from jupyterhub_migspawner.cli.output import complain, cut_into, print_json, print_line
from jupyterhub_migspawner.cli.progress import waiting
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db import migrations
from jupyterhub_migspawner.errors import GpuError, MigspawnerError
from jupyterhub_migspawner.gpu.layout_reader import load_layouts
from jupyterhub_migspawner.gpu.layouts import Layout, export_layout
from jupyterhub_migspawner.model.inventory import Card, Inventory
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.layouts import desired
from jupyterhub_migspawner.policy.wording import plural

#: Seconds to wait for another process on this machine that is cutting cards.
PATIENCE = 60.0

_FILE = click.argument(
    "file", metavar="FILE", help="file with layouts in the format of nvidia-mig-parted, v1"
)
_NAME = click.argument("name", metavar="NAME", help="the layout's name in the file")


@click.group(cls=Group, invoke_without_command=True)
@gathers
def layout() -> None:
    """Export, check and apply layouts of this machine's cards."""


@layout.command(short_help="write the current layout to a file")
@click.option(
    "--name", default="current", metavar="NAME", help="the layout's name; default: current"
)
@answers(needs_tiers=False)
def export(invocation: Invocation, name: str) -> int:
    """Write the current layout of this machine's cards as a file.

    A message on standard error says where the desired layout differs.
    """
    mig = invocation.mig()
    cards = mig.open_nvml().inventory().cards
    _complain_each(_not_yet(mig, cards))
    text = export_layout(cards, name)
    if invocation.as_json:
        print_json(yaml.safe_load(text))
    else:
        print(text, end="", flush=True)
    return DONE


def _not_yet(mig: MigBroker, cards: Sequence[Card]) -> list[str]:
    """Return a sentence for each card whose present layout is known not to be the desired one."""
    try:
        if not migrations.check(mig.resolved_database_url()).current:
            return []
        broker = mig.open_broker()
        rows = {row.uuid: row for row in broker.cards.find(node=mig.node)}
        whole = {lease.card_uuid for lease in broker.leases.find(node=mig.node) if lease.whole}
    except MigspawnerError:
        # What is exported is in the driver; the database only adds to it.
        return []
    found = []
    for card in cards:
        row = rows.get(card.uuid)
        goal = desired(row, given_whole=card.uuid in whole) if row is not None else None
        here = {(each.profile, each.start) for each in card.instances if each.uuid is not None}
        if goal is None or (goal.mig, set(goal.wants)) == (card.mig_enabled, here):
            continue
        want = cut_into(name for name, _ in goal.wants) or "no slices"
        found.append(
            f"{head_of(card.index, card.uuid)} has a different desired layout "
            f"({want if goal.mig else 'MIG off'}); the file has the current one."
        )
    return found


@layout.command("assert", short_help="check the cards against a file")
@_FILE
@_NAME
@answers(needs_tiers=False)
def compare(invocation: Invocation, file: str, name: str) -> int:
    """Check whether this machine's cards are cut to a layout of the file.

    Exit status: 0 they are, 1 they are not.
    """
    wanted = load_layouts(file).layout(name)
    cards = invocation.mig().open_nvml().inventory().cards
    by_card = wanted.for_cards(cards)
    notices = wanted.notices(cards)
    _complain_each(notices)
    rows: list[dict[str, Any]] = [
        {
            "card_index": card.index,
            "card_uuid": card.uuid,
            "so": not by_card[card.index].differs(card),
            "why": by_card[card.index].differs(card),
        }
        for card in cards
        if card.index in by_card
    ]
    unlike = [row for row in rows if not row["so"]]
    if invocation.as_json:
        print_json(
            {"layout": wanted.name, "so": not unlike, "notices": list(notices), "cards": rows}
        )
    elif unlike:
        for row in unlike:
            print_line(f"{_head(row['card_index'], row['card_uuid'])}: {row['why']}")
    else:
        print_line(_matching(len(rows), len(rows), wanted))
    return REFUSED if unlike else DONE


@layout.command(short_help="cut the cards to a layout of a file")
@_FILE
@_NAME
@click.option("--dry-run", is_flag=True, help="show the plan without changing anything")
@answers(times=True, needs_tiers=False)
def apply(invocation: Invocation, file: str, name: str, dry_run: bool) -> int:
    """Cut this machine's cards to a layout of the file, and keep them so.

    Only differences are changed, and nothing that is in use. The agent changes slices that are in
    use when their last lease ends; until then no other user gets them.

    Exit status: 0 the cards are cut, 1 refused or something is still in use.
    """
    wanted = load_layouts(file).layout(name)
    options = invocation.mig()
    hooks, broker = make_hooks(options), options.open_broker()
    cutter = make_cutter(options, operator())
    rollout = Rollout(broker, cutter, wanted, actor=operator())
    shown = not invocation.as_json
    if dry_run:
        results = _plan(wanted, cutter.look(), broker.leases.find(node=options.node), shown)
        return _finish(wanted, results, dry=True, shown=shown)
    problems: list[str] = []
    with cutter.lock.taken(PATIENCE) as mine:
        found = cutter.read() if mine else None
        if found is None:
            results = _done_by_others(wanted, cutter, rollout, broker)
            return _finish(wanted, results, dry=False, shown=shown)
        results = _plan(wanted, found, broker.leases.find(node=options.node), shown)
        to_cut = [each.aim.card for each in results if each.aim.cuts]

        def report(command: str, problem: str) -> None:
            for card in to_cut:
                broker.layouts.record_step(card.uuid, operator(), f"run {command}", error=problem)

        if not to_cut:
            hooks = Hooks()
        try:
            # No card gets a desired layout before all commands for before did well.
            with (
                hooks.around(_about(options.node, to_cut), report, problems.append),
                waiting("Cutting the cards"),
            ):
                rollout.want(results)
                rollout.cut(results)
        finally:
            _complain_each(problems)
    status = _finish(wanted, results, dry=False, shown=shown)
    return REFUSED if problems else status


def _done_by_others(
    layout: Layout, cutter: Cutter, rollout: Rollout, broker: Broker
) -> list[Result]:
    """Return the report when all is as desired, although the lock was not available."""
    # The driver is left alone while cards are on their way: who cuts may need them free.
    if not cutter.behind():
        leases = broker.leases.find(node=cutter.node)
        results = [Result(each) for each in aim(layout, cutter.look().cards, leases)]
        if rollout.kept(results):
            return results
    raise GpuError(
        f"Another process on this machine has been cutting cards for {PATIENCE:.0f} seconds. "
        "Nothing was changed. Try again."
    )


def _plan(
    layout: Layout, found: Inventory, leases: Sequence[LeaseRow], shown: bool
) -> list[Result]:
    results = [Result(each) for each in aim(layout, found.cards, leases)]
    _complain_each(layout.notices(found.cards))
    if shown:
        for result in results:
            _show_plan(_row(result))
    return results


def _show_plan(row: dict[str, Any]) -> None:
    head = _head(row["card_index"], row["card_uuid"])
    if not row["steps"] and not row["waiting"]:
        print_line(f"{head}: nothing to do")
        return
    print_line(f"{head}:")
    for step in row["steps"]:
        print_line(f"  {step}")
    for why in row["waiting"]:
        print_line(f"  wait: {why}")


def _finish(layout: Layout, results: Sequence[Result], *, dry: bool, shown: bool) -> int:
    rows = [_row(each, dry=dry) for each in results]
    behind = [row for row in rows if not row["done"]]
    if not shown:
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
    """Return the environment of the commands around a cut: several cards with commas."""
    return {
        "MIGSPAWNER_NODE": node,
        "MIGSPAWNER_CARD_UUID": ",".join(card.uuid for card in cards),
        "MIGSPAWNER_CARD_INDEX": ",".join(str(card.index) for card in cards),
    }


def _complain_each(notices: Sequence[str]) -> None:
    for notice in notices:
        complain(f"migspawner: {notice}")


def _head(index: int, uuid: str) -> str:
    """Return a card as lines of a list begin."""
    head = head_of(index, uuid)
    return head[0].lower() + head[1:]


def _row(result: Result, *, dry: bool = True) -> dict[str, Any]:
    goal = result.aim.goal
    wants = goal.wants if result.wants is None and goal is not None else result.wants
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
        "done": result.aim.plan.done and goal is not None if dry else result.done,
    }
