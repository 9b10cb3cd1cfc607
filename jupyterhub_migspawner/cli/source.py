"""Where a command has its configuration from: the hub that runs, or else the file.

Relies on :mod:`..handover`. Promises that a command uses what the running hub read wherever it may,
that it says so where the file alone could give something else, and that it never does what another
user says: a hub is believed only if its user could change the configuration file anyway.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from traitlets.config import Config

from jupyterhub_migspawner.config.file import expanded, home_of, load_config_file
from jupyterhub_migspawner.config.handover import Answer, Outcome, ask_running
from jupyterhub_migspawner.config.resolved import Resolved
from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.wording import listed, moment


@dataclass(frozen=True)
class Source:
    """A configuration and where it comes from; ``hub`` is None where the file was read.

    ``problem`` is why a hub that runs was not asked, or what has changed since it read the file;
    empty where there is nothing of the kind.
    """

    file: Path
    config: Config
    hub: Resolved | None = None
    problem: str = ""

    @property
    def described(self) -> str:
        """Where the settings come from, in a sentence."""
        if self.hub is None:
            return f"The settings are read from {self.file}; no running hub provided its settings."
        return (
            f"The settings are those of the running hub (pid {self.hub.pid}): it read them "
            f"{_at(self.hub)} from {listed(self._parts())}."
        )

    @property
    def hub_alone(self) -> bool:
        """Whether the hub may know something that the file alone does not say."""
        return self.hub is not None and bool(self.hub.overrides or self.hub.variables)

    def _parts(self) -> list[str]:
        assert self.hub is not None
        parts = [self.hub.file]
        if self.hub.overrides:
            parts.append(f"its command line ({', '.join(self.hub.overrides)})")
        if self.hub.variables:
            parts.append(f"its environment ({', '.join(self.hub.variables)})")
        return parts


def find(path: Path) -> Source:
    """Return the configuration to use. Raises :exc:`.ConfigError`."""
    file = expanded(str(path)).absolute()
    problem = ""
    try:
        home = home_of(file)
    except (OSError, RuntimeError, ValueError):
        return Source(file, read_quietly(path))  # it says what is wrong with the path
    # Of several hubs with one file, such as one that only makes certificates, the oldest counts.
    hubs = []
    for answer in ask_running(home, _believed(file)):
        if answer.outcome is Outcome.GIVEN:
            try:
                hubs.append(Resolved.from_bytes(answer.document))
                continue
            except ValueError:
                why = "it is of another version than this program; restart the hub"
        else:
            why = _why_not(answer, file)
        problem = (
            f"A hub runs with {file} (pid {answer.pid}), but its settings cannot be used: {why}. "
            "The configuration file is read instead."
        )
    if not hubs:
        return Source(file, read_quietly(path), None, problem)
    hub = min(hubs, key=lambda each: each.read_at)
    with contextlib.redirect_stdout(sys.stderr):
        config = hub.config()
    for name, value in hub.ways.items():
        os.environ.setdefault(name, value)
    return Source(file, config, hub, _since(hub))


def read_quietly(path: Path) -> Config:
    """Read the configuration file; what it prints goes to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        return load_config_file(path)


def problem_with_file(source: Source) -> ConfigError | None:
    """Explain why the configuration file cannot be read, although the hub's settings are used."""
    try:
        read_quietly(source.file)
    except ConfigError as error:
        return error
    return None


def _believed(file: Path) -> frozenset[int]:
    """Return whose settings are used: this user's and root's, and those of the file's owner.

    Who owns the file could have any command run in it.
    """
    try:
        owner = {file.stat().st_uid}
    except OSError:
        owner = set()
    return frozenset({os.geteuid(), 0, *owner})


def _why_not(answer: Answer, file: Path) -> str:
    user = _user(answer.uid)
    run_as = f"run this as {user}, such as with `sudo -u {shlex.quote(user)} migspawner …`"
    if answer.outcome is Outcome.SILENT:
        return "it does not answer"
    if answer.outcome is Outcome.REFUSED:
        return f"it gives them to its own user and to root only; {run_as}"
    return f"it runs as {user}, to whom {file} does not belong; {run_as}"


def _since(hub: Resolved) -> str:
    changed = hub.changed()
    if not changed:
        return ""
    have = "has" if len(changed) == 1 else "have"
    gone = [path for path in changed if not os.access(path, os.R_OK)]
    why = f" ({listed(gone)} cannot be read here any more)" if gone else ""
    return (
        f"{listed(changed)} {have} changed since the hub (pid {hub.pid}) read the configuration "
        f"{_at(hub)}{why}. This command uses what the hub read, like all parts of the broker; "
        "the file is used when the hub is restarted."
    )


def _at(hub: Resolved) -> str:
    return f"on {moment(hub.read_at)}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"
