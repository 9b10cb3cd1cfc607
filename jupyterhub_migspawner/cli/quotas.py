"""``migspawner quotas``: what limits a person, and the exceptions that admins make."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import click

from jupyterhub_migspawner.broker.views import exception_view, quota_view, timestamp
from jupyterhub_migspawner.cli.command import Group, answers
from jupyterhub_migspawner.cli.existence import require_user, unknown_user
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.options import FUTURE, LIMIT, UNTIL, number_of
from jupyterhub_migspawner.cli.options import by as by_option
from jupyterhub_migspawner.cli.options import reason as reason_option
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import complain, print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.policy.quotas import FIELDS
from jupyterhub_migspawner.policy.wording import printable


class _Amount(click.ParamType[float]):
    """A number, or ``none`` for no limit, which commands get as infinity."""

    name = "amount"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number that the text says."""
        if value == "none":
            return math.inf
        try:
            amount = float(value)
        except ValueError:
            amount = -1.0
        if not 0 <= amount < math.inf:
            self.fail(
                f"expected a number, 0 or more, or none for no limit, found {value!r}", param, ctx
            )
        return amount


@click.group(cls=Group, invoke_without_command=True)
@user_option("show the limits of this user")
@click.option("--all", "past", is_flag=True, help="include past exceptions")
@LIMIT
@answers(table=True)
def quotas(invocation: Invocation, user: str | None, past: bool, limit: int | None) -> int:
    """Show the current exceptions from quotas.

    With --user, the limits of that user and their use, as far as the configuration file knows the
    user's groups.
    """
    if user is not None:
        return _limits(invocation, user)
    found = invocation.broker().quotas.exceptions(include_past=past, part=invocation.part(limit))
    rows: list[dict[str, Any]] = [dict(exception_view(row)) for row in found]
    rows = invocation.shown_part(rows, limit)
    if invocation.as_json:
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
    print_table(columns, rows, empty="There is no current exception from a quota.")
    return DONE


def _limits(invocation: Invocation, user: str) -> int:
    """Show what limits a user."""
    person = invocation.person(user)
    broker = invocation.broker()
    require_user(invocation, broker, user)
    rows: list[dict[str, Any]] = [dict(quota_view(each)) for each in broker.quotas.of(person)]
    if invocation.as_json:
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


@quotas.command(short_help="raise a limit of a user until a given time")
@user_option("the user's name at the hub", required=True)
@click.option(
    "--field",
    required=True,
    type=click.Choice(FIELDS),
    metavar="FIELD",
    help=f"which limit: {', '.join(FIELDS)}",
)
@click.option("--limit", required=True, type=_Amount(), metavar="N", help="the new limit, or none")
@click.option("--until", required=True, type=FUTURE, metavar="TIME", help=UNTIL)
@reason_option("stored with the exception", required=True)
@by_option("the admin who decides")
@answers(times=True)
def lift(
    invocation: Invocation,
    user: str,
    field: str,
    limit: float,
    until: datetime,
    reason: str,
    by: str,
) -> int:
    """Raise a limit of another user until a given time. Only for admins of the hub."""
    broker = invocation.broker()
    # By then the exception itself has the name.
    unknown = unknown_user(invocation, broker, user)
    amount = None if limit == math.inf else limit
    row = broker.quotas.grant_exception(user, field, amount, until, reason, invocation.person(by))
    if unknown:
        complain(unknown)
    much = "no limit" if row.amount is None else f"{row.amount:g}"
    return invocation.answer(
        exception_view(row),
        f"Exception {row.id}: {row.user} has {row.field} {much} until {timestamp(row.until)}.",
    )


@quotas.command(short_help="end an exception early")
@number_of("the exception's number in the listing")
@by_option("the admin who decides")
@reason_option("stored in the event log")
@answers()
def restore(invocation: Invocation, number: int, by: str, reason: str | None) -> int:
    """End an exception early. Servers that run because of it continue until they are stopped."""
    row = invocation.broker().quotas.end_exception(number, reason or "", invocation.person(by))
    return invocation.answer(
        exception_view(row), f"Exception {row.id} of {row.user} has ended; the quota applies again."
    )
