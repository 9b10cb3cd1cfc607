"""Cards that were lost and are listed again: not lent before nobody of before is left on them.

A card that comes back after a restart of the node is empty. One that comes back without, because
the driver only left it out for a while, may still be used by servers whose leases were lost with
it; giving its slices to others would put two people on one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from jupyterhub_migspawner.agent.environments import AT_ONCE, Environments
from jupyterhub_migspawner.agent.families import Families
from jupyterhub_migspawner.agent.processes import Unreadable, boot_time
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.model.inventory import Card, Inventory
from jupyterhub_migspawner.model.leases import LOST

BACK = "is back, but"
"""What the problem of a card says that is held back; a card with another one was not lost."""


def hold_back(
    broker: Broker,
    node: str,
    found: Inventory,
    proc: Path,
    environments: Environments | None = None,
) -> Inventory:
    """Return the inventory, with a problem on each card that is back but still used from before.

    ``environments`` is what reads the processes', where that is done in rounds.
    """
    stored = broker.cards.find(node=node)
    # Once held back, a card counts as back, and its problem is what keeps it out.
    away = {card.uuid for card in stored if card.state == "lost" or BACK in card.problem}
    back = [each for each in found.cards if each.uuid in away and not each.problem]
    if not back:
        return found
    lost = broker.leases.find(node=node, states=(LOST,), include_past=True)
    cards = {card.uuid for card in back}
    environments = environments or Environments(proc, AT_ONCE)
    families = Families(broker, node=node, proc=proc, environments=environments)
    lost = tuple(lease for lease in lost if lease.card_uuid in cards)
    try:
        families.look(lost)
    except Unreadable as error:
        why = f"it is unknown which processes are on it: {error}"
        return _with_problems(found, {card.uuid: _problem(card, why) for card in back})
    boot = boot_time(proc)
    problems = {}
    for card in back:
        of_card = [lease for lease in lost if lease.card_uuid == card.uuid]
        pids = {process.pid for lease in of_card for process in families.left(lease)}
        pids |= {process.pid for each in card.instances for process in each.processes}
        doubts = [
            doubt
            for lease in of_card
            if boot is None or lease.ended_at is None or lease.ended_at.timestamp() >= boot
            for doubt in families.doubts(lease)
        ]
        if pids:
            listed = ", ".join(map(str, sorted(pids)[:5]))
            why = f"process {listed} from before it was lost still runs"
            problems[card.uuid] = _problem(card, why)
        elif doubts:
            problems[card.uuid] = _problem(
                card, f"it is unknown which processes are on it: {doubts[0]}"
            )
    return _with_problems(found, problems)


def _with_problems(found: Inventory, problems: dict[str, str]) -> Inventory:
    return replace(
        found,
        cards=tuple(
            replace(each, problem=problems[each.uuid]) if each.uuid in problems else each
            for each in found.cards
        ),
    )


def _problem(card: Card, why: str) -> str:
    return f"Card {card.index} ({card.uuid}) {BACK} {why}; end it, or restart the node."
