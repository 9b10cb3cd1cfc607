"""Servers as processes of this machine.

``MigLocalSpawner`` starts each server as the system user of that name and needs a hub that runs as
root. ``MigSimpleSpawner`` starts all of them as the hub's own user, without any wall between
people: for the demo, for tests, for a laptop.

A local server is found again, after any crash, by the mark in its processes' environment (see
:mod:`..agent.vacancy`); nothing here needs a database to say whether it runs.
"""

from __future__ import annotations

from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner

from jupyterhub_migspawner.spawner import MigSpawnerMixin


class MigLocalSpawner(MigSpawnerMixin, LocalProcessSpawner):  # type: ignore[misc]
    """Servers as system users on this machine, a slice each."""


class MigSimpleSpawner(MigSpawnerMixin, SimpleLocalProcessSpawner):  # type: ignore[misc]
    """Servers as the hub's own user on this machine, a slice each: for trying things out."""
