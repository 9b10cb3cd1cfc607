"""The pages a browser is shown, in the hub's theme.

Relies on :mod:`.theme` for rendering and on the hub for signing in. Promises that a page works
without JavaScript, that it is shown to nobody who is not signed in, that it says so when the
database or the hub is away, and that no other site can frame it.
"""

from __future__ import annotations

from http.client import responses
from typing import Any

from jupyterhub.services.auth import HubOAuthCallbackHandler
from tornado.web import HTTPError

from jupyterhub_migspawner.service.clients.hub import HubError
from jupyterhub_migspawner.service.http.auth import Asked
from jupyterhub_migspawner.service.http.problem import Problem
from jupyterhub_migspawner.service.pages.theme import Theme

#: The hub's page has scripts in it and admins add their own, so scripts are not restricted here;
#: what protects is that every text is escaped. Frames, plugins, other bases and forms that lead
#: elsewhere are nobody's need.
POLICY = "frame-ancestors 'none'; object-src 'none'; base-uri 'none'; form-action 'self'"


class Page(Asked):
    """Base of the pages: a visitor who is not signed in is sent to the hub first."""

    def set_default_headers(self) -> None:
        """Limit a page to this visitor and this moment."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")

    async def prepare(self) -> None:
        """Identify the visitor, or send them to sign in and back."""
        self.visitor = await self.identify()
        if self.visitor is None:
            if self.request.method not in ("GET", "HEAD"):
                raise Problem(401, "not-signed-in", "Sign in first: open the page and try again.")
            self.redirect(self.get_login_url())

    def show(self, template: str, **values: Any) -> None:
        """Answer with a page."""
        theme: Theme = self.settings["theme"]
        # Asking for the token sets its cookie, which only a signed-in visitor needs.
        xsrf = self.xsrf_token.decode("ascii") if self.visitor else ""
        self.finish(theme.render(template, self.visitor, xsrf, **values))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Show the hub's error page with the sentence in it."""
        if self.answer.retry_after is not None:
            self.set_header("Retry-After", str(self.answer.retry_after))
        try:
            self.show(
                "problem.html",
                status_code=status_code,
                status_message=responses.get(status_code, ""),
                message=self.answer.message,
            )
        except Exception as error:
            # An error page that fails would leave the visitor with nothing at all.
            self.log_exception(type(error), error, error.__traceback__)
            self.set_header("Content-Type", "text/plain; charset=UTF-8")
            self.finish(self.answer.message)


class Callback(Page, HubOAuthCallbackHandler):  # type: ignore[misc]
    """The end of the hub's OAuth: sets the cookie and goes back to the page that was asked for."""

    async def prepare(self) -> None:
        """Identify a user who is signed in already, here, where it does not block the loop."""
        self.current_user = None
        try:
            self.current_user = await self.hub_auth.get_user(self, sync=False)
        except HTTPError as error:
            raise HubError("The hub did not say who a visitor is.") from error

    async def get(self) -> None:
        """Finish signing in."""
        try:
            await HubOAuthCallbackHandler.get(self)
        except HTTPError as error:
            if error.status_code >= 500:
                raise HubError("The hub did not finish signing a visitor in.") from error
            raise Problem(
                error.status_code,
                "sign-in",
                "The sign-in was not completed; perhaps it took too long. "
                "Go to the hub's home page and open this page again from there.",
            ) from None


class NoPage(Page):
    """Any other address of the service that is not the API's."""

    async def prepare(self) -> None:
        """Answer that there is nothing, without a sign-in."""
        self.current_user = None
        raise Problem(404, "not-found", "There is no such page here.")
