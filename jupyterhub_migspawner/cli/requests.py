"""``migspawner requests``: the requests for tiers that need approval, made and decided."""

from __future__ import annotations

from datetime import datetime

import click

from jupyterhub_migspawner.broker.views import request_view, timestamp
from jupyterhub_migspawner.cli.command import Group, answers
from jupyterhub_migspawner.cli.drafts import drafts
from jupyterhub_migspawner.cli.existence import require_user, require_user_to_act_for
from jupyterhub_migspawner.cli.invocation import DONE, Invocation
from jupyterhub_migspawner.cli.options import FUTURE, HOURS, LIMIT, MINUTES, number_of
from jupyterhub_migspawner.cli.options import by as by_option
from jupyterhub_migspawner.cli.options import reason as reason_option
from jupyterhub_migspawner.cli.options import user as user_option
from jupyterhub_migspawner.cli.output import print_json
from jupyterhub_migspawner.cli.table import Column, print_table
from jupyterhub_migspawner.policy.wording import printable

_REQUEST = number_of("the request's number in the listing")
_DECIDER = by_option("the approver's name at the hub")


@click.group(cls=Group, invoke_without_command=True)
@user_option("only requests of this user")
@LIMIT
@answers(table=True)
def requests(invocation: Invocation, user: str | None, limit: int | None) -> int:
    """Show the requests for tiers that need approval, and the decisions."""
    broker = invocation.broker()
    found = broker.requests.find(user=user, part=invocation.part(limit))
    if not found and user is not None:
        require_user(invocation, broker, user)
    rows = invocation.shown_part([request_view(row) for row in found], limit)
    if invocation.as_json:
        print_json(rows)
        return DONE
    columns = [
        Column("id", "id", number=True),
        Column("user", "user"),
        Column("tier", "tier"),
        Column("hours", "hours", number=True),
        Column("state", "state"),
        Column("decided by", "decided_by"),
        Column("valid until", "valid_until", time=True),
        Column("valid from", "valid_from", time=True, below=True),
        Column("requested from", "starts_at", time=True, below=True),
        Column("reason", "reason", below=True),
        Column("decision", "decision_reason", below=True),
    ]
    empty = "There are no requests yet."
    if user is not None:
        empty = f"{printable(user)} has made no request yet."
    print_table(columns, rows, empty=empty)
    return DONE


requests.add_command(drafts)


@requests.command(short_help="request a tier")
@user_option("the user's name at the hub", required=True)
@click.option("--tier", required=True, metavar="T", help="the tier")
@click.option("--hours", required=True, type=HOURS, metavar="H", help="for how many hours")
@reason_option("the reason, shown to the approvers", required=True)
@click.option(
    "--from",
    "starts_at",
    type=FUTURE,
    metavar="TIME",
    help="start time (2026-12-01T18:00); as soon as it is approved if left out",
)
@answers(times=True)
def create(
    invocation: Invocation,
    user: str,
    tier: str,
    hours: float,
    reason: str,
    starts_at: datetime | None,
) -> int:
    """Request a tier that needs approval, for a user."""
    broker = invocation.broker()
    require_user_to_act_for(invocation, broker, user)
    request = broker.requests.create(invocation.person(user), tier, hours, reason, starts_at)
    return invocation.answer(
        request_view(request),
        f"Request {request.id}: {request.user} asks for {request.tier} for "
        f"{request.hours:g} hour{'' if request.hours == 1 else 's'}. It is {request.state}.",
    )


@requests.command(short_help="approve a request")
@_REQUEST
@_DECIDER
@reason_option("shown to the requester")
@click.option("--hours", type=HOURS, metavar="H", help="fewer hours than requested")
@answers(times=True)
def approve(
    invocation: Invocation, number: int, by: str, reason: str | None, hours: float | None
) -> int:
    """Approve a request of another user."""
    decider = invocation.person(by)
    request = invocation.broker().requests.decide(
        number, decider, True, reason=reason or "", hours=hours
    )
    if request.state == "pending":
        return invocation.answer(
            request_view(request),
            f"Request {request.id} has its first approval; another approver has to approve it too.",
        )
    until = timestamp(request.valid_until) if request.valid_until else "further notice"
    return invocation.answer(
        request_view(request),
        f"Request {request.id} is approved: {request.user} may use {request.tier} from "
        f"{timestamp(request.valid_from) or 'now'} until {until}.",
    )


@requests.command(short_help="deny a request")
@_REQUEST
@_DECIDER
@reason_option("shown to the requester")
@answers()
def deny(invocation: Invocation, number: int, by: str, reason: str | None) -> int:
    """Deny a request of another user."""
    decider = invocation.person(by)
    request = invocation.broker().requests.decide(number, decider, False, reason=reason or "")
    return invocation.answer(
        request_view(request), f"Request {request.id} of {request.user} is denied."
    )


@requests.command(short_help="withdraw a request or grant")
@_REQUEST
@by_option("the name at the hub of the person who withdraws it")
@answers()
def cancel(invocation: Invocation, number: int, by: str) -> int:
    """Withdraw a request or grant, as its requester or an approver."""
    request = invocation.broker().requests.cancel(number, invocation.person(by))
    return invocation.answer(
        request_view(request), f"Request {request.id} of {request.user} is cancelled."
    )


@requests.command(short_help="end a grant, and its server after a warning")
@_REQUEST
@_DECIDER
@reason_option("shown to the user of the grant", required=True)
@click.option(
    "--warning",
    type=MINUTES,
    default=15.0,
    metavar="MINUTES",
    help="minutes until the server ends; default: 15",
)
@answers(times=True)
def revoke(invocation: Invocation, number: int, by: str, reason: str, warning: float) -> int:
    """Revoke a grant: a server that runs on it ends after a warning."""
    request, leases = invocation.broker().requests.revoke(
        number, invocation.person(by), reason, warning
    )
    ends = "; ".join(f"lease {lease.id} ends at {timestamp(lease.ends_at)}" for lease in leases)
    return invocation.answer(
        request_view(request),
        f"Grant {request.id} of {request.user} is revoked: {ends or 'no server runs on it'}.",
    )
