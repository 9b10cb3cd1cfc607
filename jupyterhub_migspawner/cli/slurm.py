"""``migspawner slurm``: slices as Slurm has to know them."""

from __future__ import annotations

from typing import Any

import click

from jupyterhub_migspawner.cli.cards import NODE, none
from jupyterhub_migspawner.cli.command import Group, answers, gathers
from jupyterhub_migspawner.cli.existence import require_node
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, Invocation
from jupyterhub_migspawner.cli.output import complain, print_json
from jupyterhub_migspawner.slurm import control
from jupyterhub_migspawner.slurm.gres import (
    conf_lines,
    counted,
    differences,
    gres_of,
    node_line,
    read_gres,
)


@click.group(cls=Group, invoke_without_command=True)
@gathers
def slurm() -> None:
    """Describe slices to Slurm."""


@slurm.command(short_help="write gres.conf; compare it with the running cluster")
@NODE
@click.option(
    "--autodetect",
    is_flag=True,
    help="leave the device files to Slurm's own detection (AutoDetect=nvml)",
)
@answers(needs_tiers=False)
def gres(invocation: Invocation, node: str | None, autodetect: bool) -> int:
    """Print gres.conf, and in comments what slurm.conf needs.

    They describe the slices that the agents last reported; a card with MIG on and without slices is
    left out. The numbers are compared with the running cluster: exit status 1 if they differ.
    """
    broker = invocation.broker()
    cards, slices = broker.cards.find(node=node), broker.slices.find(node=node)
    if not cards and node is not None:
        require_node(invocation, broker, node)
    rows = [status.row for status in slices]
    try:
        running: dict[str, control.Node] | None = control.nodes()
        silence = ""
    except control.SlurmError as error:
        running, silence = None, str(error)
    found: list[dict[str, Any]] = []
    for name in dict.fromkeys(card.node for card in cards):
        mine = gres_of([card for card in cards if card.node == name], rows)
        known = None if running is None else control.node_of(name, running)
        slurm_name = name if known is None else known.name
        differing = []
        if running is not None and known is None:
            differing = [f"Node {name} is not in the running cluster."]
        elif known is not None:
            differing = differences(slurm_name, counted(mine), read_gres(known.gres))
        found.append(
            {
                "node": name,
                "slurm_node": slurm_name,
                "gres_conf": conf_lines(slurm_name, mine, detected=autodetect),
                "slurm_conf": node_line(slurm_name, mine),
                "running": None if known is None else known.gres,
                "differences": differing,
            }
        )
    if invocation.as_json:
        print_json(found)
    else:
        for each in found:
            print(f"# slurm.conf: {each['slurm_conf']}")
            print("".join(f"{line}\n" for line in each["gres_conf"]), end="", flush=True)
    if not found:
        complain(f"migspawner: {none('slice', node, broker)}")
    if silence:
        complain(f"migspawner: The running cluster was not compared. {silence}")
    wrong = [sentence for each in found for sentence in each["differences"]]
    for sentence in wrong:
        complain(f"migspawner: {sentence}")
    return REFUSED if wrong else DONE
