"""Commands of the admin, as they are written in the configuration."""

from __future__ import annotations

import shlex

from jupyterhub_migspawner.errors import ConfigError

Command = tuple[str, ...]
"""A program and its arguments; no shell looks at them."""


def parse_commands(name: str, raw: object) -> tuple[Command, ...]:
    """Return commands as the admin wrote them: texts, split as a shell would, or lists of words.

    Raises :exc:`.ConfigError` that names the setting and the command.
    """
    if not isinstance(raw, (list, tuple)):
        raise ConfigError(f"MigBroker.{name} is {raw!r}; expected a list of commands.")
    commands = []
    for number, entry in enumerate(raw, start=1):
        try:
            words = shlex.split(entry) if isinstance(entry, str) else entry
        except ValueError as error:
            raise ConfigError(
                f"MigBroker.{name}: command number {number} is {entry!r}: {error}."
            ) from None
        if (
            not isinstance(words, (list, tuple))
            or not words
            or not all(isinstance(word, str) and word and "\0" not in word for word in words)
        ):
            raise ConfigError(
                f"MigBroker.{name}: command number {number} is {entry!r}; expected a command such "
                "as 'systemctl stop nvidia-dcgm', or a list of its words."
            )
        commands.append(tuple(words))
    return tuple(commands)
