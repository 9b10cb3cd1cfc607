"""``migspawner queue``: the waiting list, and places in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jupyterhub_migspawner.broker.statuses import TicketStatus
from jupyterhub_migspawner.broker.views import ticket_view
from jupyterhub_migspawner.cli.command import DONE, ID, LIMIT, Command, argument
from jupyterhub_migspawner.cli.known import require_user, require_user_to_act_for
from jupyterhub_migspawner.cli.output import Column, print_json, print_table
from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.policy.wording import printable, span


class Join(Command):
    """Join the queue."""

    name = "migspawner queue join"
    description = (
        "Put a user on the waiting list, or change their ticket. When it is their turn, a free\n"
        "slice is offered to them and held for some minutes."
    )
    arguments = (
        argument("--user", required=True, metavar="NAME", help="the user's name at the hub"),
        argument("--tier", required=True, metavar="T", help="the tier to wait for"),
        argument(
            "--server", metavar="S", help="the server; without this option, the default server"
        ),
        argument(
            "--start",
            action="store_true",
            help="have the hub start the server when it is their turn",
        ),
        argument(
            "--upward",
            action="store_true",
            help="also accept any larger tier; refused if there is none",
        ),
    )

    def run(self) -> int:
        """Take it."""
        given = self.given
        broker = self.broker()
        require_user_to_act_for(self, broker, given.user)
        row = broker.join(
            person_named(self.hub_config(), given.user),
            given.tier,
            server=self.option("server", ""),
            start=self.option("start", False),
            upward=self.option("upward", False),
        )
        status = next(
            (each for each in broker.queue(row.user) if each.row.id == row.id),
            TicketStatus(row, 0, None, None),
        )
        where = f" is number {status.place}" if status.place else " has a place"
        return self.answer(
            ticket_view(status), f"Ticket {row.id}: {row.user}{where} for tier {row.tier}."
        )


class Leave(Command):
    """Leave the queue."""

    name = "migspawner queue leave"
    description = "Leave the waiting list, and give up an offer for the ticket."
    arguments = (
        argument("id", type=ID, metavar="ID", help="the ticket's number in the listing"),
        argument("--by", required=True, metavar="NAME", help="the ticket's user, or an admin"),
        argument("--reason", metavar="TEXT", help="stored with the ticket"),
    )

    def run(self) -> int:
        """Leave the waiting list."""
        by = person_named(self.hub_config(), self.given.by)
        row = self.broker().leave(self.given.id, by, self.option("reason", ""))
        return self.answer(
            ticket_view(TicketStatus(row, 0, None, None)),
            f"Ticket {row.id} of {row.user} is {row.state}.",
        )


class Queue(Command):
    """The waiting list."""

    lists = True
    name = "migspawner queue"
    description = "The waiting list: tickets, their positions and expected waits, and offers."
    arguments = (argument("--user", metavar="NAME", help="only tickets of this user"), LIMIT)
    below = {
        "join": (Join, "put a user on the waiting list"),
        "leave": (Leave, "leave the waiting list"),
    }

    def run(self) -> int:
        """List it."""
        broker, user = self.broker(), self.option("user")
        found = broker.queue(user, part=self.part())
        if not found and user is not None:
            require_user(self, broker, user)
        rows: list[dict[str, Any]] = self.shown_part([dict(ticket_view(each)) for each in found])
        rows.sort(key=lambda row: (row["place"] or 0, row["id"]))
        if self.as_json:
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
