"""The routes of the REST API, and the description that it serves of itself.

Promises that every answer, errors too, is JSON; that no request is ever redirected to a sign-in
page; and that what a visitor sees or does rests on the hub's word alone.
"""

from __future__ import annotations

import asyncio
import re
from functools import cache
from typing import Any

from tornado.web import RequestHandler

from jupyterhub_migspawner.service.api import (
    drafts,
    leases,
    notices,
    openapi,
    queue,
    quotas,
    requests,
    sessions,
    slices,
    tiers,
)
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.operation import operation
from jupyterhub_migspawner.service.http.problem import Problem


class Unknown(ApiHandler):
    """Any other address under ``api/``."""

    async def prepare(self) -> None:
        """Answer every client that there is nothing here; nobody has to sign in for that."""
        self.current_user = None
        raise Problem(
            404,
            "not-found",
            "There is nothing at this address; api/openapi.json lists all addresses.",
        )


class OpenApi(ApiHandler):
    """The description of this API."""

    path = "/openapi.json"

    @operation("describe")
    async def get(self) -> dict[str, Any]:
        """Return this description."""
        # In a thread: the first time it is generated, which takes 100 ms.
        found = await asyncio.to_thread(description)
        return {**found, "servers": [{"url": self.parts.prefix + "api"}]}


#: Every address below ``api/`` and who serves it, in the order of the description.
ROUTES: dict[str, type[ApiHandler]] = {
    handler.path: handler
    for handler in (
        tiers.Tiers,
        slices.Slices,
        leases.Leases,
        leases.OneLease,
        sessions.Sessions,
        sessions.ExtendSession,
        sessions.ProtectSession,
        sessions.UnprotectSession,
        requests.Requests,
        requests.Approve,
        requests.Deny,
        requests.Cancel,
        requests.Revoke,
        drafts.Drafts,
        drafts.OneDraft,
        drafts.FileDraft,
        queue.Queue,
        queue.OneTicket,
        notices.Notices,
        quotas.MyQuota,
        quotas.Exceptions,
        quotas.OneException,
        OpenApi,
    )
}


def handlers(prefix: str) -> list[tuple[str, type[RequestHandler]]]:
    """Return tornado's rules for a service at ``prefix``."""
    base = re.escape(prefix + "api")
    rules: list[tuple[str, type[RequestHandler]]] = []
    for path, handler in ROUTES.items():
        pattern = re.escape(path).replace(re.escape("{id}"), "([^/]+)")
        rules.append((base + pattern, handler))
    rules.append((base + "(?:/.*)?", Unknown))
    return rules


@cache
def description() -> dict[str, Any]:
    """Return the OpenAPI description, without the address of this hub."""
    return openapi.describe(ROUTES)
