"""What every command shares: its arguments, its configuration file, its exit status.

Relies on traitlets for the application (its log, and ``--MigBroker.NAME=VALUE`` on top of the
configuration file) and on argparse for the words of the command line. Promises that a wrong use is
a sentence on standard error and exit status 2, never a traceback, and that reading the admin's file
writes nothing on standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from traitlets.config import Application, Config
from traitlets.config.loader import DeferredConfigString

from jupyterhub_migspawner import __version__
from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.output import complain, print_json, printable
from jupyterhub_migspawner.config import MigBroker, load_config_file
from jupyterhub_migspawner.errors import ConfigError

DONE = 0
REFUSED = 1
WRONG_USE = 2

#: Where the admin's file is looked for when ``--config`` does not name it.
CONFIG_FILES = (Path("jupyterhub_config.py"), Path("/etc/jupyterhub/jupyterhub_config.py"))

#: ``--MigBroker.NAME=VALUE``: a setting from the command line, stronger than the file's.
_SETTING = re.compile(r"--MigBroker\.(\w+)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Argument:
    """A flag or a positional word, as ``argparse`` takes them."""

    names: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


def argument(*names: str, **settings: Any) -> Argument:
    """An :class:`Argument` written like a call of ``add_argument``."""
    return Argument(names, settings)


class Command(Application):
    """One command of ``migspawner``, or a group of them."""

    version = __version__

    #: The flags and words this command takes besides ``--config`` and ``--json``.
    arguments: ClassVar[tuple[Argument, ...]] = ()
    #: The commands of a group, each with what its parent's help says of it.
    below: ClassVar[Mapping[str, tuple[type[Command], str]]] = {}
    #: False for a group whose bare name does nothing.
    runs: ClassVar[bool] = True
    #: False for a command that answers nothing a program would read.
    answers_json: ClassVar[bool] = True

    def __init__(self, *, given: argparse.Namespace, settings: Config, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = given
        self.settings = settings
        self._config: Config | None = None

    @property
    def as_json(self) -> bool:
        """Whether the answer is wanted as JSON."""
        return getattr(self.given, "json", False)

    def option(self, name: str, default: Any = None) -> Any:
        """The value given for a flag or word, or ``default`` when it was not given."""
        return getattr(self.given, name, default)

    def run(self) -> int:
        """Do the work and return the exit status."""
        raise AssertionError(f"{type(self).__name__} is a group and has no work of its own.")

    def config_path(self) -> Path:
        """The configuration file to use. Raises :exc:`ConfigError` when there is none."""
        named = self.option("config")
        if named is not None:
            return Path(named)
        for candidate in CONFIG_FILES:
            if candidate.is_file():
                return candidate
        here, etc = (candidate.absolute() for candidate in CONFIG_FILES)
        raise ConfigError(
            f"There is no configuration file: neither {here} nor {etc} exists. "
            "Name one with --config FILE, or run `migspawner demo` for a hub to try."
        )

    def hub_config(self) -> Config:
        """The whole configuration, settings of the command line included."""
        if self._config is None:
            self._config = load_quietly(self.config_path())
            self._config.merge(self.settings)
        return self._config

    def mig(self) -> MigBroker:
        """The project's own part of the configuration."""
        return MigBroker(config=self.hub_config())

    def broker(self) -> Broker:
        """The broker over the lease database that the configuration names."""
        return self.mig().open_broker()

    def answer(self, value: dict[str, Any], sentence: str) -> int:
        """Say what was done: ``value`` with ``--json``, else ``sentence``."""
        if self.as_json:
            print_json(value)
        else:
            print(printable(sentence), flush=True)
        return DONE


def load_quietly(path: Path) -> Config:
    """Read the configuration file; what it prints goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        try:
            return load_config_file(path)
        except SystemExit as error:
            raise ConfigError(
                f"{path} ends the program (exit status {error.code!r}) when it is read; "
                "it must only set traits."
            ) from None


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one sentence and says where to look."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # A flag that was not given stays away, so that a group's value is not overwritten by its
        # subcommand's default.
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Complain and leave with the status for wrong use."""
        complain(f"{self.prog}: {message.rstrip('.')}. See `{self.prog} --help`.")
        raise SystemExit(WRONG_USE)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            known = ", ".join(action.choices)
            raise argparse.ArgumentError(None, f"there is no command {value!r}, only {known}")
        super()._check_value(action, value)


def build_parser(command: type[Command], prog: str) -> Parser:
    """The parser of a command and of everything below it."""
    parser = Parser(prog=prog, description=str(command.description))
    _fill(parser, command)
    return parser


def _fill(parser: Parser, command: type[Command]) -> None:
    parser.set_defaults(command=command, parser=parser)
    parser.add_argument(
        "-f",
        "--config",
        metavar="FILE",
        help="the hub's configuration; default: jupyterhub_config.py here, then in /etc/jupyterhub",
    )
    if command.answers_json and command.runs:
        parser.add_argument("--json", action="store_true", help="answer as JSON on standard output")
    for entry in command.arguments:
        parser.add_argument(*entry.names, **entry.settings)
    if not command.below:
        return
    group = parser.add_subparsers(title="commands", metavar="COMMAND", dest="word")
    for name, (subcommand, summary) in command.below.items():
        child = group.add_parser(name, help=summary, description=str(subcommand.description))
        _fill(child, subcommand)


def parse(root: type[Command], argv: Sequence[str], prog: str) -> Command:
    """The command that ``argv`` asks for, ready to run. Raises ``SystemExit`` for wrong use."""
    settings = Config()
    words = []
    for word in argv:
        match = _SETTING.fullmatch(word)
        if match:
            settings.MigBroker[match[1]] = DeferredConfigString(match[2])
        else:
            words.append(word)
    given, unknown = build_parser(root, prog).parse_known_args(words)
    if unknown:
        given.parser.error(f"it does not take {' '.join(repr(word) for word in unknown)}")
    command: type[Command] = given.command
    if not command.runs:
        given.parser.error(f"say which: {', '.join(command.below)}")
    return command(given=given, settings=settings)


def number_from(
    convert: Callable[[str], Any], least: float, what: str, most: float | None = None
) -> Callable[[str], Any]:
    """An argparse type: a number between ``least`` and ``most``, described as ``what``."""

    def check(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or value < least:
            raise argparse.ArgumentTypeError(f"expected {what}, found {text!r}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"expected {what}, found {text!r}")
        return value

    return check


ID = number_from(int, 1, "the number of an entry, as the listing shows it")
HOURS = number_from(float, 1 / 60, "a number of hours, at least a minute")
MINUTES = number_from(float, 0, "a number of minutes")
PORT = number_from(int, 1, "a port between 1 and 65535", 65535)
COUNT = number_from(int, 1, "a whole number from 1 on")
