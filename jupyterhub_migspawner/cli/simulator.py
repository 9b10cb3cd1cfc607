"""``migspawner simulator``: simulated cards in a file, and what can happen to real ones."""

from __future__ import annotations

from pathlib import Path

import click

from jupyterhub_migspawner.cli.command import Group, answers, gathers
from jupyterhub_migspawner.cli.demo import cards as layouts
from jupyterhub_migspawner.cli.invocation import Invocation
from jupyterhub_migspawner.cli.options import COUNT, Number
from jupyterhub_migspawner.gpu import simulator as simulated

_FILE = click.argument("file", metavar="FILE", help="the file with the simulated machine's state")


@click.group(cls=Group, invoke_without_command=True)
@gathers
def simulator() -> None:
    """Simulate cards in a file, and what can happen to real ones."""


@simulator.command(short_help="create a simulated machine")
@_FILE
@click.option("--cards", required=True, type=COUNT, metavar="N", help="how many cards")
@click.option(
    "--model", required=True, metavar="M", help=f"their model: {', '.join(simulated.MODELS)}"
)
@click.option(
    "--layout",
    metavar="L",
    help="layout: 'mixed', 'balanced', 'all-PROFILE', or profiles with commas between "
    "slices and slashes between cards",
)
@answers()
def create(invocation: Invocation, file: str, cards: int, model: str, layout: str | None) -> int:
    """Create a simulated machine: a state file.

    Use it as c.MigBroker.nvml = 'sim:FILE' or as MIGSPAWNER_NVML=sim:FILE.

    Without --layout, MIG is off on its cards.
    """
    found = simulated.find_model(model)
    cut = None
    if layout is not None:
        number = layouts.number_of_cards(layout, cards)
        cut = layouts.cut(simulated.profiles_of(found), layout, number)
    simulated.create_state(
        file,
        cards=cards,
        model=found.key,
        layouts=None if cut is None else [[name for name, _ in card] for card in cut],
    )
    uuids, path = simulated.card_uuids(file), Path(file).absolute()
    return invocation.answer(
        {
            "file": str(path),
            "model": found.key,
            "cards": list(uuids),
            "slices": list(simulated.slice_uuids(file)),
        },
        f"{file} holds {len(uuids)} simulated {found.key}. Use it as MIGSPAWNER_NVML=sim:{path}.",
    )


@simulator.command(short_help="put a process on a slice")
@_FILE
@click.option("--slice", "uuid", required=True, metavar="UUID", help="the slice")
@click.option(
    "--pid",
    required=True,
    type=Number(int, 1, "the id of a process"),
    metavar="P",
    help="the process",
)
@click.option(
    "--memory",
    type=Number(int, 0, "a number of MiB"),
    metavar="MIB",
    help="how much memory it uses, in MiB",
)
@click.option(
    "--used",
    type=Number(float, 0, "a number of per cent"),
    default=0.0,
    metavar="P",
    help="per cent of time for which it keeps the slice's engine busy (0)",
)
@answers()
def process(
    invocation: Invocation, file: str, uuid: str, pid: int, memory: int | None, used: float
) -> int:
    """Let a running process of this machine use a slice, until it ends."""
    simulated.add_process(file, uuid, pid, memory, used)
    return invocation.answer(
        {"slice": uuid, "pid": pid, "memory_mib": memory},
        f"Process {pid} uses slice {uuid} until it ends.",
    )


@simulator.command(short_help="restart the machine")
@_FILE
@answers()
def reboot(invocation: Invocation, file: str) -> int:
    """Restart the machine: slices and processes are gone, lost cards are back."""
    simulated.reboot(file)
    return invocation.answer(
        {"file": str(Path(file).absolute())},
        f"The simulated machine in {file} has restarted; its slices are gone.",
    )


@simulator.command(short_help="lose a card")
@_FILE
@click.option("--card", required=True, metavar="UUID", help="the card")
@answers()
def lose(invocation: Invocation, file: str, card: str) -> int:
    """Lose a card: every call on it fails until the next reboot."""
    simulated.lose_card(file, card)
    return invocation.answer(
        {"card": card}, f"Card {card} is lost until the simulated machine restarts."
    )
