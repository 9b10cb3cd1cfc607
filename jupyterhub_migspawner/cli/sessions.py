"""``migspawner sessions``: which are in use, when they end and why, and what keeps them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from jupyterhub_migspawner.broker.views import standing_view, stranded_view, timestamp
from jupyterhub_migspawner.cli.command import Group, answers
from jupyterhub_migspawner.cli.existence import require_user
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.options import FUTURE, UNTIL, number_of
from jupyterhub_migspawner.cli.options import by as by_option
from jupyterhub_migspawner.cli.options import reason as reason_option
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.model.leases import LOST
from jupyterhub_migspawner.policy.wording import printable

_LEASE = number_of("the lease's number in the listing")


@click.group(cls=Group, invoke_without_command=True)
@user_option("only sessions of this user")
@answers(table=True)
def sessions(invocation: Invocation, user: str | None) -> int:
    """Show which sessions are in use, by which signs, when they end and by which rule."""
    broker = invocation.broker()
    # First what is wrong.
    rows: list[dict[str, Any]] = [
        dict(stranded_view(each)) for each in broker.leases.stranded(user)
    ]
    rows += [dict(standing_view(each)) for each in broker.sessions.standings(user)]
    if not rows and user is not None:
        require_user(invocation, broker, user)
    if invocation.as_json:
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
    whose = f" of {printable(user)}" if user else ""
    print_table(columns, rows, empty=f"No session{whose} is running.")
    return DONE


@sessions.command(short_help="extend an idle session")
@_LEASE
@by_option("the session's user, or an admin")
@reason_option("stored in the event log")
@answers(times=True)
def extend(invocation: Invocation, number: int, by: str, reason: str | None) -> int:
    """Extend an idle session, up to its tier's extend_hours."""
    found = invocation.broker().sessions.extend(number, invocation.person(by), reason or "")
    until = timestamp(found.stay.extended_until)
    return invocation.answer(
        standing_view(found), f"Session {found.lease.id} is extended until {until}."
    )


@sessions.command(short_help="protect a session until a given time")
@_LEASE
@by_option("the admin who decides")
@click.option("--until", required=True, type=FUTURE, metavar="TIME", help=UNTIL)
@reason_option("stored in the event log", required=True)
@answers(times=True)
def protect(invocation: Invocation, number: int, by: str, until: datetime, reason: str) -> int:
    """Protect a session from being ended for being idle, until a given time.

    Its hard end does not change.
    """
    found = invocation.broker().sessions.protect(number, invocation.person(by), until, reason)
    end = timestamp(found.stay.protected_until)
    return invocation.answer(
        standing_view(found), f"Session {found.lease.id} is protected until {end}."
    )


@sessions.command(short_help="end a protection early")
@_LEASE
@by_option("the admin who decides")
@reason_option("stored in the event log")
@answers()
def unprotect(invocation: Invocation, number: int, by: str, reason: str | None) -> int:
    """End a protection early."""
    found = invocation.broker().sessions.protect(number, invocation.person(by), None, reason or "")
    return invocation.answer(
        standing_view(found), f"Session {found.lease.id} is no longer protected."
    )
