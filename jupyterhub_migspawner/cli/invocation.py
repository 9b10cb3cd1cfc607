"""One run of the program: which configuration it uses, how it answers, whom it acts for.

Relies on :mod:`.source` for the configuration and opens database and cards only when a command asks
for them, so that help and wrong use cost nothing. Promises that reading the admin's file writes
nothing on standard output.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jupyterhub_migspawner.cli.output import USUAL_WIDTH, Display, complain, print_json, print_line
from jupyterhub_migspawner.cli.times import aware
from jupyterhub_migspawner.errors import ConfigError

if TYPE_CHECKING:
    from traitlets.config import Config

    from jupyterhub_migspawner.broker import Broker
    from jupyterhub_migspawner.cli.source import Source
    from jupyterhub_migspawner.config import MigBroker
    from jupyterhub_migspawner.model.parts import Part
    from jupyterhub_migspawner.policy.people import Person

DONE = 0
REFUSED = 1
WRONG_USE = 2

#: Where the admin's file is looked for when ``--config`` does not name it.
CONFIG_FILES = (Path("jupyterhub_config.py"), Path("/etc/jupyterhub/jupyterhub_config.py"))

USUAL_ROWS = 200
"""Rows of a listing unless ``--limit`` says otherwise."""

T = TypeVar("T")


@dataclass
class Invocation:
    """What a command is called with besides its own options and arguments.

    ``settings`` are those of the command line (``--MigBroker.NAME=VALUE``), by name.
    ``needs_tiers`` is False for a command that is of use before the admin has written any tier,
    ``notes_source`` for one that says in its answer where its settings come from.
    """

    settings: dict[str, str] = field(default_factory=dict)
    config: str | None = None
    verbose: bool = False
    as_json: bool = False
    wide: bool = False
    utc: bool = False
    needs_tiers: bool = True
    notes_source: bool = True
    _source: Source | None = None
    _mig: MigBroker | None = None

    @property
    def zone(self) -> tzinfo | None:
        """The zone in which times are shown and read: UTC with ``--utc``, else the local one."""
        return timezone.utc if self.utc else None

    def display(self) -> Display:
        """Return how answers are shown: on the terminal's width, at least that of listings."""
        width = max(USUAL_WIDTH, shutil.get_terminal_size((USUAL_WIDTH, 24)).columns)
        return Display(None if self.wide else width, self.zone)

    def time(self, typed: datetime) -> datetime:
        """Return a time that was typed in UTC; without a zone it is in :attr:`zone`."""
        return aware(typed, self.zone)

    def known_as(self, name: str) -> str:
        """Return the hub's name of a person: it normalizes what people type at login."""
        return self.mig().known_as(name)

    def person(self, name: str) -> Person:
        """Return the person of that name, with the groups and rights of the configuration."""
        from jupyterhub_migspawner.cli.people import person_named

        return person_named(self.hub_config(), name)

    def config_path(self) -> Path:
        """Return the configuration file to use. Raises :exc:`ConfigError` when there is none."""
        if self.config is not None:
            return Path(self.config)
        for candidate in CONFIG_FILES:
            if _is_there(candidate):
                return candidate
        here, etc = (candidate.absolute() for candidate in CONFIG_FILES)
        raise ConfigError(
            f"There is no configuration file: neither {here} nor {etc} exists. "
            "Name one with --config FILE, or run `migspawner demo` for a hub to try."
        )

    def hub_config(self) -> Config:
        """Return the whole configuration, settings of the command line included."""
        return self.source().config

    def source(self) -> Source:
        """Return the configuration and where it comes from.

        Says so on standard error where the file alone may give other settings.
        """
        if self._source is None:
            from traitlets.config import Config
            from traitlets.config.loader import DeferredConfigString

            from jupyterhub_migspawner.cli.source import find

            self._source = source = find(self.config_path())
            given = Config()
            for name, text in self.settings.items():
                given.MigBroker[name] = DeferredConfigString(text)
            source.config.merge(given)
            if self.notes_source:
                self._note(source)
        return self._source

    def _note(self, source: Source) -> None:
        if source.problem:
            complain(source.problem)
        if self.verbose or (source.hub_alone and not self.as_json):
            complain(source.described)

    def mig(self) -> MigBroker:
        """Return the project's own part of the configuration; one object for the whole run."""
        if self._mig is None:
            from jupyterhub_migspawner.config import MigBroker
            from jupyterhub_migspawner.db.backup_files import was_lost

            self._mig = mig = MigBroker(config=self.hub_config())
            mig.may_create = not was_lost(mig.resolved_database_url())
            # A node may have none: the hub decides by them.
            mig.tiers_needed = self.needs_tiers and has_hub()
        return self._mig

    def broker(self) -> Broker:
        """Return the broker over the lease database that the configuration names."""
        broker = self.mig().open_broker()
        # A user who may use the command line on the lease database has no limit to get around.
        broker.context.settings = replace(broker.settings, actions_per_minute=0)
        return broker

    def part(self, limit: int | None) -> Part | None:
        """Return the part of a listing that ``--limit`` asks for, and one row more; None for all.

        ``limit`` is a number of rows: None for :data:`USUAL_ROWS`, 0 for all.
        """
        from jupyterhub_migspawner.model.parts import Part

        limit = USUAL_ROWS if limit is None else limit
        return Part(limit).and_one_more if limit else None

    def shown_part(self, rows: list[T], limit: int | None) -> list[T]:
        """Return the rows of :meth:`part` to show; warn on standard error where there are more."""
        part = self.part(limit)
        if part is None or len(rows) < part.limit:
            return rows
        complain(f"The newest {part.limit - 1} are shown; --limit 0 shows all of them.")
        return rows[1 - part.limit :] if part.limit > 1 else []

    def answer(self, value: Mapping[str, Any], sentence: str) -> int:
        """Print ``value`` with ``--json``, else ``sentence``; return the exit status."""
        if self.as_json:
            print_json(value)
        else:
            print_line(sentence)
        return DONE


def has_hub() -> bool:
    """Tell whether JupyterHub is installed here; without it, this machine can only be a node."""
    return importlib.util.find_spec("jupyterhub") is not None


def operator() -> str:
    """Return who is at the command line, for the event log."""
    import getpass

    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):  # a uid without a name, as in a container
        return "command line"


def _is_there(path: Path) -> bool:
    """Tell whether something has this name; what cannot be looked at counts, and is named later."""
    try:
        return path.exists() or path.is_symlink()
    except OSError:
        return True
