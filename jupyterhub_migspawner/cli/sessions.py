"""``migspawner sessions``: which are in use, when they end and why, and what keeps them."""

from __future__ import annotations

from typing import Any

from jupyterhub_migspawner.broker.statuses import Standing
from jupyterhub_migspawner.broker.views import standing_view, stranded_view, timestamp
from jupyterhub_migspawner.cli.command import DONE, ID, Command, argument
from jupyterhub_migspawner.cli.known import require_user
from jupyterhub_migspawner.cli.output import Column, print_json, print_table
from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.cli.quotas import TIME
from jupyterhub_migspawner.cli.quotas import end as MOMENT
from jupyterhub_migspawner.model.leases import LOST
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.wording import printable

_ID = argument("id", type=ID, metavar="ID", help="the lease's number in the listing")


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

    tells_time = True
    name = "migspawner sessions extend"
    description = "Extend an idle session, up to its tier's extend_hours."
    arguments = (
        _ID,
        argument("--by", required=True, metavar="NAME", help="the session's user, or an admin"),
        argument("--reason", metavar="TEXT", help="stored in the event log"),
    )

    def run(self) -> int:
        """Extend it."""
        found = self.broker().extend(self.given.id, self.by(), self.option("reason", ""))
        until = timestamp(found.stay.extended_until)
        return self.told(found, f"Session {found.lease.id} is kept until {until}.")


class Protect(_Change):
    """Keep a session whatever it does."""

    tells_time = True
    name = "migspawner sessions protect"
    description = (
        "Protect a session from being ended for being idle, until a given time. Its hard end "
        "does not change."
    )
    arguments = (
        _ID,
        argument("--by", required=True, metavar="NAME", help="the admin who decides"),
        argument("--until", required=True, type=MOMENT, metavar="TIME", help=TIME),
        argument("--reason", required=True, metavar="TEXT", help="stored in the event log"),
    )

    def run(self) -> int:
        """Protect it."""
        given = self.given
        found = self.broker().protect(given.id, self.by(), self.time("until"), given.reason)
        until = timestamp(found.stay.protected_until)
        return self.told(found, f"Session {found.lease.id} is protected until {until}.")


class Unprotect(_Change):
    """End a protection early."""

    name = "migspawner sessions unprotect"
    description = "End a protection early."
    arguments = (
        _ID,
        argument("--by", required=True, metavar="NAME", help="the admin who decides"),
        argument("--reason", metavar="TEXT", help="stored in the event log"),
    )

    def run(self) -> int:
        """Unprotect it."""
        broker = self.broker()
        found = broker.protect(self.given.id, self.by(), None, self.option("reason", ""))
        return self.told(found, f"Session {found.lease.id} is not protected any more.")


class Sessions(Command):
    """The sessions."""

    lists = True
    name = "migspawner sessions"
    description = "Which sessions are in use, by which signs, when they end and by which rule."
    arguments = (argument("--user", metavar="NAME", help="only sessions of this user"),)
    below = {
        "extend": (Extend, "extend an idle session"),
        "protect": (Protect, "protect a session until a given time"),
        "unprotect": (Unprotect, "end a protection early"),
    }

    def run(self) -> int:
        """List them."""
        broker, user = self.broker(), self.option("user")
        # First what is wrong.
        rows: list[dict[str, Any]] = [dict(stranded_view(each)) for each in broker.stranded(user)]
        rows += [dict(standing_view(each)) for each in broker.standings(user)]
        if not rows and user is not None:
            require_user(self, broker, user)
        if self.as_json:
            print_json(rows)
            return DONE
        for row in rows:
            row["unknown"] = None if row["new"] else row["unknown"] or None
            doubt = row["doubt"]
            kind = doubt and ("GPU lost" if doubt["kind"] == LOST else doubt["kind"])
            row["look"] = doubt and f"{kind} since {doubt['since']}"
        columns = [
            Column("id", "lease", number=True),
            Column("user", "user"),
            Column("server", "server"),
            Column("tier", "tier"),
            Column("idle since", "idle_since", time=True),
            Column("ends", "ends_at", time=True),
            Column("rule", "rule"),
            Column("extended until", "extended_until", time=True, below=True),
            Column("protected until", "protected_until", time=True, below=True),
            Column("protected because", "protected_why", below=True),
            Column("unknown", "unknown", below=True),
            Column("look at", "look", below=True),
        ]
        print_table(
            columns, rows, empty=f"No session{f' of {printable(user)}' if user else ''} is running."
        )
        return DONE
