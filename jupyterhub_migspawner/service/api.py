"""The REST API under ``api/``: the same views as the command line, and the same refusals.

Relies on the broker for every decision and on :mod:`..broker.views` for every shape; the
description that it serves, ``openapi.json``, is compared with :data:`ROUTES` by a test. Promises
that every answer, errors too, is JSON; that no request is ever redirected to a sign-in page; and
that what a visitor sees or does rests on the hub's word alone.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files
from typing import Any

from tornado.web import RequestHandler

from jupyterhub_migspawner.broker import Broker, views
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.service.allowances import Exceptions, MyQuota, OneException
from jupyterhub_migspawner.service.approvers import decidable, is_approver
from jupyterhub_migspawner.service.auth import Visitor
from jupyterhub_migspawner.service.body import Field
from jupyterhub_migspawner.service.draft_api import Drafts, FileDraft, OneDraft
from jupyterhub_migspawner.service.hub import HubError
from jupyterhub_migspawner.service.loops import is_server_of
from jupyterhub_migspawner.service.notice_api import Notices
from jupyterhub_migspawner.service.problem import Problem
from jupyterhub_migspawner.service.queue_api import OneTicket, Queue
from jupyterhub_migspawner.service.rest import REASON, ApiHandler, read_id
from jupyterhub_migspawner.service.session_api import (
    ExtendSession,
    ProtectSession,
    Sessions,
    UnprotectSession,
)

log = logging.getLogger("migspawner.service")

#: What a request is made of; who makes it is never part of it.
NEW_REQUEST = {
    "tier": Field("name", required=True),
    "hours": Field("hours", required=True),
    "reason": Field("text", required=True),
    "starts_at": Field("time"),
}

#: How a grant is revoked that is in use.
REVOCATION = {"reason": Field("text", required=True), "warning_minutes": Field("amount")}


class Unknown(ApiHandler):
    """Any other address under ``api/``."""

    async def prepare(self) -> None:
        """For every client: there is nothing here, and nobody needs to be known to say so."""
        self.current_user = None
        raise Problem(
            404, "not-found", "There is nothing at this address; api/openapi.json lists what is."
        )


class Tiers(ApiHandler):
    """What the visitor may start, and what is free of it now."""

    async def get(self) -> None:
        """List the tiers."""
        self.flags()
        person = self.who.person
        beside = await self.beside(person.name)
        offers = await self.ask(lambda broker: broker.tiers_for(person, **vars(beside)))
        self.reply([views.tier_view(offer) for offer in offers])


class Slices(ApiHandler):
    """Every slice; whose other people's leases are is for admins only."""

    async def get(self) -> None:
        """List the slices."""
        self.flags()
        viewer = self.who.maker
        slices = await self.ask(lambda broker: broker.slices())
        self.reply([views.slice_view(status, viewer) for status in slices])


class Leases(ApiHandler):
    """The visitor's leases; everybody's for admins."""

    async def get(self) -> None:
        """List leases: live ones, with ``past`` those that ended too."""
        flags, part = self.listing("all", "past")
        if flags["all"] and not self.who.is_admin:
            raise Problem(403, "not-allowed", "Only admins see everybody's leases.")
        user = None if flags["all"] else self.who.person.name
        admin = self.who.is_admin
        leases = await self.ask(
            lambda broker: broker.leases(
                include_past=flags["past"], user=user, part=part.and_one_more
            )
        )
        self.reply_part(leases, partial(views.lease_view, admin=admin), part)


class OneLease(ApiHandler):
    """A lease by its id."""

    async def delete(self, raw_id: str) -> None:
        """Take a lease back and end its server: the slice is free once it is proven empty."""
        self.flags()
        if not self.who.is_admin:
            raise Problem(
                403,
                "not-allowed",
                "Only admins end leases by hand; to end your own session, stop its server.",
            )
        lease_id = read_id("lease", raw_id)
        actor = self.who.person.name
        reason = self.fields(REASON).get("reason") or f"released by {actor}"
        lease = await self.ask(lambda broker: broker.release_lease(lease_id, reason, actor))
        await self._stop_server_of(lease)
        self.reply(views.lease_view(lease), 202)

    async def _stop_server_of(self, lease: LeaseRow) -> None:
        """Let the hub stop the server in its own way, before what it leaves behind is ended.

        Should the hub not do it, the lease is being released all the same.
        """
        hub = self.parts.hub
        try:
            for server in await hub.servers_of(lease.user) or ():
                if server.name == lease.server and is_server_of(lease, server):
                    await hub.stop_server(server.user, server.name)
        except HubError as error:
            log.warning("The server of lease %d is not stopped by the hub: %s", lease.id, error)


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


class OpenApi(ApiHandler):
    """The description of this API."""

    async def get(self) -> None:
        """OpenAPI, with this hub's address in it."""
        self.flags()
        self.reply({**description(), "servers": [{"url": self.parts.prefix + "api"}]})


#: Every address below ``api/``, as the description writes it, and who serves it.
ROUTES: dict[str, type[ApiHandler]] = {
    "/tiers": Tiers,
    "/slices": Slices,
    "/leases": Leases,
    "/leases/{id}": OneLease,
    "/sessions": Sessions,
    "/sessions/{id}/extend": ExtendSession,
    "/sessions/{id}/protect": ProtectSession,
    "/sessions/{id}/unprotect": UnprotectSession,
    "/requests": Requests,
    "/requests/{id}/approve": Approve,
    "/requests/{id}/deny": Deny,
    "/requests/{id}/cancel": Cancel,
    "/requests/{id}/revoke": Revoke,
    "/drafts": Drafts,
    "/drafts/{id}": OneDraft,
    "/drafts/{id}/file": FileDraft,
    "/queue": Queue,
    "/queue/{id}": OneTicket,
    "/notices": Notices,
    "/quota": MyQuota,
    "/exceptions": Exceptions,
    "/exceptions/{id}/end": OneException,
    "/openapi.json": OpenApi,
}


def handlers(prefix: str) -> list[tuple[str, type[RequestHandler]]]:
    """tornado's rules for a service at ``prefix``."""
    base = re.escape(prefix + "api")
    rules: list[tuple[str, type[RequestHandler]]] = []
    for path, handler in ROUTES.items():
        pattern = re.escape(path).replace(re.escape("{id}"), "([^/]+)")
        rules.append((base + pattern, handler))
    rules.append((base + "(?:/.*)?", Unknown))
    return rules


@cache
def description() -> dict[str, Any]:
    """The OpenAPI description as it stands in the package."""
    text = files("jupyterhub_migspawner.service").joinpath("openapi.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
