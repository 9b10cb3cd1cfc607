"""``migspawner requests drafts``: requests that a user has begun and not filed."""

from __future__ import annotations

import contextlib
from datetime import datetime

import click

from jupyterhub_migspawner.broker.views import draft_view, request_view, timestamp
from jupyterhub_migspawner.cli.command import Group, answers
from jupyterhub_migspawner.cli.existence import require_user, require_user_to_act_for
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.options import ID, number_of
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.policy.wording import printable

_WHOSE = "the user's name at the hub"
_DRAFT = number_of("the draft's number in the listing")


@click.group(
    cls=Group,
    invoke_without_command=True,
    short_help="drafts of requests",
)
@user_option(_WHOSE)
@answers(table=True)
def drafts(invocation: Invocation, user: str | None) -> int:
    """Show a user's draft requests, which only that user sees on the pages."""
    if user is None:
        raise click.UsageError("Say whose with --user NAME", click.get_current_context())
    broker = invocation.broker()
    rows = [draft_view(draft) for draft in broker.drafts.of(invocation.person(user))]
    if not rows:
        require_user(invocation, broker, user)
    if invocation.as_json:
        print_json(rows)
        return DONE
    columns = [
        Column("id", "id", number=True),
        Column("tier", "tier"),
        Column("hours", "hours", number=True),
        Column("from", "starts_at"),
        Column("reason", "reason", below=True),
    ]
    print_table(columns, rows, empty=f"{printable(user)} has no drafts.")
    return DONE


@drafts.command(short_help="save a draft")
@user_option(_WHOSE, required=True)
@click.option("--id", "draft", type=ID, metavar="ID", help="replace this draft")
@click.option("--tier", default="", metavar="T", help="the tier")
@click.option("--hours", default="", metavar="H", help="for how many hours")
@click.option(
    "--from", "starts_at", default="", metavar="TIME", help="start time (2026-12-01T18:00)"
)
@click.option("--reason", default="", metavar="TEXT", help="the reason")
@answers(times=True)
def save(
    invocation: Invocation,
    user: str,
    draft: int | None,
    tier: str,
    hours: str,
    starts_at: str,
    reason: str,
) -> int:
    """Save an incomplete request. It is checked when it is filed."""
    with contextlib.suppress(ValueError):
        starts_at = timestamp(invocation.time(datetime.fromisoformat(starts_at))) or ""
    broker = invocation.broker()
    require_user_to_act_for(invocation, broker, user)
    kept = broker.drafts.save(
        invocation.person(user),
        draft_id=draft,
        tier=tier,
        hours=hours,
        starts_at=starts_at,
        reason=reason,
    )
    return invocation.answer(draft_view(kept), f"Draft {kept.id} of {kept.user} is kept.")


@drafts.command(short_help="submit a draft as a request")
@_DRAFT
@user_option(_WHOSE, required=True)
@answers()
def file(invocation: Invocation, number: int, user: str) -> int:
    """Submit a draft as a request."""
    request = invocation.broker().drafts.file(invocation.person(user), number)
    return invocation.answer(
        request_view(request),
        f"Draft {number} is request {request.id} now. It is {request.state}.",
    )


@drafts.command(short_help="discard a draft")
@_DRAFT
@user_option(_WHOSE, required=True)
@answers()
def drop(invocation: Invocation, number: int, user: str) -> int:
    """Discard a draft."""
    draft = invocation.broker().drafts.drop(invocation.person(user), number)
    return invocation.answer(draft_view(draft), f"Draft {draft.id} of {draft.user} is gone.")
