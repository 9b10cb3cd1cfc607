"""The REST API's requests for tiers that need approval, and what becomes of them."""

from __future__ import annotations

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.models.base import Nothing, Reason
from jupyterhub_migspawner.service.api.models.requests import Approval, NewRequest, Revocation
from jupyterhub_migspawner.service.api.operation import DECIDE, operation
from jupyterhub_migspawner.service.http.approvers import decidable, is_approver
from jupyterhub_migspawner.service.http.problem import Problem

#: Minutes of warning unless the body says otherwise.
WARNING_MINUTES = 15

_NOT_YOURS = "The person may not decide on this request."
_UNKNOWN = "There is no such request."
_DECIDED = "The request is decided already, or over."


class Requests(ApiHandler):
    """Requests and grants."""

    path = "/requests"

    @operation(
        "listRequests",
        paged=True,
        flags={"all": "All users' requests. For users who may decide on them."},
        refusals={403: "Only approvers see all users' requests."},
    )
    async def get(self) -> list[views.Request]:
        """List the person's own requests for tiers that need approval."""
        visitor, part = self.who, self.query.part
        if not self.query["all"]:
            name = visitor.person.name
            mine = await self.ask(
                lambda broker: broker.requests.find(user=name, part=part.and_one_more)
            )
            return self.part_of(mine, views.request_view, lambda request: request.id)
        approvers = self.parts.settings.approvers
        if not is_approver(visitor, approvers):
            raise Problem(403, "not-allowed", "Only approvers can see all users' requests.")
        found = await self.ask(lambda broker: decidable(broker, visitor, approvers, part))
        if found.older_than is not None:
            self.link_next(found.older_than)
        return [views.request_view(request) for request in found.requests]

    @operation(
        "createRequest",
        status=201,
        done="The new request.",
        refusals={
            403: "The person may not use the tier, or their quota allows none of it.",
            404: "There is no such tier.",
            409: "The tier needs no approval, or the person has a request or grant already.",
        },
        links={"approve": "approveRequest", "deny": "denyRequest", "cancel": "cancelRequest"},
    )
    async def post(self, body: NewRequest) -> views.Request:
        """Request a tier that needs approval."""
        person = self.who.person
        request = await self.ask(
            lambda broker: broker.requests.create(
                person, body.tier, body.hours, body.reason, body.starts_at
            )
        )
        return views.request_view(request)


class Approve(ApiHandler):
    """Approve a request, perhaps for fewer hours."""

    path = "/requests/{id}/approve"

    @operation(
        "approveRequest",
        scopes=DECIDE,
        refusals={403: _NOT_YOURS, 404: _UNKNOWN, 409: _DECIDED},
    )
    async def post(self, request_id: int, body: Approval) -> views.Request:
        """Approve a request of another user.

        For hub admins, the configured approvers and the scope custom:migspawner:approve.
        """
        by, reason, hours = self.who.decider, body.reason, body.hours
        request = await self.ask(
            lambda broker: broker.requests.decide(request_id, by, True, reason=reason, hours=hours)
        )
        return views.request_view(request)


class Deny(ApiHandler):
    """Deny a request."""

    path = "/requests/{id}/deny"

    @operation(
        "denyRequest", scopes=DECIDE, refusals={403: _NOT_YOURS, 404: _UNKNOWN, 409: _DECIDED}
    )
    async def post(self, request_id: int, body: Reason) -> views.Request:
        """Deny a request of another user. For the same people as approving."""
        by, reason = self.who.decider, body.reason
        request = await self.ask(
            lambda broker: broker.requests.decide(request_id, by, False, reason=reason)
        )
        return views.request_view(request)


class Cancel(ApiHandler):
    """Withdraw a request: one's own, or as an approver."""

    path = "/requests/{id}/cancel"

    @operation(
        "cancelRequest",
        refusals={
            403: "It is another user's request, and the person may not decide on it.",
            404: _UNKNOWN,
            409: "It is over, or in use.",
        },
    )
    async def post(self, request_id: int, body: Nothing) -> views.Request:
        """Cancel a request or grant. For its requester, and for approvers."""
        by = self.who.decider
        request = await self.ask(lambda broker: broker.requests.cancel(request_id, by))
        return views.request_view(request)


class Revoke(ApiHandler):
    """Take a grant back although it is in use."""

    path = "/requests/{id}/revoke"

    @operation(
        "revokeRequest",
        scopes=DECIDE,
        refusals={403: _NOT_YOURS, 404: _UNKNOWN, 409: "It is no grant, or over."},
    )
    async def post(self, request_id: int, body: Revocation) -> views.Request:
        """Revoke a grant that is in use: its server ends after a warning.

        For users who may decide on it.
        """
        by, minutes = self.who.decider, body.warning_minutes
        minutes = WARNING_MINUTES if minutes is None else minutes
        request, *_ = await self.ask(
            lambda broker: broker.requests.revoke(request_id, by, body.reason, minutes)
        )
        return views.request_view(request)
