"""The servers of a demo: processes of this machine, never root's.

Relies on :mod:`.accounts` where root runs the hub. Promises that a server started by root runs as
an unprivileged user, one for each person, who can read neither the demo's folder nor the homes of
others. Without root all servers run as the user who started the demo.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from traitlets import List, Unicode

from jupyterhub_migspawner.cli.demo import unprivileged
from jupyterhub_migspawner.cli.demo.accounts import Account, Accounts, program_folders
from jupyterhub_migspawner.errors import MigspawnerError, Refusal
from jupyterhub_migspawner.spawner.launchers.local import MigSimpleSpawner
from jupyterhub_migspawner.spawner.refusals import spawn_exception


class DemoSpawner(MigSimpleSpawner):
    """Servers as processes of this machine, a slice each, none of them root's."""

    directory = Unicode("", help="The demo's folder.").tag(config=True)
    tools = List(Unicode(), help="Folders of the programs that servers run.").tag(config=True)

    _account: Account | None = None

    async def start(self) -> Any:
        """Start the server; where root runs the hub, as a user id that is the person's alone."""
        if os.geteuid() == 0:
            try:
                self._account = Accounts(Path(self.directory)).account(self.user.name)
            except MigspawnerError as error:
                raise spawn_exception(self.log, Refusal(str(error), reason="conflict")) from None
            self.home_dir = str(self._account.home)
        return await super().start()

    def make_preexec_fn(self, name: str) -> Callable[[], None]:
        """Return what the server's process does first: enter its home, and give up root's rights.

        It has done that before anybody can look at it: whose process it is never changes.
        """
        account = self._account
        if os.geteuid() != 0:
            prepare: Callable[[], None] = super().make_preexec_fn(name)
            return prepare
        if account is None:
            raise RuntimeError("A demo's server must not be started before its user is known.")
        needed = program_folders(self.tools)
        return lambda: unprivileged.enter(account.uid, account.home, needed)
