"""``migspawner quotas``: what limits a person, and the exceptions that admins make."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from jupyterhub_migspawner.broker.views import exception_view, quota_view, timestamp
from jupyterhub_migspawner.cli.command import DONE, ID, LIMIT, Command, argument
from jupyterhub_migspawner.cli.known import require_user, unknown_user
from jupyterhub_migspawner.cli.output import Column, complain, print_json, print_table
from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.quota import FIELDS
from jupyterhub_migspawner.policy.wording import printable

_SPAN = re.compile(r"(\d{1,4})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

TIME = "a time (2026-12-01, 2026-12-01T18:00, 2026-12-01T18:00:00Z), or how long (12h, 7d, 2w)"
"""How a time to come may be written, for the help."""


def end(text: str) -> datetime:
    """An argparse type: a time to come, perhaps without a zone, or how long from now on."""
    span = _SPAN.fullmatch(text)
    try:
        if span:
            return datetime.now(timezone.utc) + timedelta(**{_UNITS[span[2]]: int(span[1])})
        return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            "expected a time such as 2026-12-01, 2026-12-01T18:00 or 2026-12-01T18:00:00Z, or how "
            f"long such as 12h, 7d or 2w, found {text!r}"
        ) from None


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

    tells_time = True
    name = "migspawner quotas lift"
    description = "Raise a limit of another user until a given time. Only for admins of the hub."
    arguments = (
        argument("--user", required=True, metavar="NAME", help="the user's name at the hub"),
        argument(
            "--field",
            required=True,
            choices=FIELDS,
            metavar="FIELD",
            help=f"which limit: {', '.join(FIELDS)}",
        ),
        argument("--limit", required=True, type=limit, metavar="N", help="the new limit, or none"),
        argument(
            "--until",
            required=True,
            type=end,
            metavar="TIME",
            help=TIME,
        ),
        argument("--reason", required=True, metavar="TEXT", help="stored with the exception"),
        argument("--by", required=True, metavar="NAME", help="the admin who decides"),
    )

    def run(self) -> int:
        """Make it."""
        given = self.given
        broker, until = self.broker(), self.time("until")
        assert until is not None
        # By then the exception itself has the name.
        unknown = unknown_user(self, broker, given.user)
        row = broker.grant_exception(
            given.user, given.field, given.limit, until, given.reason, self.by()
        )
        if unknown:
            complain(unknown)
        much = "no limit" if row.amount is None else f"{row.amount:g}"
        return self.answer(
            exception_view(row),
            f"Exception {row.id}: {row.user} has {row.field} {much} until {timestamp(row.until)}.",
        )


class Restore(_Change):
    """End an exception."""

    name = "migspawner quotas restore"
    description = (
        "End an exception early. Servers that run because of it continue until they are stopped."
    )
    arguments = (
        argument("id", type=ID, metavar="ID", help="the exception's number in the listing"),
        argument("--by", required=True, metavar="NAME", help="the admin who decides"),
        argument("--reason", metavar="TEXT", help="stored in the event log"),
    )

    def run(self) -> int:
        """End it."""
        row = self.broker().end_exception(self.given.id, self.option("reason", ""), self.by())
        return self.answer(
            exception_view(row), f"Exception {row.id} of {row.user} is over; the quota counts."
        )


class Quotas(Command):
    """Quotas."""

    lists = True
    name = "migspawner quotas"
    description = (
        "The current exceptions from quotas; with --user, the limits of that user and their use,\n"
        "as far as the configuration file knows the user's groups."
    )
    arguments = (
        argument("--user", metavar="NAME", help="show the limits of this user"),
        argument("--all", action="store_true", help="include past exceptions"),
        LIMIT,
    )
    below = {
        "lift": (Lift, "raise a limit of a user until a given time"),
        "restore": (Restore, "end an exception early"),
    }

    def run(self) -> int:
        """List them."""
        user = self.option("user")
        return self._exceptions() if user is None else self._standing(user)

    def _exceptions(self) -> int:
        past = self.option("all", False)
        found = self.broker().exceptions(include_past=past, part=self.part())
        rows: list[dict[str, Any]] = self.shown_part([dict(exception_view(row)) for row in found])
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("id", "id", number=True),
            Column("user", "user"),
            Column("limit of", "field"),
            Column("now", "much"),
            Column("until", "until", time=True),
            Column("by", "granted_by"),
            Column("ended", "ended_at", time=True, below=True),
            Column("reason", "reason", below=True),
        ]
        for row in rows:
            row["much"] = _much(row["limit"])
        print_table(columns, rows, empty="No exception from a quota holds.")
        return DONE

    def _standing(self, user: str) -> int:
        person = person_named(self.hub_config(), user)
        broker = self.broker()
        require_user(self, broker, user)
        rows: list[dict[str, Any]] = [dict(quota_view(each)) for each in broker.quota_of(person)]
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("limit of", "field"),
            Column("limit", "much"),
            Column("used", "used", number=True),
            Column("frees", "frees_at", time=True),
            Column("lifted until", "lifted", time=True),
        ]
        for row in rows:
            row["much"] = _much(row["limit"])
            row["lifted"] = max((each["until"] for each in row["exceptions"]), default=None)
        print_table(columns, rows, empty=f"{printable(user)} has no limits.")
        return DONE


def _much(value: Any) -> str:
    return "no limit" if value is None else f"{value:g}"
