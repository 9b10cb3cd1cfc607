"""``migspawner leases`` and ``migspawner leases release``: who holds what, and ending it."""

from __future__ import annotations

import getpass

from jupyterhub_migspawner.broker.views import adoption_view, lease_view
from jupyterhub_migspawner.cli.command import DONE, ID, LIMIT, REFUSED, Command, argument
from jupyterhub_migspawner.cli.known import require_user
from jupyterhub_migspawner.cli.output import Column, print_json, print_table
from jupyterhub_migspawner.cli.unproven import print_unproven
from jupyterhub_migspawner.policy.wording import printable


def operator() -> str:
    """Who is at the command line, for the event log."""
    try:
        return f"command line ({getpass.getuser()})"
    except (KeyError, OSError):  # a uid without a name, as in a container
        return "command line"


class Release(Command):
    """End one lease."""

    tells_time = True
    name = "migspawner leases release"
    description = (
        "End a lease. Processes of its server are ended, and its slice is free when it is proven\n"
        "empty. For a lease that is already ending, this shows what keeps its slice and how to\n"
        "end that."
    )
    arguments = (
        argument("id", type=ID, metavar="ID", help="the lease's number in `migspawner leases`"),
        argument("--reason", metavar="TEXT", help="stored with the lease and in the event log"),
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


class Adopt(Command):
    """Give servers without a lease one again."""

    lists = True
    name = "migspawner leases adopt"
    description = (
        "Create leases for servers that run without one, for example after the lease database was\n"
        "deleted or restored from an older copy. They are found by what their hub has saved, or\n"
        "else by the marks of their processes, which users can forge. Servers with a conflict are\n"
        "not adopted: the output gives the reason, and the exit status is 1. No server is\n"
        "stopped."
    )
    arguments = (
        argument("--user", metavar="NAME", help="only servers of this user"),
        argument("--dry-run", action="store_true", help="only show what would be done"),
    )

    def run(self) -> int:
        """Adopt them and show what became of each."""
        broker, user, dry_run = self.broker(), self.option("user"), self.option("dry_run", False)
        attempts = {o.attempt for o in broker.orphans() if user is None or o.user == user}
        done = broker.adopt_orphans(operator(), attempts, dry_run=dry_run)
        rows = [adoption_view(each) for each in done]
        if not rows and user is not None:
            require_user(self, broker, user)
        if self.as_json:
            print_json(rows)
        else:
            columns = [
                Column("user", "user"),
                Column("server", "server"),
                Column("tier", "tier"),
                Column("node", "node"),
                Column("profile", "profile"),
                Column("process", "process"),
                Column("lease", "lease"),
                Column("why not", "why", below=True),
            ]
            whose = "" if user is None else f" of {printable(user)}"
            print_table(columns, rows, empty=f"No server{whose} runs without a lease.")
        return DONE if all(each.lease is not None for each in done) else REFUSED


def _none(user: str | None, past: bool) -> str:
    """What an empty listing says."""
    if past:
        never = "Nobody has held a slice so far."
        return never if user is None else f"{printable(user)} has not held a slice so far."
    who = "No slice is held by anybody." if user is None else f"{printable(user)} holds no slice."
    return f"{who} Past leases: --all."


class Leases(Command):
    """The leases."""

    lists = True
    name = "migspawner leases"
    description = "The leases: who holds which slice, since when and until when."
    arguments = (
        argument("--all", action="store_true", help="include past leases"),
        argument("--user", metavar="NAME", help="only leases of this user"),
        LIMIT,
    )
    below = {
        "release": (Release, "end a lease"),
        "adopt": (Adopt, "create leases for servers that run without one"),
    }

    def run(self) -> int:
        """List them."""
        broker, user, past = self.broker(), self.option("user"), self.option("all", False)
        found = broker.leases(include_past=past, user=user, part=self.part())
        if not past:
            # Their servers run on without a GPU, and nothing else here would say so.
            found = (*broker.stranded(user), *found)
        if not found and user is not None:
            require_user(self, broker, user)
        rows = self.shown_part([lease_view(lease) for lease in found])
        stranded = {lease.id for lease in found if lease.stranded}
        if self.as_json:
            print_json(rows)
            return DONE
        for row in rows:
            if row["id"] in stranded:
                row["state"] = "GPU lost"
        columns = [
            Column("id", "id", number=True),
            Column("user", "user"),
            Column("server", "server"),
            Column("tier", "tier"),
            Column("state", "state"),
            Column("since", "since", time=True),
            Column("ends", "ends_at", time=True),
            Column("node", "node", wide=True),
            Column("profile", "profile", wide=True),
            Column("slice", "slice_uuid", wide=True),
            Column("reason", "end_reason", below=True),
        ]
        if len({row["hub"] for row in rows}) > 1:
            columns.insert(1, Column("hub", "hub"))
        print_table(columns, rows, empty=_none(user, past))
        print_unproven(broker.slices(), user)
        return DONE
