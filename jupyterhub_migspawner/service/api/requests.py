"""The REST API's requests: filed by users, decided by approvers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub_migspawner.broker import Broker, views
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.service.api.handler import REASON, ApiHandler, read_id
from jupyterhub_migspawner.service.http.approvers import decidable, is_approver
from jupyterhub_migspawner.service.http.auth import Visitor
from jupyterhub_migspawner.service.http.body import Field
from jupyterhub_migspawner.service.http.problem import Problem

#: What a request is made of; who makes it is never part of it.
NEW_REQUEST = {
    "tier": Field("name", required=True),
    "hours": Field("hours", required=True),
    "reason": Field("text", required=True),
    "starts_at": Field("time"),
}


#: How a grant is revoked that is in use.
REVOCATION = {"reason": Field("text", required=True), "warning_minutes": Field("amount")}


class Requests(ApiHandler):
    """Requests for tiers that need approval."""

    async def get(self) -> None:
        """List the visitor's requests; everybody's for those who may decide."""
        flags, part = self.listing("all")
        if flags["all"]:
            visitor, approvers = self.who, self.parts.settings.approvers
            if not is_approver(visitor, approvers):
                raise Problem(403, "not-allowed", "Only approvers see everybody's requests.")
            found = await self.ask(lambda broker: decidable(broker, visitor, approvers, part))
            if found.older_than is not None:
                self.link_next(found.older_than, part)
            self.reply([views.request_view(request) for request in found.requests])
        else:
            name = self.who.person.name
            mine = await self.ask(lambda broker: broker.requests(user=name, part=part.and_one_more))
            self.reply_part(mine, views.request_view, part)

    async def post(self) -> None:
        """Ask for a tier."""
        self.flags()
        asked = self.fields(NEW_REQUEST)
        person = self.who.person
        request = await self.ask(
            lambda broker: broker.create_request(
                person, asked["tier"], asked["hours"], asked["reason"], asked.get("starts_at")
            )
        )
        self.reply(views.request_view(request), 201)


class Decision(ApiHandler):
    """Base of the three ends of a request; each is its own address."""

    known: Mapping[str, Field] = REASON

    async def post(self, raw_id: str) -> None:
        """Decide."""
        self.flags()
        request_id = read_id("request", raw_id)
        sent = self.fields(self.known)
        visitor = self.who
        request = await self.ask(lambda broker: self.decide(broker, request_id, visitor, sent))
        self.reply(views.request_view(request))

    def decide(
        self, broker: Broker, request_id: int, visitor: Visitor, sent: Mapping[str, Any]
    ) -> RequestRow:
        """What this address does; runs off the event loop."""
        raise AssertionError(f"{type(self).__name__} does not say what it decides")


class Approve(Decision):
    """Approve a request, perhaps for fewer hours."""

    known = {**REASON, "hours": Field("hours")}

    def decide(
        self, broker: Broker, request_id: int, visitor: Visitor, sent: Mapping[str, Any]
    ) -> RequestRow:
        """The request becomes a grant, from now on."""
        return broker.decide(
            request_id,
            visitor.decider,
            True,
            reason=sent.get("reason", ""),
            hours=sent.get("hours"),
        )


class Deny(Decision):
    """Deny a request."""

    def decide(
        self, broker: Broker, request_id: int, visitor: Visitor, sent: Mapping[str, Any]
    ) -> RequestRow:
        """The request ends here."""
        return broker.decide(
            request_id,
            visitor.decider,
            False,
            reason=sent.get("reason", ""),
        )


class Cancel(Decision):
    """Withdraw a request: one's own, or as an approver."""

    known = {}

    def decide(
        self, broker: Broker, request_id: int, visitor: Visitor, sent: Mapping[str, Any]
    ) -> RequestRow:
        """The request, or the grant that it became, is given up."""
        return broker.cancel_request(request_id, visitor.decider)


class Revoke(Decision):
    """Take a grant back although it is in use."""

    known = REVOCATION

    def decide(
        self, broker: Broker, request_id: int, visitor: Visitor, sent: Mapping[str, Any]
    ) -> RequestRow:
        """What runs on it ends after a warning."""
        minutes = sent.get("warning_minutes", 15)
        return broker.revoke(
            request_id, visitor.decider, sent["reason"], 15 if minutes is None else minutes
        )[0]
