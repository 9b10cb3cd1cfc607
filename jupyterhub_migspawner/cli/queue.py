"""``migspawner queue``: the waiting list, and places in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click

from jupyterhub_migspawner.broker.statuses import TicketStatus
from jupyterhub_migspawner.broker.views import ticket_view
from jupyterhub_migspawner.cli.command import Group, answers
from jupyterhub_migspawner.cli.existence import require_user, require_user_to_act_for
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.options import LIMIT, number_of
from jupyterhub_migspawner.cli.options import by as by_option
from jupyterhub_migspawner.cli.options import reason as reason_option
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.policy.wording import printable, span


@click.group(cls=Group, invoke_without_command=True)
@user_option("only tickets of this user")
@LIMIT
@answers(table=True)
def queue(invocation: Invocation, user: str | None, limit: int | None) -> int:
    """Show the waiting list: tickets, their positions and expected waits, and offers."""
    broker = invocation.broker()
    found = broker.queue.status(user, part=invocation.part(limit))
    if not found and user is not None:
        require_user(invocation, broker, user)
    rows: list[dict[str, Any]] = [dict(ticket_view(status)) for status in found]
    rows = invocation.shown_part(rows, limit)
    rows.sort(key=lambda row: (row["place"] or 0, row["id"]))
    if invocation.as_json:
        print_json(rows)
        return DONE
    columns = [
        Column("id", "id", number=True),
        Column("place", "place", number=True),
        Column("user", "user"),
        Column("tier", "tier"),
        Column("server", "server"),
        Column("state", "state"),
        Column("since", "since", time=True),
        Column("likely wait", "likely"),
        Column("held until", "offer_until", time=True, below=True),
        Column("blocked", "blocked", below=True),
    ]
    for row in rows:
        row["likely"] = _likely(row["wait"])
    empty = "The waiting list is empty."
    if user is not None:
        empty = f"{printable(user)} is not in the waiting list."
    print_table(columns, rows, empty=empty)
    return DONE


def _likely(wait: dict[str, Any] | None) -> str:
    if wait is None or wait["likely"] is None:
        return ""
    return f"{span(timedelta(seconds=wait['likely']))} ({wait['confidence']})"


@queue.command(short_help="put a user on the waiting list")
@user_option("the user's name at the hub", required=True)
@click.option("--tier", required=True, metavar="T", help="the tier to wait for")
@click.option("--server", metavar="S", help="the server; without this option, the default server")
@click.option("--start", is_flag=True, help="have the hub start the server when it is their turn")
@click.option(
    "--upward", is_flag=True, help="also accept any larger tier; refused if there is none"
)
@answers()
def join(
    invocation: Invocation, user: str, tier: str, server: str | None, start: bool, upward: bool
) -> int:
    """Put a user on the waiting list, or change their ticket.

    When it is their turn, a free slice is offered to them and held for some minutes.
    """
    broker = invocation.broker()
    require_user_to_act_for(invocation, broker, user)
    row = broker.queue.join(
        invocation.person(user), tier, server=server or "", start=start, upward=upward
    )
    status = next(
        (each for each in broker.queue.status(row.user) if each.row.id == row.id),
        TicketStatus(row, 0, None, None),
    )
    where = f" is number {status.place}" if status.place else " has a place"
    return invocation.answer(
        ticket_view(status), f"Ticket {row.id}: {row.user}{where} for tier {row.tier}."
    )


@queue.command(short_help="leave the waiting list")
@number_of("the ticket's number in the listing")
@by_option("the ticket's user, or an admin")
@reason_option("stored with the ticket")
@answers()
def leave(invocation: Invocation, number: int, by: str, reason: str | None) -> int:
    """Leave the waiting list, and give up an offer for the ticket."""
    row = invocation.broker().queue.leave(number, invocation.person(by), reason or "")
    return invocation.answer(
        ticket_view(TicketStatus(row, 0, None, None)),
        f"Ticket {row.id} of {row.user} is {row.state}.",
    )
