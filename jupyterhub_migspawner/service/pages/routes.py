"""Every address of the pages, and who serves it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tornado.web import RedirectHandler, RequestHandler, StaticFileHandler

from jupyterhub_migspawner.service.pages.page import Callback, NoPage
from jupyterhub_migspawner.service.pages.sessions import ExtendMine, MySession

STATIC = Path(__file__).parent / "static"


class StaticFile(StaticFileHandler):
    """The style sheet and the script of the pages."""

    def set_default_headers(self) -> None:
        """Files are what their name says."""
        self.set_header("X-Content-Type-Options", "nosniff")


def handlers(prefix: str) -> list[Any]:
    """tornado's rules for the pages of a service at ``prefix``."""
    base = re.escape(prefix)
    rules: list[Any] = [
        (base, MySession),
        (base + "sessions/([^/]+)/extend", ExtendMine),
        (base + "oauth_callback", Callback),
        (base + r"static/(.+)", StaticFile, {"path": str(STATIC)}),
    ]
    if prefix != "/":
        rules.append((re.escape(prefix.rstrip("/")), RedirectHandler, {"url": prefix}))
    return rules


def not_found() -> type[RequestHandler]:
    """Who answers for every address that nothing else does."""
    return NoPage
