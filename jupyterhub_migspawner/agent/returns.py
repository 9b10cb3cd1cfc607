"""Cards that were lost and are listed again: not lent before nobody of before is left on them.

A card that comes back after a restart of the node is empty. One that comes back without, because
the driver only left it out for a while, may still be used by servers whose leases were lost with
it; giving its slices to others would put two people on one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jupyterhub_migspawner.agent.vacancy import marked_processes
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.gpu.cards import Card, Inventory
from jupyterhub_migspawner.leases.rows import LOST


def hold_back(broker: Broker, node: str, found: Inventory, proc: Path) -> Inventory:
    """The inventory, with a problem on each card that is back but still used from before."""
    away = {card.uuid for card in broker.cards(node=node) if card.state == "lost"}
    # Once held back, a card counts as back, and its problem is what keeps it out.
    held = {card.uuid for card in broker.cards(node=node) if card.problem}
    back = [each for each in found.cards if each.uuid in away | held and not each.problem]
    if not back:
        return found
    lost = broker.leases(node=node, states=(LOST,), include_past=True)
    marked = marked_processes(proc)
    problems = {}
    for card in back:
        pids = {
            process.pid
            for lease in lost
            if lease.card_uuid == card.uuid
            for process in marked.get(lease.attempt, [])
        }
        if card.uuid in away:
            pids |= {process.pid for each in card.instances for process in each.processes}
        if pids:
            problems[card.uuid] = _problem(card, sorted(pids))
    return replace(
        found,
        cards=tuple(
            replace(each, problem=problems[each.uuid]) if each.uuid in problems else each
            for each in found.cards
        ),
    )


def _problem(card: Card, pids: list[int]) -> str:
    return (
        f"Card {card.index} ({card.uuid}) is back, but process {', '.join(map(str, pids[:5]))} of "
        "before it was lost still runs; end it, or restart the node."
    )
