"""Every address of the pages, and who serves it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tornado.web import RedirectHandler, RequestHandler, StaticFileHandler

from jupyterhub_migspawner.service.pages.decisions import Decide, Decisions
from jupyterhub_migspawner.service.pages.drafts import DropDraft, KeepDraft
from jupyterhub_migspawner.service.pages.notices import MyNotices
from jupyterhub_migspawner.service.pages.page import Callback, NoPage
from jupyterhub_migspawner.service.pages.queue import LeaveMine, MyQueue
from jupyterhub_migspawner.service.pages.requests import CancelMine, MyRequests
from jupyterhub_migspawner.service.pages.sessions import ExtendMine, MySession

STATIC = Path(__file__).parent / "static"


class StaticFile(StaticFileHandler):
    """The style sheet and the script of the pages."""

    def set_default_headers(self) -> None:
        """Have browsers take files for what their name says."""
        self.set_header("X-Content-Type-Options", "nosniff")


#: Every address of a page below the service's prefix, as a regular expression, and who serves it.
ROUTES: dict[str, type[RequestHandler]] = {
    "": MySession,
    "sessions/([^/]+)/extend": ExtendMine,
    "queue": MyQueue,
    "queue/([^/]+)/leave": LeaveMine,
    "requests": MyRequests,
    "requests/([^/]+)/cancel": CancelMine,
    "drafts": KeepDraft,
    "drafts/([^/]+)/drop": DropDraft,
    "decisions": Decisions,
    "decisions/([^/]+)/(approve|deny|cancel|revoke)": Decide,
    "notices": MyNotices,
    "oauth_callback": Callback,
}


def handlers(prefix: str) -> list[Any]:
    """Return tornado's rules for the pages of a service at ``prefix``."""
    base = re.escape(prefix)
    rules: list[Any] = [(base + address, handler) for address, handler in ROUTES.items()]
    rules.append((base + "static/(.+)", StaticFile, {"path": str(STATIC)}))
    if prefix != "/":
        rules.append((re.escape(prefix.rstrip("/")), RedirectHandler, {"url": prefix}))
    return rules


def not_found() -> type[RequestHandler]:
    """Return the handler of every address that nothing else serves."""
    return NoPage
