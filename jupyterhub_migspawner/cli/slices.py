"""``migspawner slices``: every slice, and who holds it."""

from __future__ import annotations

from typing import Any

import click

from jupyterhub_migspawner.broker.views import slice_view
from jupyterhub_migspawner.cli.cards import NODE, none
from jupyterhub_migspawner.cli.command import Command, answers
from jupyterhub_migspawner.cli.existence import require_node
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.output import print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.cli.unproven import print_unproven


@click.command(cls=Command)
@NODE
@answers(table=True, needs_tiers=False)
def slices(invocation: Invocation, node: str | None) -> int:
    """Show all slices, their state and their leases."""
    broker = invocation.broker()
    statuses = broker.slices.find(node=node)
    rows: list[dict[str, Any]] = [dict(slice_view(status)) for status in statuses]
    if not rows and node is not None:
        require_node(invocation, broker, node)
    if invocation.as_json:
        print_json(rows)
        return DONE
    columns = [
        Column("node", "node"),
        Column("card", "card_index", number=True),
        Column("profile", "profile"),
        Column("start", "start", number=True),
        Column("state", "state"),
        Column("user", "user"),
        Column("server", "server"),
        Column("tier", "tier"),
        Column("since", "since", time=True),
        Column("isolation", "isolation", wide=True),
        Column("uuid", "uuid", wide=True),
        Column("reason", "why", below=True),
    ]
    # A line for each lease, where several share a slice.
    lines = [{**lease, **row} for row in rows for lease in row["leases"] or [{}]]
    for line in lines:
        if line["unproven"]:
            # Said below the table, with the way out.
            line["why"] = None
    print_table(columns, lines, empty=none("slice", node, broker))
    print_unproven(statuses)
    return DONE
