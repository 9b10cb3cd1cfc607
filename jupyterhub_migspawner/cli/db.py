"""``migspawner db``: the lease database's schema, its event log, and which hub is at home where."""

from __future__ import annotations

from typing import Any

from jupyterhub_migspawner.cli.command import DONE, REFUSED, Command, argument
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


class Compact(Command):
    """Turn old events into counts."""

    name = "migspawner db compact"
    description = (
        "Turn events older than MigBroker.event_days into counts by month, person, tier, profile\n"
        "and card, as the service does every day. Leases and requests themselves stay, and so do\n"
        "the events of live leases and open requests."
    )
    arguments = (argument("--dry-run", action="store_true", help="only say how many there are"),)

    def run(self) -> int:
        """Compact, or count what would be."""
        days, dry_run = self.mig().event_days, self.option("dry_run", False)
        if not days:
            answer = {"days": 0, "compacted": 0, "kept": 0, "dry_run": dry_run}
            return self.answer(answer, "MigBroker.event_days is 0: events are kept for ever.")
        broker = self.broker()
        compacted, kept = broker.events_to_compact(days)
        if not dry_run:
            so_far = broker.begin_compaction(days)
            while not so_far.done:
                so_far = broker.compact_events(so_far)
            compacted = so_far.number
        answer = {"days": days, "compacted": compacted, "kept": kept, "dry_run": dry_run}
        what = "would become" if dry_run else "have become"
        return self.answer(
            answer,
            f"{compacted} events older than {days} days {what} counts; {kept} as old belong to "
            "live leases and open requests and stay.",
        )


class Adopt(Command):
    """Take a hub's name over."""

    name = "migspawner db adopt"
    description = (
        "Say that the hub of this configuration file is the one the lease database knows by its\n"
        "name (c.MigBroker.hub), in a new place: after a move to another machine or folder. Its\n"
        "leases and requests are this hub's from then on. Not for a second hub: that one needs a\n"
        "name of its own, or the two would end each other's servers."
    )

    def run(self) -> int:
        """Take it over and say so."""
        hub = self.broker().claim_hub(self.mig().hub_home, adopt=True)
        answer = {"hub": hub.name, "home": hub.home}
        return self.answer(answer, f"Hub {hub.name!r} is at {hub.home} now.")


class Database(Command):
    """The lease database."""

    name = "migspawner db"
    description = (
        "The lease database: check and upgrade its schema, compact its event log, move a hub."
    )
    runs = False
    below = {
        "check": (Check, "say which schema it has and which is needed"),
        "upgrade": (Upgrade, "create it or bring it up to date"),
        "compact": (Compact, "turn old events into counts"),
        "adopt": (Adopt, "say that a hub has moved here"),
    }


def _view(status: migrations.Status) -> dict[str, Any]:
    return {
        "database": status.database,
        "state": status.state,
        "revision": status.revision,
        "head": status.head,
        "message": status.message,
    }
