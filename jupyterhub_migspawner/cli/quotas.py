"""``migspawner quotas``: what limits a person, and the exceptions that admins make."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from jupyterhub_migspawner.broker.views import exception_view, quota_view, timestamp
from jupyterhub_migspawner.cli.command import DONE, ID, Command, argument
from jupyterhub_migspawner.cli.output import Column, print_json, print_table
from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.quota import FIELDS

_SPAN = re.compile(r"(\d{1,4})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def end(text: str) -> datetime:
    """An argparse type: a time in UTC to come, or how long from now on."""
    span = _SPAN.fullmatch(text)
    try:
        if span:
            return datetime.now(timezone.utc) + timedelta(**{_UNITS[span[2]]: int(span[1])})
        found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "expected a time in UTC such as 2026-12-01 or 2026-12-01T18:00:00Z, or how long such "
            f"as 12h, 7d or 2w, found {text!r}"
        ) from None
    return found.replace(tzinfo=found.tzinfo or timezone.utc)


def limit(text: str) -> float | None:
    """An argparse type: a number, or ``none`` for no limit."""
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0 or value == float("inf"):
        raise argparse.ArgumentTypeError(
            f"expected a number from 0 on, or none for no limit, found {text!r}"
        )
    return value


class _Change(Command):
    """What the commands share that change one exception."""

    def by(self) -> Person:
        """Who does it, as far as the configuration knows them."""
        return person_named(self.hub_config(), self.given.by)


class Lift(_Change):
    """Make an exception."""

    name = "migspawner quotas lift"
    description = (
        "Let a user have more than their quota until a time. Only for admins of the hub, and not\n"
        "for themselves."
    )
    arguments = (
        argument("--user", required=True, metavar="NAME", help="for whom: the name at the hub"),
        argument("--field", required=True, choices=FIELDS, help="which limit"),
        argument(
            "--limit", required=True, type=limit, metavar="N", help="how much instead, or none"
        ),
        argument(
            "--until",
            required=True,
            type=end,
            metavar="TIME",
            help="a time in UTC (2026-12-01, 2026-12-01T18:00:00Z), or how long (12h, 7d, 2w)",
        ),
        argument("--reason", required=True, metavar="TEXT", help="kept with it"),
        argument("--by", required=True, metavar="NAME", help="which admin does it"),
    )

    def run(self) -> int:
        """Make it."""
        given = self.given
        row = self.broker().grant_exception(
            given.user, given.field, given.limit, given.until, given.reason, self.by()
        )
        much = "no limit" if row.amount is None else f"{row.amount:g}"
        return self.answer(
            exception_view(row),
            f"Exception {row.id}: {row.user} has {row.field} {much} until {timestamp(row.until)}.",
        )


class Restore(_Change):
    """End an exception."""

    name = "migspawner quotas restore"
    description = "End an exception before its time. What is held on it stays until it is stopped."
    arguments = (
        argument("id", type=ID, metavar="ID", help="the exception, as the listing numbers it"),
        argument("--by", required=True, metavar="NAME", help="which admin does it"),
        argument("--reason", metavar="TEXT", help="kept in the event log"),
    )

    def run(self) -> int:
        """End it."""
        row = self.broker().end_exception(self.given.id, self.option("reason", ""), self.by())
        return self.answer(
            exception_view(row), f"Exception {row.id} of {row.user} is over; the quota counts."
        )


class Quotas(Command):
    """Quotas."""

    name = "migspawner quotas"
    description = (
        "The exceptions from quotas that hold now; with --user what limits that user and how much\n"
        "of it is used, as far as the configuration file knows their groups."
    )
    arguments = (
        argument("--user", metavar="NAME", help="what limits this user"),
        argument("--all", action="store_true", help="past exceptions too"),
    )
    below = {
        "lift": (Lift, "let a user have more until a time"),
        "restore": (Restore, "end an exception before its time"),
    }

    def run(self) -> int:
        """List them."""
        user = self.option("user")
        return self._exceptions() if user is None else self._standing(user)

    def _exceptions(self) -> int:
        past = self.option("all", False)
        rows = [exception_view(row) for row in self.broker().exceptions(include_past=past)]
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("id", "id", number=True),
            Column("user", "user"),
            Column("limit of", "field"),
            Column("now", "much"),
            Column("until", "until"),
            Column("by", "granted_by"),
            Column("ended", "ended_at"),
            Column("reason", "reason"),
        ]
        for row in rows:
            row["much"] = _much(row["limit"])
        print_table(columns, rows, empty="No exception from a quota holds.")
        return DONE

    def _standing(self, user: str) -> int:
        person = person_named(self.hub_config(), user)
        rows = [quota_view(each) for each in self.broker().quota_of(person)]
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("limit of", "field"),
            Column("limit", "much"),
            Column("used", "used", number=True),
            Column("frees", "frees_at"),
            Column("lifted until", "lifted"),
        ]
        for row in rows:
            row["much"] = _much(row["limit"])
            row["lifted"] = max((each["until"] for each in row["exceptions"]), default=None)
        print_table(columns, rows, empty=f"Nothing limits {user}.")
        return DONE


def _much(value: Any) -> str:
    return "no limit" if value is None else f"{value:g}"
