"""Servers as processes of this machine.

``MigLocalSpawner`` starts each server as the system user of that name and needs a hub that runs as
root. ``MigSimpleSpawner`` starts all of them as the hub's own user, who can read everybody's files:
for the demo, for tests, for a laptop.

Whatever a server started is found again, after any crash, by the mark in its processes'
environment (see :mod:`...agent.vacancy`); nothing here needs a database to say whether it runs.
"""

from __future__ import annotations

import os
import pwd

from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner

from jupyterhub_migspawner.spawner.launchers.bubblewrap import Bubblewrapped


class MigLocalSpawner(Bubblewrapped, LocalProcessSpawner):  # type: ignore[misc]
    """Servers as system users on this machine, a slice each."""

    def _mig_server_uid(self) -> int | None:
        if type(self).make_preexec_fn is not LocalProcessSpawner.make_preexec_fn:
            return None  # an admin has chosen other users than those of the people's names
        try:
            return pwd.getpwnam(self.user.name).pw_uid
        except (KeyError, OSError):
            return None


class MigSimpleSpawner(
    Bubblewrapped,
    SimpleLocalProcessSpawner,  # type: ignore[misc]
):
    """Servers as the hub's own user on this machine, a slice each: for trying things out."""

    def _mig_server_uid(self) -> int | None:
        if type(self).make_preexec_fn is not SimpleLocalProcessSpawner.make_preexec_fn:
            return None
        return os.geteuid()
