"""``migspawner db``: the lease database: sound, current, backed up; which hub is at home where."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.cli.command import (
    DONE,
    REFUSED,
    Command,
    argument,
    warn_of_password,
)
from jupyterhub_migspawner.db import backups, migrations, soundness, urls
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.policy.wording import plural

#: What to do about a database that is not sound.
NOT_SOUND = (
    "Stop the hub and put a backup in its place: `migspawner db restore FILE`; what is there now "
    "is kept beside it."
)


class Check(Command):
    """Check whether it is sound."""

    name = "migspawner db check"
    description = (
        "Show the schema version of the lease database and the one that this version needs, and\n"
        "check that the database is sound: pages and keys (SQLite), indexes (PostgreSQL with the\n"
        "extension amcheck), tables, and that nothing is held twice. Changes nothing. Exit status\n"
        "1 if there is a problem."
    )

    def run(self) -> int:
        """Look and say."""
        url = self.mig().resolved_database_url()
        try:
            status = migrations.check(url)
        except DatabaseError as error:
            return self._damaged(url, str(error))
        problems = soundness.problems(url) if status.current else ()
        message = " ".join([status.message, *problems, *([NOT_SOUND] if problems else [])])
        self.answer({**_view(status), "message": message, "problems": list(problems)}, message)
        return DONE if status.current and not problems else REFUSED

    def _damaged(self, url: str, message: str) -> int:
        """Say what is known of one that cannot even be opened."""
        parsed = urls.parse(url)
        file = urls.file_of(parsed)
        problems = [message]
        if file is not None and file.exists():
            problems += soundness.damage(file)
        answer = {
            "database": urls.shown(parsed),
            "state": "unreadable",
            "revision": None,
            "head": migrations.HEAD,
            "message": " ".join(problems),
            "problems": problems,
        }
        self.answer(answer, " ".join(problems))
        return REFUSED


class Upgrade(Command):
    """Bring the schema up to date."""

    name = "migspawner db upgrade"
    description = (
        "Create the lease database, or upgrade its schema to this version, in one transaction.\n"
        "Then erase deleted data from its files. Stop the hub first, and keep a copy:\n"
        "`migspawner db backup FILE`."
    )

    def run(self) -> int:
        """Upgrade and say where it stands."""
        url = self.mig().resolved_database_url()
        was_current = migrations.check(url).current
        status = migrations.upgrade(url)
        if was_current:
            # An upgrade before this one may have ended before it had erased what it removed.
            migrations.erase(url)
        return self.answer(_view(status), status.message)


_FILE = argument("file", metavar="FILE")


class Backup(Command):
    """Keep a copy."""

    name = "migspawner db backup"
    description = (
        "Write a copy of the lease database into a new file, while the hub runs. The copy is a\n"
        "checked SQLite file, also of a PostgreSQL database, that only its owner can read. It\n"
        "shows who worked when: keep it as safe as the database."
    )
    arguments = (_FILE,)

    def run(self) -> int:
        """Copy it and say so."""
        file = Path(os.path.expanduser(self.given.file)).absolute()
        url = self.mig().resolved_database_url()
        backups.back_up(url, file)
        answer = {"database": urls.shown(urls.parse(url)), "file": str(file)}
        return self.answer(answer, f"The lease database {answer['database']} is copied to {file}.")


class Restore(Command):
    """Put a copy back."""

    name = "migspawner db restore"
    description = (
        "Replace the lease database with a backup. Stop the hub first; servers keep running. The\n"
        "previous database is kept beside it, damaged or not. Servers that were started after the\n"
        "backup have no lease in it: start the hub, then run `migspawner leases adopt`."
    )
    arguments = (_FILE,)

    def run(self) -> int:
        """Restore it and say what comes next."""
        file = Path(os.path.expanduser(self.given.file)).absolute()
        url = self.mig().resolved_database_url()
        kept = backups.restore(url, file)
        answer = {"database": urls.shown(urls.parse(url)), "file": str(file), "kept": kept}
        before = f" What was there before is in {kept}." if kept else ""
        return self.answer(
            answer,
            f"The lease database {answer['database']} is restored from {file}.{before} Start the "
            "hub now. Slices of servers that this backup does not know are quarantined; "
            "`migspawner leases adopt` gives those servers leases again.",
        )


class Copy(Command):
    """Move to another database."""

    name = "migspawner db copy"
    description = (
        "Copy the lease database into an empty one, from SQLite to PostgreSQL or back. Stop the\n"
        "hub first; then set c.MigBroker.database_url to the new one and start the hub. Servers\n"
        "keep running. Put the password into ~/.pgpass: others can read what you type here."
    )
    arguments = (
        argument("url", metavar="URL", help="the new database, as in c.MigBroker.database_url"),
    )

    def run(self) -> int:
        """Copy it and say what comes next."""
        warn_of_password("URL", self.given.url)
        url = self.mig().resolved_database_url()
        backups.copy(url, self.given.url)
        shown = urls.shown(urls.parse(self.given.url))
        answer = {"database": urls.shown(urls.parse(url)), "to": shown}
        return self.answer(
            answer,
            f"The lease database {answer['database']} is copied to {shown}. Put that into "
            "c.MigBroker.database_url, start the hub, and move the old one away.",
        )


class Compact(Command):
    """Turn old events into counts."""

    name = "migspawner db compact"
    description = (
        "Replace events older than MigBroker.event_days with counts by month, person, tier,\n"
        "profile and card, as the service does every day. Leases and requests themselves are\n"
        "kept, and so are the events of live leases and open requests."
    )
    arguments = (argument("--dry-run", action="store_true", help="only show how many there are"),)

    def run(self) -> int:
        """Compact, or count what would be."""
        days, dry_run = self.mig().event_days, self.option("dry_run", False)
        if not days:
            answer = {"days": 0, "compacted": 0, "kept": 0, "dry_run": dry_run}
            return self.answer(answer, "MigBroker.event_days is 0: events are kept forever.")
        broker = self.broker()
        compacted, kept = broker.events_to_compact(days)
        if not dry_run:
            so_far = broker.begin_compaction(days)
            while not so_far.done:
                so_far = broker.compact_events(so_far)
            compacted = so_far.number
        answer = {"days": days, "compacted": compacted, "kept": kept, "dry_run": dry_run}
        what = "would become" if dry_run else "has become" if compacted == 1 else "have become"
        return self.answer(
            answer,
            f"{plural(compacted, 'event')} older than {plural(days, 'day')} {what} counts; "
            f"{plural(kept, 'event')} of live leases and open requests "
            f"{'stays' if kept == 1 else 'stay'}.",
        )


class Adopt(Command):
    """Take a hub's name over."""

    name = "migspawner db adopt"
    description = (
        "Confirm that the hub of this configuration file is the hub with this name\n"
        "(c.MigBroker.hub) in the lease database, after a move to another machine or folder. Its\n"
        "leases and requests then belong to this hub. Do not use this for a second hub: it needs\n"
        "a different name, or the two would end each other's servers."
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
        "The lease database: check, upgrade, back up, restore, copy and compact it; move a hub."
    )
    runs = False
    below = {
        "check": (Check, "check that it is sound and current"),
        "upgrade": (Upgrade, "create or upgrade it"),
        "backup": (Backup, "copy it into a new file"),
        "restore": (Restore, "replace it with a backup"),
        "copy": (Copy, "copy it from SQLite to PostgreSQL or back"),
        "compact": (Compact, "replace old events with counts"),
        "adopt": (Adopt, "confirm that a hub has moved here"),
    }


def _view(status: migrations.Status) -> dict[str, Any]:
    return {
        "database": status.database,
        "state": status.state,
        "revision": status.revision,
        "head": status.head,
        "message": status.message,
    }
