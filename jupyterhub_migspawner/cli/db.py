"""``migspawner db``: does the lease database have the schema this version needs; and mending it."""

from __future__ import annotations

from typing import Any

from jupyterhub_migspawner.cli.command import DONE, REFUSED, Command
from jupyterhub_migspawner.leases import migrations


class Check(Command):
    """Look at the schema."""

    name = "migspawner db check"
    description = (
        "Say which schema the lease database has and which this version needs. Changes nothing;\n"
        "exit status 1 when it does not fit."
    )

    def run(self) -> int:
        """Look and say."""
        status = migrations.check(self.mig().resolved_database_url())
        self.answer(_view(status), status.message)
        return DONE if status.current else REFUSED


class Upgrade(Command):
    """Bring the schema up to date."""

    name = "migspawner db upgrade"
    description = (
        "Create the lease database, or bring its schema up to this version, in one transaction.\n"
        "Stop the hub first, and keep a copy."
    )

    def run(self) -> int:
        """Upgrade and say where it stands."""
        status = migrations.upgrade(self.mig().resolved_database_url())
        return self.answer(_view(status), status.message)


class Database(Command):
    """The lease database."""

    name = "migspawner db"
    description = "The lease database: check and upgrade its schema."
    runs = False
    below = {
        "check": (Check, "say which schema it has and which is needed"),
        "upgrade": (Upgrade, "create it or bring it up to date"),
    }


def _view(status: migrations.Status) -> dict[str, Any]:
    return {
        "database": status.database,
        "state": status.state,
        "revision": status.revision,
        "head": status.head,
        "message": status.message,
    }
