"""``migspawner leases``: who holds what; ending one; giving leases again to servers without one."""

from __future__ import annotations

import click

from jupyterhub_migspawner.broker.views import adoption_view, lease_view
from jupyterhub_migspawner.cli.command import Group, answers
from jupyterhub_migspawner.cli.existence import require_user
from jupyterhub_migspawner.cli.invocation import DONE, REFUSED, Invocation, operator
from jupyterhub_migspawner.cli.options import LIMIT, number_of
from jupyterhub_migspawner.cli.options import reason as reason_option
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.cli.unproven import print_unproven
from jupyterhub_migspawner.policy.wording import printable


@click.group(cls=Group, invoke_without_command=True)
@click.option("--all", "past", is_flag=True, help="include past leases")
@user_option("only leases of this user")
@LIMIT
@answers(table=True)
def leases(invocation: Invocation, past: bool, user: str | None, limit: int | None) -> int:
    """Show the leases: who holds which slice, since when and until when."""
    broker = invocation.broker()
    found = broker.leases.find(include_past=past, user=user, part=invocation.part(limit))
    if not past:
        # Their servers run on without a GPU, and nothing else here would say so.
        found = (*broker.leases.stranded(user), *found)
    if not found and user is not None:
        require_user(invocation, broker, user)
    rows = invocation.shown_part([lease_view(lease) for lease in found], limit)
    stranded = {lease.id for lease in found if lease.stranded}
    if invocation.as_json:
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
    print_unproven(broker.slices.find(), user)
    return DONE


def _none(user: str | None, past: bool) -> str:
    """Return the message of an empty listing."""
    if past:
        never = "There are no leases yet."
        return never if user is None else f"{printable(user)} has had no lease yet."
    who = "Nobody holds a slice." if user is None else f"{printable(user)} holds no slice."
    return f"{who} Past leases: --all."


@leases.command(short_help="end a lease")
@number_of("the lease's number in `migspawner leases`")
@reason_option("stored with the lease and in the event log")
@answers(times=True)
def release(invocation: Invocation, number: int, reason: str | None) -> int:
    """End a lease.

    Processes of its server are ended, and its slice is free when it is proven empty. For a lease
    that is already ending, this shows what keeps its slice and how to end that.
    """
    why = "ended by an administrator" if reason is None else reason
    lease = invocation.broker().leases.release(number, why, operator())
    return invocation.answer(
        lease_view(lease),
        f"Lease {lease.id} of {lease.user} is {lease.state}: its slice is free again as soon "
        "as it is proven empty.",
    )


@leases.command(short_help="create leases for servers that run without one")
@user_option("only servers of this user")
@click.option("--dry-run", is_flag=True, help="only show what would be done")
@answers(table=True)
def adopt(invocation: Invocation, user: str | None, dry_run: bool) -> int:
    """Create leases for servers that run without one.

    This is needed, for example, after the lease database was deleted or restored from an older
    copy.

    They are found by what their hub has saved, or else by the marks of their processes, which users
    can forge. Servers with a conflict are not adopted: the output gives the reason, and the exit
    status is 1. No server is stopped.
    """
    broker = invocation.broker()
    attempts = {o.attempt for o in broker.orphans.find() if user is None or o.user == user}
    done = broker.orphans.adopt(operator(), attempts, dry_run=dry_run)
    rows = [adoption_view(each) for each in done]
    if not rows and user is not None:
        require_user(invocation, broker, user)
    if invocation.as_json:
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
