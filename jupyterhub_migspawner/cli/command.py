"""What every command shares: its arguments, its configuration file, its exit status.

Relies on traitlets for the application (its log, and ``--MigBroker.NAME=VALUE`` on top of the
configuration file) and on argparse for the words of the command line. Promises that a wrong use is
a sentence on standard error and exit status 2, never a traceback, and that reading the admin's file
writes nothing on standard output.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from traitlets.config import Application, Config
from traitlets.config.loader import DeferredConfigString
from traitlets.utils.importstring import import_item

from jupyterhub_migspawner import __version__
from jupyterhub_migspawner.cli.output import (
    USUAL_WIDTH,
    Display,
    complain,
    print_json,
    print_line,
)
from jupyterhub_migspawner.cli.times import aware
from jupyterhub_migspawner.errors import ConfigError

if TYPE_CHECKING:
    from jupyterhub_migspawner.broker import Broker
    from jupyterhub_migspawner.cli.source import Source
    from jupyterhub_migspawner.config import MigBroker
    from jupyterhub_migspawner.model.parts import Part

DONE = 0
REFUSED = 1
WRONG_USE = 2

#: Where the admin's file is looked for when ``--config`` does not name it.
CONFIG_FILES = (Path("jupyterhub_config.py"), Path("/etc/jupyterhub/jupyterhub_config.py"))

#: ``--MigBroker.NAME=VALUE``: a setting from the command line, stronger than the file's.
_SETTING = re.compile(r"--MigBroker\.(\w+)=(.*)", re.DOTALL)

_PASSWORD = re.compile(r"//[^/@]*:.+@|\bpassword=\S*", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Argument:
    """A flag or a positional word, as ``argparse`` takes them."""

    names: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


T = TypeVar("T")


def argument(*names: str, **settings: Any) -> Argument:
    """An :class:`Argument` written like a call of ``add_argument``."""
    return Argument(names, settings)


class Command(Application):
    """One command of ``migspawner``, or a group of them."""

    version = __version__

    #: The flags and words this command takes besides ``--config`` and ``--json``.
    arguments: ClassVar[tuple[Argument, ...]] = ()
    #: The commands of a group, each with what its parent's help says of it.
    #: One that is named, and not there as a class, is imported when its word is used.
    below: ClassVar[Mapping[str, tuple[type[Command] | str, str]]] = {}
    #: False for a group whose bare name does nothing.
    runs: ClassVar[bool] = True
    #: False for a command that says in its answer where its settings come from.
    notes_source: ClassVar[bool] = True
    #: True for a command that shows a table or a list.
    lists: ClassVar[bool] = False
    #: True for another command that shows or reads times.
    tells_time: ClassVar[bool] = False
    #: False for a command that answers nothing a program would read.
    answers_json: ClassVar[bool] = True
    #: False for a command that is of use before the admin has written any tier.
    needs_tiers: ClassVar[bool] = True

    def __init__(self, *, given: argparse.Namespace, settings: Config, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.given = given
        self.settings = settings
        self._source: Source | None = None

    @property
    def as_json(self) -> bool:
        """Whether the answer is requested as JSON."""
        return getattr(self.given, "json", False)

    def option(self, name: str, default: Any = None) -> Any:
        """The value given for a flag or word, or ``default`` when it was not given."""
        return getattr(self.given, name, default)

    @property
    def zone(self) -> tzinfo | None:
        """The zone in which times are shown and read: UTC with ``--utc``, else the local one."""
        return timezone.utc if self.option("utc", False) else None

    def display(self) -> Display:
        """How answers are shown: on the terminal's width, at least that of :mod:`.output`."""
        width = max(USUAL_WIDTH, shutil.get_terminal_size((USUAL_WIDTH, 24)).columns)
        return Display(None if self.option("wide", False) else width, self.zone)

    def time(self, name: str) -> datetime | None:
        """The time given for a flag, in UTC; without a zone it is in :attr:`zone`."""
        found = self.option(name)
        return None if found is None else aware(found, self.zone)

    def run(self) -> int:
        """Do the work and return the exit status."""
        raise AssertionError(f"{type(self).__name__} is a group and has no work of its own.")

    def name_people_as_the_hub(self) -> None:
        """Replace the names that ``--user`` and ``--by`` give with the hub's own.

        The hub normalizes what people type at login, such as capitals; so does this.
        """
        for flag in ("user", "by"):
            name = self.option(flag)
            if isinstance(name, str):
                setattr(self.given, flag, self.mig().known_as(name))

    def config_path(self) -> Path:
        """The configuration file to use. Raises :exc:`ConfigError` when there is none."""
        named = self.option("config")
        if named is not None:
            return Path(named)
        for candidate in CONFIG_FILES:
            if _is_there(candidate):
                return candidate
        here, etc = (candidate.absolute() for candidate in CONFIG_FILES)
        raise ConfigError(
            f"There is no configuration file: neither {here} nor {etc} exists. "
            "Name one with --config FILE, or run `migspawner demo` for a hub to try."
        )

    def hub_config(self) -> Config:
        """The whole configuration, settings of the command line included."""
        return self.source().config

    def source(self) -> Source:
        """The configuration and where it comes from; says so where the file alone may differ."""
        if self._source is None:
            from jupyterhub_migspawner.cli.source import find

            self._source = source = find(self.config_path())
            source.config.merge(self.settings)
            if self.notes_source:
                self._note(source)
        return self._source

    def _note(self, source: Source) -> None:
        if source.trouble:
            complain(source.trouble)
        if self.option("verbose", False) or (source.hub_alone and not self.as_json):
            complain(source.described)

    def mig(self) -> MigBroker:
        """The project's own part of the configuration."""
        from jupyterhub_migspawner.config import MigBroker
        from jupyterhub_migspawner.db.backups import was_lost

        mig = MigBroker(config=self.hub_config())
        mig.may_create = not was_lost(mig.resolved_database_url())
        mig.tiers_needed = self.needs_tiers
        return mig

    def broker(self) -> Broker:
        """The broker over the lease database that the configuration names."""
        broker = self.mig().open_broker()
        # A user who may use the command line on the lease database has no limit to get around.
        broker.settings = replace(broker.settings, actions_per_minute=0)
        return broker

    def part(self) -> Part | None:
        """The part of a listing that ``--limit`` asks for, and one row more; None for all."""
        from jupyterhub_migspawner.model.parts import Part

        limit = self.option("limit")
        limit = USUAL_ROWS if limit is None else limit
        return Part(limit).and_one_more if limit else None

    def shown_part(self, rows: list[T]) -> list[T]:
        """The rows of :meth:`part` that are shown; says on standard error where there are more."""
        part = self.part()
        if part is None or len(rows) < part.limit:
            return rows
        complain(f"The newest {part.limit - 1} are shown; --limit 0 shows all of them.")
        return rows[1 - part.limit :] if part.limit > 1 else []

    def answer(self, value: Mapping[str, Any], sentence: str) -> int:
        """Say what was done: ``value`` with ``--json``, else ``sentence``."""
        if self.as_json:
            print_json(value)
        else:
            print_line(sentence)
        return DONE


