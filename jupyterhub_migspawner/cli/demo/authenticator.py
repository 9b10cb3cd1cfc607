"""How a demo's hub signs people in: by the demo's password, or by a link that works once.

Relies on :mod:`.credentials`. Promises that neither a password nor a link's key reaches a log, that
wrong passwords are limited, and that a link signs in nobody but the person who opens it as a page.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jupyterhub.auth import Authenticator
from jupyterhub.handlers.login import LoginHandler
from tornado.web import HTTPError
from traitlets import Unicode

from jupyterhub_migspawner.cli.demo.credentials import (
    KEY,
    LINK_PATH,
    Guesses,
    Links,
    read_password,
    same,
)

_USED = (
    "This login link was already used or has expired: each link works once, within ten minutes. "
    "Sign in with the password that the demo printed, or start it again for new links."
)


class DemoAuthenticator(Authenticator):  # type: ignore[misc]
    """One random password for all users of a demo, and login links."""

    directory = Unicode("", help="The demo's folder, which keeps the password.").tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._guesses = Guesses()

    @property
    def links(self) -> Links:
        """The login links that have not been used."""
        return Links(Path(self.directory))

    async def authenticate(self, handler: Any, data: dict[str, str]) -> str | None:
        """Return the name of who gave the right password.

        Raises ``HTTPError`` 429 after too many wrong passwords; until some time has passed, not
        even the right one is looked at.
        """
        # Nothing is awaited between the question and the count: guesses sent at once gain nothing.
        wait = self._guesses.wait()
        if wait:
            raise HTTPError(
                429,
                "Too many wrong passwords. Please try again in "
                f"{math.ceil(wait)} seconds, or use a login link.",
            )
        password = read_password(Path(self.directory)) if self.directory else None
        name = data.get("username", "")
        right = password is not None and same(data.get("password", ""), password)
        if right and self.normalize_username(name) in self.allowed_users:
            return name
        self._guesses.failed()
        return None

    def get_handlers(self, app: Any) -> list[tuple[str, type[LoginHandler]]]:
        """Return the login form's handler and that of login links."""
        return [*super().get_handlers(app), (LINK_PATH, LinkHandler)]


class LinkHandler(LoginHandler):  # type: ignore[misc]
    """The page that a login link opens; for a link that does not work, the login form."""

    SUPPORTED_METHODS = ("GET",)

    _key = ""

    def set_default_headers(self) -> None:
        """Keep the address out of caches and of what the browser tells other pages."""
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")

    async def prepare(self) -> None:
        """Take the key out of the request, so that nothing which logs the request logs the key."""
        self._key = self.get_query_argument(KEY, "")
        self.request.uri = self.request.path
        self.request.query = ""
        await super().prepare()

    async def get(self) -> None:
        """Sign in the person that the link was made for."""
        headers = self.request.headers
        # A link that is only loaded ahead, or put into another site's page, is not used up.
        ahead = "prefetch" in headers.get("Sec-Purpose", headers.get("Purpose", ""))
        page = (
            headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
            and headers.get("Sec-Fetch-Dest", "document") == "document"
        )
        if ahead or not page:
            raise HTTPError(403, "A login link must be opened as a page.")
        name = self.authenticator.links.use(self._key)
        authenticated = await self._admitted(name) if name else None
        if authenticated is None:
            self.log.warning(
                "A login link was refused: it was used, has expired, or is not from this hub."
            )
            self.set_status(403)
            self.finish(await self._render(login_error=_USED))
            return
        previous = self.get_current_user_cookie()
        if previous is not None and previous.name != authenticated["name"]:
            # What this browser may do as another user ends, at services and servers too.
            self.clear_login_cookie()
            self.set_session_cookie()
        user = await self.auth_to_user(authenticated)
        self.set_login_cookie(user)
        self.log.info("User logged in by a link: %s", user.name)
        self.redirect(self.hub.base_url)

    async def _admitted(self, name: str) -> dict[str, Any] | None:
        """Return what the hub needs to know of a person, or None for one who is not allowed in."""
        authenticator = self.authenticator
        if name not in authenticator.allowed_users or name in authenticator.blocked_users:
            return None
        admin = True if name in authenticator.admin_users else None
        return {"name": name, "admin": admin, "auth_state": None}
