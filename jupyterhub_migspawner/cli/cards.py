"""``migspawner cards``: the cards and how they are cut; draining one."""

from __future__ import annotations

from typing import Any

import click

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.views import card_view
from jupyterhub_migspawner.cli.command import Group, answers
from jupyterhub_migspawner.cli.existence import require_node
from jupyterhub_migspawner.cli.invocation import DONE, Invocation, operator
from jupyterhub_migspawner.cli.nodes import NO_CARDS
from jupyterhub_migspawner.cli.options import reason as reason_option
from jupyterhub_migspawner.cli.output import cut_into, print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.cli.unproven import print_unproven
from jupyterhub_migspawner.policy.wording import plural

NODE = click.option("--node", metavar="NAME", help="only those on this node")

_CARD = click.argument(
    "uuid", metavar="UUID", help="the card's UUID, as shown by `migspawner cards`"
)


def none(what: str, node: str | None, broker: Broker) -> str:
    """Return why a listing of cards or slices is empty."""
    cards = broker.cards.find()
    if not cards:
        return NO_CARDS
    if node is not None and not any(card.node == node for card in cards):
        return f"Node {node} has reported no card yet."
    return f"Node {node} has no {what}." if node is not None else f"No card has a {what}."


@click.group(cls=Group, invoke_without_command=True)
@NODE
@answers(table=True, needs_tiers=False)
def cards(invocation: Invocation, node: str | None) -> int:
    """Show the cards, their state and layout; the desired layout if it differs."""
    broker = invocation.broker()
    slices = broker.slices.find(node=node)
    rows: list[dict[str, Any]] = [
        dict(card_view(card, slices)) for card in broker.cards.find(node=node)
    ]
    if not rows and node is not None:
        require_node(invocation, broker, node)
    if invocation.as_json:
        print_json(rows)
        return DONE
    columns = [
        Column("node", "node"),
        Column("card", "index", number=True),
        Column("model", "model"),
        Column("mig", "mig_enabled"),
        Column("state", "state"),
        Column("uuid", "uuid", below=True),
        Column("present layout", "cut"),
        Column("desired layout", "other", below=True),
        Column("drained", "drained", below=True),
        Column("problem", "problem", below=True),
    ]
    for row in rows:
        row["cut"] = _cut(row["present"], row["mig_enabled"])
        row["other"] = _other_than_present(row)
    print_table(columns, rows, empty=none("card", node, broker))
    print_unproven(slices)
    return DONE


@cards.command(short_help="start no new leases on a card")
@_CARD
@reason_option("stored in the event log")
@answers(needs_tiers=False)
def drain(invocation: Invocation, uuid: str, reason: str | None) -> int:
    """Start no new leases on a card. Existing leases continue until they end."""
    broker = invocation.broker()
    why = "drained by an administrator" if reason is None else reason
    card = broker.cards.drain(uuid, why, operator())
    live = sum(lease.card_uuid == card.uuid for lease in broker.leases.find(node=card.node))
    left = f"; {plural(live, 'lease')} on it {'goes' if live == 1 else 'go'} on" if live else ""
    return invocation.answer(card_view(card), f"Card {card.index} of {card.node} is drained{left}.")


@cards.command(short_help="let a card belong to another node")
@_CARD
@click.argument("node", metavar="NODE", help="the node that has the card now")
@answers(needs_tiers=False)
def move(invocation: Invocation, uuid: str, node: str) -> int:
    """Let a card belong to another node, with the leases on it.

    For a card that was put into another machine, or a machine that has a new name, if nodes have
    roles of their own in the lease database: then no agent can take another node's card. Refused
    while the agent of the card's node reports it.
    """
    card = invocation.broker().cards.move(uuid, node, operator())
    return invocation.answer(card_view(card), f"Card {card.index} belongs to {card.node} now.")


@cards.command(short_help="use a card again")
@_CARD
@answers(needs_tiers=False)
def resume(invocation: Invocation, uuid: str) -> int:
    """Use a drained card again, including its quarantined slices, after an admin has checked it."""
    broker = invocation.broker()
    card = broker.cards.resume(uuid, operator())
    for status in broker.slices.find():
        if status.row.card_uuid == card.uuid and status.row.quarantined:
            broker.slices.unquarantine(status.row.id, operator())
    state = "given out again" if card.state == "ok" else card.state
    return invocation.answer(card_view(card), f"Card {card.index} of {card.node} is {state}.")


def _cut(layout: list[dict[str, Any]], mig: bool) -> str:
    return (cut_into(each["profile"] for each in layout) or "no slices") if mig else "MIG off"


def _other_than_present(row: dict[str, Any]) -> str:
    """Return the desired layout where it differs from the present one, else an empty text."""
    if row["desired"] is None:
        return ""
    places = [
        {(each["profile"], each["start"]) for each in row[name]} for name in ("present", "desired")
    ]
    if (places[0], row["mig_enabled"]) == (places[1], row["desired_mig"]):
        return ""
    desired = _cut(row["desired"], row["desired_mig"])
    # The same profiles at other places look the same otherwise.
    return f"{desired}, at other places" if desired == row["cut"] else desired
