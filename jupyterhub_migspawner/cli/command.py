"""Groups and commands of the program: the options they have in common, and how they are called.

Relies on click for the words of the command line. Every command is a function that gets an
:class:`.Invocation`, then its own options and arguments, and returns its exit status. Options that
all have in common may stand after any of the words: ``migspawner -f FILE leases`` is the same as
``migspawner leases -f FILE``.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

import click
from click.core import ParameterSource

from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.options import Name, Option, Time
from jupyterhub_migspawner.cli.output import show_as
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted

#: What a shell reports for a program that Ctrl-C ended.
INTERRUPTED = 130

P = ParamSpec("P")


class Command(click.Command):
    """A command that is named in the errors of its words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words. Raises ``UsageError`` that knows which command refuses them."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option ``--help``, explained like the others."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.help = "show this message and exit"
        return option


class Group(Command, click.Group):
    """A group that keeps its commands in their order, and names them where it does not know one."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands' names, in the order in which they were written."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the words name. Raises ``UsageError`` where there is none."""
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            hint = nearest(name, known)
            raise click.UsageError(
                f"There is no command {quoted(name)}{hint}, only {', '.join(known)}", ctx
            )
        return super().resolve_command(ctx, args)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Note an option that all commands have in common, whichever word it stands after."""
    invocation = ctx.find_object(Invocation)
    if value and invocation is not None and param.name is not None:
        setattr(invocation, param.name, value)


def _flag(*names: str, help: str) -> Option:
    return click.option(*names, is_flag=True, expose_value=False, callback=_keep, help=help)


_CONFIG: Option = click.option(
    "-f",
    "--config",
    metavar="FILE",
    expose_value=False,
    callback=_keep,
    help="the hub's configuration file; while that hub runs, its settings are used. Default: "
    "jupyterhub_config.py here, then in /etc/jupyterhub",
)
_VERBOSE = _flag(
    "-v",
    "--verbose",
    help="say on standard error whether the settings come from a running hub or from the file",
)
_JSON = _flag("--json", "as_json", help="print JSON on standard output")
_WIDE = _flag("--wide", help="show all columns, one row per line")
_UTC = _flag("--utc", help="show and read times in UTC instead of local time")


def gathers(function: Callable[[], None]) -> Callable[[], None]:
    """Decorate a group whose bare name does nothing."""

    @functools.wraps(function)
    def name_one() -> None:
        ctx = click.get_current_context()
        if ctx.invoked_subcommand is None and isinstance(ctx.command, click.Group):
            raise click.UsageError(f"Say which: {', '.join(ctx.command.list_commands(ctx))}", ctx)

    return _CONFIG(name_one)


def answers(
    *,
    table: bool = False,
    times: bool = False,
    needs_tiers: bool = True,
    notes_source: bool = True,
) -> Callable[[Callable[Concatenate[Invocation, P], int]], Callable[P, int]]:
    """Decorate the function of a command, or of a group whose bare name is a listing.

    ``table``: it shows a table or a list. ``times``: it shows or reads times without one. The
    others are those of :class:`.Invocation`.
    """
    options = [_CONFIG, _VERBOSE, _JSON]
    options += [_WIDE] if table else []
    options += [_UTC] if table or times else []

    def decorate(function: Callable[Concatenate[Invocation, P], int]) -> Callable[P, int]:
        @functools.wraps(function)
        def run(*args: P.args, **given: P.kwargs) -> int:
            ctx = click.get_current_context()
            if ctx.invoked_subcommand is not None:
                _refuse_options_of_the_listing(ctx)
                return DONE
            invocation = ctx.ensure_object(Invocation)
            invocation.needs_tiers = needs_tiers
            invocation.notes_source = notes_source
            show_as(invocation.display())
            _complete(ctx, invocation, given)
            try:
                status = function(invocation, *args, **given)
                sys.stdout.flush()
            except BrokenPipeError:
                # The reader of the answer has read enough. Python would flush once more at its end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return DONE
            except KeyboardInterrupt:
                return INTERRUPTED
            return status

        for option in reversed(options):
            run = option(run)
        return run

    return decorate


def _refuse_options_of_the_listing(ctx: click.Context) -> None:
    """Refuse ``leases --user ada adopt``: it would adopt for everybody."""
    misplaced = [
        param.opts[-1]
        for param in ctx.command.params
        if param.expose_value
        and param.name is not None
        and ctx.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]
    if misplaced:
        raise click.UsageError(
            f"{listed(misplaced)} before {ctx.invoked_subcommand!r} is an option of the listing; "
            f"write what is meant for {ctx.invoked_subcommand!r} after it",
            ctx,
        )


def _complete(ctx: click.Context, invocation: Invocation, given: dict[str, Any]) -> None:
    """Complete what was typed by the configuration: the hub's names of people, zones of times."""
    for param in ctx.command.params:
        value = given.get(param.name or "")
        if value is None:
            continue
        if isinstance(param.type, Name):
            given[str(param.name)] = invocation.known_as(value)
        elif isinstance(param.type, Time):
            given[str(param.name)] = invocation.time(value)
