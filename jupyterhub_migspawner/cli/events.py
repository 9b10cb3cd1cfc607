"""``migspawner events``: what changed, when, by whom and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from jupyterhub_migspawner.broker.views import event_view
from jupyterhub_migspawner.cli.command import COUNT, DONE, Command, argument, number_from
from jupyterhub_migspawner.cli.output import Column, print_json, print_table, shown
from jupyterhub_migspawner.leases.rows import EventRow

#: How much of an event's detail a table shows; JSON has all of it.
_WIDE = 100

#: Events read at once on the way to the last ones.
_PAGE = 1_000


class Events(Command):
    """The event log."""

    name = "migspawner events"
    description = "Every change of a lease, request or card, oldest first."
    arguments = (
        argument(
            "--after",
            type=number_from(int, 0, "the number of an event"),
            metavar="ID",
            help="those that follow this one, instead of the last ones",
        ),
        argument("--limit", type=COUNT, metavar="N", help="at most so many (default: 100)"),
    )

    def run(self) -> int:
        """List them."""
        rows = [event_view(event) for event in self._wanted()]
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("id", "id", number=True),
            Column("at", "at"),
            Column("kind", "kind"),
            Column("user", "user"),
            Column("lease", "lease_id", number=True),
            Column("request", "request_id", number=True),
            Column("by", "actor"),
            Column("detail", "text"),
        ]
        for row in rows:
            text = ", ".join(f"{name} {shown(value)}" for name, value in row["detail"].items())
            row["text"] = text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"
        print_table(columns, rows, empty="Nothing has happened yet.")
        return DONE

    def _wanted(self) -> Iterable[EventRow]:
        broker, limit = self.broker(), self.option("limit", 100)
        after = self.option("after")
        if after is not None:
            return broker.events(after_id=after, limit=limit)
        last: deque[EventRow] = deque(maxlen=limit)
        while page := broker.events(after_id=last[-1].id if last else 0, limit=_PAGE):
            last.extend(page)
        return last
