"""``migspawner leases`` and ``migspawner leases release``: who holds what, and ending it."""

from __future__ import annotations

import getpass

from jupyterhub_migspawner.broker.views import lease_view
from jupyterhub_migspawner.cli.command import DONE, ID, Command, argument
from jupyterhub_migspawner.cli.output import Column, print_json, print_table


def operator() -> str:
    """Who is at the command line, for the event log."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):  # a uid without a name, as in a container
        return "command line"


class Release(Command):
    """End one lease."""

    name = "migspawner leases release"
    description = (
        "End a lease: its slice is given to nobody else until it is proven empty. What the server\n"
        "still runs on it is ended."
    )
    arguments = (
        argument("id", type=ID, metavar="ID", help="the lease, as `migspawner leases` numbers it"),
        argument("--reason", metavar="TEXT", help="kept with the lease and in the event log"),
    )

    def run(self) -> int:
        """Start the release and say so."""
        reason = self.option("reason", "ended by an administrator")
        lease = self.broker().release_lease(self.given.id, reason, operator())
        return self.answer(
            lease_view(lease),
            f"Lease {lease.id} of {lease.user} is {lease.state}: its slice is free again as soon "
            "as it is proven empty.",
        )


class Leases(Command):
    """The leases."""

    name = "migspawner leases"
    description = "Who holds which slice, since when and until when."
    arguments = (
        argument("--all", action="store_true", help="past leases too"),
        argument("--user", metavar="NAME", help="only those of this user"),
    )
    below = {"release": (Release, "end one lease")}

    def run(self) -> int:
        """List them."""
        rows = [
            lease_view(lease)
            for lease in self.broker().leases(
                include_past=self.option("all", False), user=self.option("user")
            )
        ]
        if self.as_json:
            print_json(rows)
            return DONE
        columns = [
            Column("id", "id", number=True),
            Column("user", "user"),
            Column("server", "server"),
            Column("tier", "tier"),
            Column("state", "state"),
            Column("slice", "slice_uuid"),
            Column("since", "since"),
            Column("ends", "ends_at"),
            Column("reason", "end_reason"),
        ]
        if len({row["hub"] for row in rows}) > 1:
            columns.insert(1, Column("hub", "hub"))
        past = "" if self.option("all") else " Past ones: --all."
        print_table(columns, rows, empty=f"No slice is held by anybody.{past}")
        return DONE
