"""``migspawner simulator``: simulated cards in a file, and what can happen to real ones."""

from __future__ import annotations

from pathlib import Path

from jupyterhub_migspawner.cli.command import COUNT, Command, argument, number_from
from jupyterhub_migspawner.cli.demo import cards as layouts
from jupyterhub_migspawner.gpu import simulator

_FILE = argument("file", metavar="FILE", help="the file with the simulated machine's state")
_MEMORY = number_from(int, 0, "a number of MiB")


class Create(Command):
    """Make a simulated machine."""

    name = "migspawner simulator create"
    description = (
        "Create a simulated machine: a state file, to be used as c.MigBroker.nvml = 'sim:FILE' or\n"
        "as MIGSPAWNER_NVML=sim:FILE. Without --layout, MIG is off on its cards."
    )
    arguments = (
        _FILE,
        argument("--cards", required=True, type=COUNT, metavar="N", help="how many cards"),
        argument(
            "--model",
            required=True,
            metavar="M",
            help=f"their model: {', '.join(simulator.MODELS)}",
        ),
        argument(
            "--layout",
            metavar="L",
            help="layout: 'mixed', 'balanced', 'all-PROFILE', or profiles with commas between "
            "slices and slashes between cards",
        ),
    )

    def run(self) -> int:
        """Write the file."""
        model = simulator.find_model(self.given.model)
        layout = self.option("layout")
        cut = None
        if layout is not None:
            number = layouts.number_of_cards(layout, self.given.cards)
            cut = layouts.cut(simulator.profiles_of(model), layout, number)
        simulator.create_state(
            self.given.file,
            cards=self.given.cards,
            model=model.key,
            layouts=None if cut is None else [[name for name, _ in card] for card in cut],
        )
        cards = simulator.card_uuids(self.given.file)
        return self.answer(
            {
                "file": str(Path(self.given.file).absolute()),
                "model": model.key,
                "cards": list(cards),
                "slices": list(simulator.slice_uuids(self.given.file)),
            },
            f"{self.given.file} holds {len(cards)} simulated {model.key}. "
            f"Use it as MIGSPAWNER_NVML=sim:{Path(self.given.file).absolute()}.",
        )


class Process(Command):
    """Put a process on a slice."""

    name = "migspawner simulator process"
    description = "Let a running process of this machine use a slice, until it ends."
    arguments = (
        _FILE,
        argument("--slice", required=True, metavar="UUID", help="the slice"),
        argument(
            "--pid",
            required=True,
            type=number_from(int, 1, "the id of a process"),
            metavar="P",
            help="the process",
        ),
        argument("--memory", type=_MEMORY, metavar="MIB", help="how much memory it uses, in MiB"),
        argument(
            "--used",
            type=number_from(float, 0, "a number of per cent"),
            default=0.0,
            metavar="P",
            help="per cent of time for which it keeps the slice's engine busy (0)",
        ),
    )

    def run(self) -> int:
        """Write it into the state."""
        given = self.given
        simulator.add_process(given.file, given.slice, given.pid, self.option("memory"), given.used)
        return self.answer(
            {"slice": given.slice, "pid": given.pid, "memory_mib": self.option("memory")},
            f"Process {given.pid} uses slice {given.slice} until it ends.",
        )


class Reboot(Command):
    """Restart the simulated machine."""

    name = "migspawner simulator reboot"
    description = "Restart the machine: slices and processes are gone, lost cards are back."
    arguments = (_FILE,)

    def run(self) -> int:
        """Restart it."""
        simulator.reboot(self.given.file)
        return self.answer(
            {"file": str(Path(self.given.file).absolute())},
            f"The simulated machine in {self.given.file} has restarted; its slices are gone.",
        )


class Lose(Command):
    """Let a card fall off the bus."""

    name = "migspawner simulator lose"
    description = "Lose a card: every call on it fails until the next reboot."
    arguments = (
        _FILE,
        argument("--card", required=True, metavar="UUID", help="the card"),
    )

    def run(self) -> int:
        """Lose it."""
        simulator.lose_card(self.given.file, self.given.card)
        return self.answer(
            {"card": self.given.card},
            f"Card {self.given.card} is lost until the simulated machine restarts.",
        )


class Simulator(Command):
    """The simulator."""

    name = "migspawner simulator"
    description = "Simulated cards in a file."
    runs = False
    below = {
        "create": (Create, "create a simulated machine"),
        "process": (Process, "put a process on a slice"),
        "reboot": (Reboot, "restart the machine"),
        "lose": (Lose, "lose a card"),
    }
