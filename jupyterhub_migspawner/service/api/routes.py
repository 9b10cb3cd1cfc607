"""The REST API under ``api/``: the same views as the command line, and the same refusals.

Relies on the broker for every decision and on :mod:`...broker.views` for every shape; the
description that it serves, ``openapi.json``, is compared with :data:`ROUTES` by a test. Promises
that every answer, errors too, is JSON; that no request is ever redirected to a sign-in page; and
that what a visitor sees or does rests on the hub's word alone.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.resources import files
from typing import Any

from tornado.web import RequestHandler

from jupyterhub_migspawner.service.api.drafts import Drafts, FileDraft, OneDraft
from jupyterhub_migspawner.service.api.handler import ApiHandler
from jupyterhub_migspawner.service.api.leases import Leases, OneLease
from jupyterhub_migspawner.service.api.notices import Notices
from jupyterhub_migspawner.service.api.queue import OneTicket, Queue
from jupyterhub_migspawner.service.api.quotas import Exceptions, MyQuota, OneException
from jupyterhub_migspawner.service.api.requests import Approve, Cancel, Deny, Requests, Revoke
from jupyterhub_migspawner.service.api.sessions import (
    ExtendSession,
    ProtectSession,
    Sessions,
    UnprotectSession,
)
from jupyterhub_migspawner.service.api.slices import Slices
from jupyterhub_migspawner.service.api.tiers import Tiers
from jupyterhub_migspawner.service.http.problem import Problem


class Unknown(ApiHandler):
    """Any other address under ``api/``."""

    async def prepare(self) -> None:
        """For every client: there is nothing here, and nobody needs to be known to say so."""
        self.current_user = None
        raise Problem(
            404, "not-found", "There is nothing at this address; api/openapi.json lists what is."
        )


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
    text = files("jupyterhub_migspawner.service.api").joinpath("openapi.json").read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded
