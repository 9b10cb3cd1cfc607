"""``migspawner sessions``: which are in use, when they end and why, and what keeps them."""

from __future__ import annotations

from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.broker.views import standing_view, timestamp
from jupyterhub_migspawner.cli.command import DONE, ID, Command, argument
from jupyterhub_migspawner.cli.output import Column, print_json, print_table
from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.cli.quotas import end as MOMENT
from jupyterhub_migspawner.policy.people import Person

_ID = argument("id", type=ID, metavar="ID", help="the lease, as the listing numbers it")


class _Change(Command):
    """What the commands share that change one session."""

    def by(self) -> Person:
        """Who does it, as far as the configuration knows."""
        return person_named(self.hub_config(), self.given.by)

    def told(self, standing: Standing, sentence: str) -> int:
        """Answer with the session as it now stands."""
        return self.answer(standing_view(standing), sentence)


class Extend(_Change):
    """Keep a session that is not in use."""

    name = "migspawner sessions extend"
    description = "Keep a session that is not in use for as long again, up to its tier's ceiling."
    arguments = (
        _ID,
        argument("--by", required=True, metavar="NAME", help="whose it is, or an admin"),
        argument("--reason", metavar="TEXT", help="kept in the event log"),
    )

    def run(self) -> int:
        """Extend it."""
        found = self.broker().extend(self.given.id, self.by(), self.option("reason", ""))
        until = timestamp(found.stay.extended_until)
        return self.told(found, f"Session {found.lease.id} is kept until {until}.")


class Protect(_Change):
    """Keep a session whatever it does."""

    name = "migspawner sessions protect"
    description = (
        "Keep a session from being ended for being idle, until a time. Its hard end stays."
    )
    arguments = (
        _ID,
        argument("--by", required=True, metavar="NAME", help="the admin who does it"),
        argument("--until", required=True, type=MOMENT, metavar="TIME", help="in UTC, or as 7d"),
        argument("--reason", required=True, metavar="TEXT", help="kept in the event log"),
    )

    def run(self) -> int:
        """Protect it."""
        given = self.given
        found = self.broker().protect(given.id, self.by(), given.until, given.reason)
        until = timestamp(found.stay.protected_until)
        return self.told(found, f"Session {found.lease.id} is protected until {until}.")


class Unprotect(_Change):
    """End a protection before its time."""

    name = "migspawner sessions unprotect"
    description = "End a protection before its time."
    arguments = (
        _ID,
        argument("--by", required=True, metavar="NAME", help="the admin who does it"),
        argument("--reason", metavar="TEXT", help="kept in the event log"),
    )

    def run(self) -> int:
        """Unprotect it."""
        broker = self.broker()
        found = broker.protect(self.given.id, self.by(), None, self.option("reason", ""))
        return self.told(found, f"Session {found.lease.id} is not protected any more.")


class Sessions(Command):
    """The sessions."""

    name = "migspawner sessions"
    description = "Which sessions are in use, what says so, when they end and by which rule."
    arguments = (argument("--user", metavar="NAME", help="only those of this user"),)
    below = {
        "extend": (Extend, "keep one that is not in use for longer"),
        "protect": (Protect, "keep one whatever it does, until a time"),
        "unprotect": (Unprotect, "end a protection before its time"),
    }

    def run(self) -> int:
        """List them."""
        rows = [standing_view(each) for each in self.broker().standings(self.option("user"))]
        if self.as_json:
            print_json(rows)
            return DONE
        for row in rows:
            row["unknown"] = row["unknown"] or None
        columns = [
            Column("id", "lease", number=True),
            Column("user", "user"),
            Column("server", "server"),
            Column("tier", "tier"),
            Column("idle since", "idle_since"),
            Column("ends", "ends_at"),
            Column("rule", "rule"),
            Column("extended", "extended_until"),
            Column("protected", "protected_until"),
            Column("unknown", "unknown"),
        ]
        print_table(columns, rows, empty="No session runs.")
        return DONE
