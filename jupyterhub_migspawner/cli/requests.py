"""``migspawner requests``: the requests for tiers that need approval, made and decided."""

from __future__ import annotations

from jupyterhub_migspawner.broker.views import request_view, timestamp
from jupyterhub_migspawner.cli.command import DONE, HOURS, ID, LIMIT, MINUTES, Command, argument
from jupyterhub_migspawner.cli.drafts import Drafts
from jupyterhub_migspawner.cli.known import require_user, require_user_to_act_for
from jupyterhub_migspawner.cli.output import Column, print_json, print_table
from jupyterhub_migspawner.cli.people import person_named
from jupyterhub_migspawner.cli.quotas import end as MOMENT
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.wording import printable

_ID = argument("id", type=ID, metavar="ID", help="the request's number in the listing")
_BY = argument("--by", required=True, metavar="NAME", help="the approver's name at the hub")
_FROM = "start time (2026-12-01T18:00); as soon as it is approved if left out"
_REASON = argument("--reason", metavar="TEXT", help="shown to the requester")


class _Change(Command):
    """What the commands share that change one request."""

    def person(self, name: str) -> Person:
        """Who ``name`` is, as far as the configuration knows."""
        return person_named(self.hub_config(), name)

    def told(self, request: RequestRow, sentence: str) -> int:
        """Answer with the request as it now stands."""
        return self.answer(request_view(request), sentence)


class Create(_Change):
    """Make a request."""

    tells_time = True
    name = "migspawner requests create"
    description = "Request a tier that needs approval, for a user."
    arguments = (
        argument("--user", required=True, metavar="U", help="the user's name at the hub"),
        argument("--tier", required=True, metavar="T", help="the tier"),
        argument("--hours", required=True, type=HOURS, metavar="H", help="for how many hours"),
        argument(
            "--reason", required=True, metavar="TEXT", help="the reason, shown to the approvers"
        ),
        argument("--from", dest="starts_at", type=MOMENT, metavar="TIME", help=_FROM),
    )

    def run(self) -> int:
        """Write the request down."""
        given = self.given
        broker = self.broker()
        require_user_to_act_for(self, broker, given.user)
        request = broker.create_request(
            self.person(given.user), given.tier, given.hours, given.reason, self.time("starts_at")
        )
        return self.told(
            request,
            f"Request {request.id}: {request.user} asks for {request.tier} for "
            f"{request.hours:g} hour{'' if request.hours == 1 else 's'}. It is {request.state}.",
        )


class Approve(_Change):
    """Grant a request."""

    tells_time = True
    name = "migspawner requests approve"
    description = "Approve a request of another user."
    arguments = (
        _ID,
        _BY,
        _REASON,
        argument("--hours", type=HOURS, metavar="H", help="fewer hours than requested"),
    )

    def run(self) -> int:
        """Decide for it."""
        request = self.broker().decide(
            self.given.id,
            self.person(self.given.by),
            True,
            reason=self.option("reason", ""),
            hours=self.option("hours"),
        )
        if request.state == "pending":
            return self.told(
                request,
                f"Request {request.id} has its first approval; another person has to approve it, "
                "too.",
            )
        until = timestamp(request.valid_until) if request.valid_until else "further notice"
        return self.told(
            request,
            f"Request {request.id} is approved: {request.user} may use {request.tier} from "
            f"{timestamp(request.valid_from) or 'now'} until {until}.",
        )


class Deny(_Change):
    """Deny a request."""

    name = "migspawner requests deny"
    description = "Deny a request of another user."
    arguments = (_ID, _BY, _REASON)

    def run(self) -> int:
        """Decide against it."""
        request = self.broker().decide(
            self.given.id, self.person(self.given.by), False, reason=self.option("reason", "")
        )
        return self.told(request, f"Request {request.id} of {request.user} is denied.")


class Cancel(_Change):
    """Take a request back."""

    name = "migspawner requests cancel"
    description = "Withdraw a request or grant, as its requester or an approver."
    arguments = (
        _ID,
        argument(
            "--by",
            required=True,
            metavar="NAME",
            help="the name at the hub of the person who withdraws it",
        ),
    )

    def run(self) -> int:
        """Cancel it."""
        request = self.broker().cancel_request(self.given.id, self.person(self.given.by))
        return self.told(request, f"Request {request.id} of {request.user} is cancelled.")


class Revoke(_Change):
    """Take a grant back although it is in use."""

    tells_time = True
    name = "migspawner requests revoke"
    description = "Revoke a grant: a server that runs on it ends after a warning."
    arguments = (
        _ID,
        _BY,
        argument("--reason", required=True, metavar="TEXT", help="shown to the user of the grant"),
        argument(
            "--warning",
            type=MINUTES,
            metavar="MINUTES",
            help="minutes until the server ends; default: 15",
        ),
    )

    def run(self) -> int:
        """Revoke it."""
        request, leases = self.broker().revoke(
            self.given.id,
            self.person(self.given.by),
            self.given.reason,
            self.option("warning", 15.0),
        )
        ends = "; ".join(f"lease {lease.id} ends at {timestamp(lease.ends_at)}" for lease in leases)
        said = ends or "nothing runs on it"
        return self.told(request, f"Grant {request.id} of {request.user} is revoked: {said}.")


class Requests(Command):
    """The requests."""

    lists = True
    name = "migspawner requests"
    description = "Requests for tiers that need approval, and the decisions."
    arguments = (argument("--user", metavar="NAME", help="only requests of this user"), LIMIT)
    below = {
        "drafts": (Drafts, "drafts of requests"),
        "create": (Create, "request a tier"),
        "approve": (Approve, "approve a request"),
        "deny": (Deny, "deny a request"),
        "cancel": (Cancel, "withdraw a request or grant"),
        "revoke": (Revoke, "end a grant, and its server after a warning"),
    }

    def run(self) -> int:
        """List them."""
        broker, user = self.broker(), self.option("user")
        found = broker.requests(user=user, part=self.part())
        if not found and user is not None:
            require_user(self, broker, user)
        rows = self.shown_part([request_view(row) for row in found])
        if self.as_json:
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
        empty = "Nobody has made a request yet."
        if user is not None:
            empty = f"{printable(user)} has not made a request yet."
        print_table(columns, rows, empty=empty)
        return DONE