def _is_there(path: Path) -> bool:
    """Whether something has this name, also when it cannot be read: then that is what to say."""
    try:
        return path.exists() or path.is_symlink()
    except OSError:
        return True


class Parser(argparse.ArgumentParser):
    """An argument parser that complains in one sentence and says where to look."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # A flag that was not given stays away, so that a group's value is not overwritten by its
        # subcommand's default.
        super().__init__(allow_abbrev=False, argument_default=argparse.SUPPRESS, **kwargs)
        #: Gives the parser its arguments when it is used; None once it has them.
        self.fill: Callable[[], None] | None = None

    def filled(self) -> Parser:
        """This parser, with its arguments."""
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill()
        return self

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Read the words, by the arguments of the command that they name."""
        self.filled()
        return super().parse_known_args(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Complain and leave with the status for wrong use."""
        complain(f"{self.prog}: {message.rstrip('.')}. See `{self.prog} --help`.")
        raise SystemExit(WRONG_USE)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            known = ", ".join(action.choices)
            raise argparse.ArgumentError(None, f"there is no command {value!r}, only {known}")
        super()._check_value(action, value)


def command_of(entry: type[Command] | str) -> type[Command]:
    """The command of an entry of :attr:`Command.below`, imported where it is only named."""
    found: type[Command] = import_item(entry) if isinstance(entry, str) else entry
    return found


def build_parser(command: type[Command], prog: str, *, whole: bool = False) -> Parser:
    """The parser of a command and of everything below it.

    Commands are imported as their words are read, or all of them at once with ``whole``.
    """
    parser = Parser(prog=prog)
    _fill(parser, command, whole)
    return parser


def _fill(parser: Parser, named: type[Command] | str, whole: bool) -> None:
    command = command_of(named)
    parser.description = str(command.description)
    parser.set_defaults(command=command, parser=parser)
    parser.add_argument(
        "-f",
        "--config",
        metavar="FILE",
        help="the hub's configuration file; while that hub runs, its settings are used. Default: "
        "jupyterhub_config.py here, then in /etc/jupyterhub",
    )
    if command.runs:
        parser.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            help="say on standard error whether the settings come from a running hub or from the "
            "file",
        )
    if command.answers_json and command.runs:
        parser.add_argument("--json", action="store_true", help="print JSON on standard output")
    if command.lists and command.runs:
        parser.add_argument(
            "--wide", action="store_true", help="show all columns, one row per line"
        )
    if (command.lists or command.tells_time) and command.runs:
        parser.add_argument(
            "--utc", action="store_true", help="show and read times in UTC instead of local time"
        )
    for entry in command.arguments:
        parser.add_argument(*entry.names, **entry.settings)
    if not command.below:
        return
    group = parser.add_subparsers(title="commands", metavar="COMMAND", dest="word")
    for name, (subcommand, summary) in command.below.items():
        child = group.add_parser(name, help=summary)
        child.fill = partial(_fill, child, subcommand, whole)
        if whole:
            child.filled()


def parse(root: type[Command], argv: Sequence[str], prog: str) -> Command:
    """The command that ``argv`` asks for, ready to run. Raises ``SystemExit`` for wrong use."""
    settings = Config()
    words = []
    for word in argv:
        match = _SETTING.fullmatch(word)
        if match:
            from jupyterhub_migspawner.config.traits import SECRETS

            settings.MigBroker[match[1]] = DeferredConfigString(match[2])
            if match[1] in SECRETS:
                warn_of_password(f"--MigBroker.{match[1]}", match[2])
        else:
            words.append(word)
    given, unknown = build_parser(root, prog).parse_known_args(words)
    if unknown:
        words = [repr(_PASSWORD.sub("…", word)) for word in unknown]
        given.parser.error(f"it does not take {' '.join(words)}")
    command: type[Command] = given.command
    if not command.runs:
        given.parser.error(f"say which: {', '.join(command.below)}")
    return command(given=given, settings=settings)


def warn_of_password(where: str, text: str) -> None:
    """Say on standard error that a password stands in the command's arguments, where one does."""
    if _PASSWORD.search(text):
        complain(
            f"Every user of this machine can read the password in {where} while this command runs; "
            "write it into the configuration file instead, or that of PostgreSQL into ~/.pgpass."
        )


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

USUAL_ROWS = 200
"""Rows of a listing unless ``--limit`` says otherwise."""

LIMIT = argument(
    "--limit",
    type=number_from(int, 0, "a whole number up to a million; 0 for all", 10**6),
    metavar="N",
    help=f"the newest N; 0 for all (default: {USUAL_ROWS})",
)
"""How much of a listing that may be long is shown."""
