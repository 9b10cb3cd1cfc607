"""``migspawner nodes``: the machines with cards."""

from __future__ import annotations

from collections import Counter

import click

from jupyterhub_migspawner.broker.views import node_view
from jupyterhub_migspawner.cli.command import Command, answers
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.output import print_json
from jupyterhub_migspawner.cli.table import Column, print_table

NO_CARDS = (
    "No card is known yet: the agent reports the cards as soon as the hub's service runs. "
    "`migspawner doctor` finds problems."
)
"""What a listing of nodes, cards or slices says before any agent has reported."""


@click.command(cls=Command)
@answers(table=True, needs_tiers=False)
def nodes(invocation: Invocation) -> int:
    """Show the machines with cards, and when their agent last reported."""
    broker = invocation.broker()
    count = Counter(card.node for card in broker.cards.find())
    rows = [{**node_view(node), "cards": count[node.name]} for node in broker.nodes.find()]
    if invocation.as_json:
        print_json(rows)
        return DONE
    columns = [
        Column("node", "name"),
        Column("cards", "cards", number=True),
        Column("driver", "driver_version"),
        Column("last report", "heartbeat_at", time=True, seconds=True),
    ]
    print_table(columns, rows, empty=NO_CARDS)
    return DONE
