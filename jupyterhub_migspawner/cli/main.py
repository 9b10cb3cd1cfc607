"""The ``migspawner`` program: which commands there are, and how each ends.

Promises exit status 0 when it is done, 1 when it was refused or is not so, 2 for wrong use, and a
sentence on standard error instead of a traceback whenever the cause is known.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from jupyterhub_migspawner import __version__
from jupyterhub_migspawner.cli.command import DONE, REFUSED, Command, argument, parse
from jupyterhub_migspawner.cli.db import Database
from jupyterhub_migspawner.cli.demo import Demo
from jupyterhub_migspawner.cli.doctor import Doctor
from jupyterhub_migspawner.cli.events import Events
from jupyterhub_migspawner.cli.layout import LayoutGroup
from jupyterhub_migspawner.cli.leases import Leases
from jupyterhub_migspawner.cli.notices import Notices
from jupyterhub_migspawner.cli.output import complain
from jupyterhub_migspawner.cli.queue import Queue
from jupyterhub_migspawner.cli.quotas import Quotas
from jupyterhub_migspawner.cli.requests import Requests
from jupyterhub_migspawner.cli.sessions import Sessions
from jupyterhub_migspawner.cli.simulator import Simulator
from jupyterhub_migspawner.cli.slices import Cards, Nodes, Slices
from jupyterhub_migspawner.cli.tiers import Tiers
from jupyterhub_migspawner.errors import MigspawnerError

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130


class Migspawner(Command):
    """The program itself: a group of commands."""

    name = "migspawner"
    description = (
        "A slice broker for research teams: JupyterHub notebooks on NVIDIA MIG slices.\n\n"
        "Exit status: 0 done, 1 refused or not so, 2 wrong use."
    )
    runs = False
    arguments = (argument("--version", action="version", version=f"migspawner {__version__}"),)
    below = {
        "demo": (Demo, "a hub with simulated cards, ready to log in to"),
        "doctor": (Doctor, "what is wrong with this install, and the mend"),
        "nodes": (Nodes, "the machines with cards"),
        "cards": (Cards, "the cards and how they are cut"),
        "layout": (LayoutGroup, "how the cards are cut, against a file; cut them so"),
        "slices": (Slices, "every slice, and who holds it"),
        "tiers": (Tiers, "what people can pick, and how much of it is free"),
        "leases": (Leases, "who holds what; release one"),
        "sessions": (Sessions, "which are in use, when they end and why; keep one for longer"),
        "queue": (Queue, "the waiting list: who waits for what; take and give up places"),
        "requests": (Requests, "requests for tiers that need approval; make and decide them"),
        "notices": (Notices, "where people are told of what happens; try it"),
        "quotas": (Quotas, "what limits a user; exceptions from it"),
        "events": (Events, "every change of a lease, request, slice or card; follow them"),
        "db": (Database, "the lease database: check and upgrade its schema, compact its event log"),
        "simulator": (Simulator, "simulated cards: make them, put processes on them, lose them"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    # A name that this terminal's encoding lacks is shown as its escape, not as a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        command = parse(Migspawner, sys.argv[1:] if argv is None else argv, "migspawner")
        status = command.run()
        sys.stdout.flush()
    except MigspawnerError as error:
        complain(f"migspawner: {error}")
        return REFUSED
    except BrokenPipeError:
        # Whoever read the answer has read enough. Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        # argparse has said what there was to say (help, version, wrong use).
        return end.code if isinstance(end.code, int) else DONE
    return status


if __name__ == "__main__":
    sys.exit(main())
