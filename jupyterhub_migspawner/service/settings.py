"""Where the service and its agent have their configuration from: the hub that started them.

Relies on :mod:`..config.handover`. Promises that a service which ``setup(c)`` made uses what its
hub read, and nothing else; one whose entry the admin wrote uses it as well where the hub offers it,
and reads the file where not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from traitlets.config import Config

from jupyterhub_migspawner.config.file import home_of, load_config_file, readable
from jupyterhub_migspawner.config.handover import SETTINGS, Answer, Outcome, ask, ask_running
from jupyterhub_migspawner.config.resolved import BROKER, of_document

#: The sections whose objects the service uses: functions of the broker, handlers of events, and
#: what the hub's templates are filled with.
SECTIONS = (BROKER, "EventLogger", "JupyterHub")


class HubGone(Exception):
    """The hub that started this service does not live any more."""


@dataclass(frozen=True)
class Settings:
    """The configuration, and the document it came in; empty where the file was read."""

    config: Config
    document: bytes = b""


def settings(config_file: str, environ: Mapping[str, str], hub: int) -> Settings:
    """Return what the hub (its pid) read. Raises :exc:`.ConfigError` and :exc:`HubGone`."""
    name = environ.get(SETTINGS)
    for answer in _answers(name, config_file):
        if answer.outcome is Outcome.GIVEN and answer.pid == hub:
            return Settings(of_document(answer.document, SECTIONS), answer.document)
    if name:
        raise HubGone
    return Settings(load_config_file(config_file))


def _answers(name: str | None, config_file: str) -> Iterator[Answer]:
    believe = (os.geteuid(), 0)
    if not name:
        yield from ask_running(home_of(readable(config_file)), believe)
        return
    try:
        yield ask(name, believe)
    except OSError:
        return
