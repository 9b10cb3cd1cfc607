"""The ``migspawner`` program: which commands there are, and how each ends.

Promises exit status 0 when it is done, 1 when it was refused or is not so, 2 for wrong use, and a
sentence on standard error instead of a traceback whenever the cause is known.
"""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module

import click

from jupyterhub_migspawner import __version__
from jupyterhub_migspawner.cli import passwords
from jupyterhub_migspawner.cli.command import INTERRUPTED, Group, gathers
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, WRONG_USE, Invocation
from jupyterhub_migspawner.cli.output import complain
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.policy.wording import quoted

#: Every command: its module, which is imported when its word is used, and what the help says.
COMMANDS = {
    "demo": ("demo.command", "a hub with simulated cards, ready to log in to"),
    "doctor": ("doctor.command", "find problems of this installation, and how to fix them"),
    "agent": ("agent", "the agent of a node without a hub"),
    "nodes": ("nodes", "the machines with cards"),
    "cards": ("cards", "the cards and how they are cut"),
    "layout": ("layouts.command", "compare the cards with a layout file; cut them"),
    "slices": ("slices", "every slice, and who holds it"),
    "tiers": ("tiers", "what people can pick, and how much of it is free"),
    "leases": ("leases", "who holds what; release one; adopt servers that have none"),
    "sessions": ("sessions", "which sessions are in use, when they end and why; extend one"),
    "queue": ("queue", "the waiting list; join and leave it"),
    "requests": ("requests", "requests for tiers that need approval; create and decide them"),
    "notices": ("notices", "where notices are sent; send a test"),
    "quotas": ("quotas", "quotas of a user, and exceptions"),
    "events": ("events", "every change of a lease, request, slice or card"),
    "db": ("db", "the lease database: check, upgrade, back up, restore and compact it"),
    "slurm": ("slurm", "slices as Slurm has to know them"),
    "simulator": ("simulator", "simulated cards and their failures"),
}

#: What the extra ``hub`` installs, and a node does not have.
OF_HUB = ("jupyterhub", "apprise", "cryptography")

#: ``--MigBroker.NAME=VALUE``: a setting from the command line, stronger than the file's.
_SETTING = re.compile(r"--MigBroker\.(\w+)=(.*)", re.DOTALL)

_NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"


@contextmanager
def _fast_imports() -> Iterator[None]:
    """Import without the garbage collector, and without plugins of pydantic.

    A run of the collector looks at all that was imported so far, and frees nothing. For plugins,
    pydantic reads the metadata of every installed package when the first model is made.
    """
    plugins = os.environ.get(_NO_PLUGINS)
    os.environ[_NO_PLUGINS] = "__all__"
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        if plugins is None:
            del os.environ[_NO_PLUGINS]
        else:
            os.environ[_NO_PLUGINS] = plugins


class Program(Group):
    """The program itself: a group that imports a command when its word is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, imported now; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        with _fast_imports():
            module = import_module(f"jupyterhub_migspawner.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command is for, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(
    __version__,
    prog_name="migspawner",
    message="%(prog)s %(version)s",
    help="show the version and exit",
)
@gathers
def migspawner() -> None:
    """Manage the slice broker of a research team: JupyterHub notebooks on NVIDIA MIG slices.

    Exit status: 0 done, 1 refused or a check failed, 2 usage error.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    # A name that this terminal's encoding lacks is shown as its escape, not as a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words, settings = split(sys.argv[1:] if argv is None else argv)
    try:
        status = migspawner.main(
            words, prog_name="migspawner", standalone_mode=False, obj=Invocation(settings)
        )
    except click.UsageError as error:
        return wrong_use(error)
    except click.Abort:
        return INTERRUPTED
    except MigspawnerError as error:
        complain(f"migspawner: {error}")
        return REFUSED
    except OSError as error:
        complain(f"migspawner: {os_error(error)}")
        return REFUSED
    except ModuleNotFoundError as error:
        if (name := (error.name or "").split(".")[0]) not in OF_HUB:
            raise
        complain(
            f"migspawner: This needs {name}, which {sys.executable} does not have: on the hub's "
            "machine, install this package with its extra 'hub'."
        )
        return REFUSED
    return status if isinstance(status, int) else DONE


def split(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the words of the command line, and the settings that it gives by name."""
    words, settings = [], {}
    for word in argv:
        match = _SETTING.fullmatch(word)
        if match is None:
            words.append(word)
            continue
        settings[match[1]] = match[2]
        from jupyterhub_migspawner.config.traits import SECRETS

        if match[1] in SECRETS:
            passwords.warn(f"--MigBroker.{match[1]}", match[2])
    return words, settings


def wrong_use(error: click.UsageError) -> int:
    """Print what is wrong in one sentence, without passwords, and where to look; return 2."""
    where = error.ctx.command_path if error.ctx is not None else "migspawner"
    message = passwords.hidden(error.format_message()).rstrip(".")
    stop = "" if message.endswith("?") else "."
    complain(f"{where}: {message}{stop} See `{where} --help`.")
    return WRONG_USE


def os_error(error: OSError) -> str:
    """Return what the system refused, in a sentence that names the file."""
    why = error.strerror or type(error).__name__
    if not isinstance(error.filename, (str, bytes)):
        return f"The system refused this: {why}."
    return f"{quoted(os.fsdecode(error.filename))} cannot be used: {why}."


if __name__ == "__main__":
    sys.exit(main())
