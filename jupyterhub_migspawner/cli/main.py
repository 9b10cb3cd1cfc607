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
from jupyterhub_migspawner.cli.output import complain, show_as
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.policy.wording import quoted

#: Where the commands are, each in a module that is imported when it is used.
_HERE = "jupyterhub_migspawner.cli"

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130


class Migspawner(Command):
    """The program itself: a group of commands."""

    name = "migspawner"
    description = (
        "A slice broker for research teams: JupyterHub notebooks on NVIDIA MIG slices.\n\n"
        "Exit status: 0 done, 1 refused or a check failed, 2 usage error."
    )
    runs = False
    arguments = (argument("--version", action="version", version=f"migspawner {__version__}"),)
    below = {
        "demo": (f"{_HERE}.demo.Demo", "a hub with simulated cards, ready to log in to"),
        "doctor": (
            f"{_HERE}.doctor.Doctor",
            "find problems of this installation, and how to fix them",
        ),
        "nodes": (f"{_HERE}.slices.Nodes", "the machines with cards"),
        "cards": (f"{_HERE}.slices.Cards", "the cards and how they are cut"),
        "layout": (
            f"{_HERE}.layout.LayoutGroup",
            "compare the cards with a layout file; cut them",
        ),
        "slices": (f"{_HERE}.slices.Slices", "every slice, and who holds it"),
        "tiers": (f"{_HERE}.tiers.Tiers", "what people can pick, and how much of it is free"),
        "leases": (
            f"{_HERE}.leases.Leases",
            "who holds what; release one; adopt servers that have none",
        ),
        "sessions": (
            f"{_HERE}.sessions.Sessions",
            "which sessions are in use, when they end and why; extend one",
        ),
        "queue": (
            f"{_HERE}.queue.Queue",
            "the waiting list; join and leave it",
        ),
        "requests": (
            f"{_HERE}.requests.Requests",
            "requests for tiers that need approval; create and decide them",
        ),
        "notices": (f"{_HERE}.notices.Notices", "where notices are sent; send a test"),
        "quotas": (f"{_HERE}.quotas.Quotas", "quotas of a user, and exceptions"),
        "events": (
            f"{_HERE}.events.Events",
            "every change of a lease, request, slice or card",
        ),
        "db": (
            f"{_HERE}.db.Database",
            "the lease database: check, upgrade, back up, restore and compact it",
        ),
        "simulator": (
            f"{_HERE}.simulator.Simulator",
            "simulated cards and their failures",
        ),
    }


def os_error(error: OSError) -> str:
    """What the system refused, in a sentence that names the file."""
    why = error.strerror or type(error).__name__
    if not isinstance(error.filename, (str, bytes)):
        return f"The system refuses this: {why}."
    return f"{quoted(os.fsdecode(error.filename))} cannot be used: {why}."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    # A name that this terminal's encoding lacks is shown as its escape, not as a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        command = parse(Migspawner, sys.argv[1:] if argv is None else argv, "migspawner")
        show_as(command.display())
        command.name_people_as_the_hub()
        status = command.run()
        sys.stdout.flush()
    except MigspawnerError as error:
        complain(f"migspawner: {error}")
        return REFUSED
    except BrokenPipeError:
        # The reader of the answer has read enough. Python would flush once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        complain(f"migspawner: {os_error(error)}")
        return REFUSED
    except SystemExit as end:
        # argparse has said what there was to say (help, version, wrong use).
        return end.code if isinstance(end.code, int) else DONE
    return status


if __name__ == "__main__":
    sys.exit(main())
