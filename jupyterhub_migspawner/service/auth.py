"""Who is asking, as the hub says it; nothing in a request can say otherwise.

Relies on the hub's OAuth for browsers and on its API tokens for programs
(``jupyterhub.services.auth``). Promises that every handler knows its visitor before it does
anything; that a request that changes something and is signed in by cookie carries the XSRF token,
while one with a token of the hub needs none; and that services are nobody: only people hold slices.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeVar

from jupyterhub.services.auth import HubOAuth, HubOAuthenticated, UserNotAllowed
from tornado.web import HTTPError, RequestHandler

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.service.hub import HubError
from jupyterhub_migspawner.service.parts import Parts
from jupyterhub_migspawner.service.problem import Answer, Problem, answer_for, is_expected
from jupyterhub_migspawner.wiring import ADMIN_SCOPE, APPROVE_SCOPE

log = logging.getLogger("migspawner.service")

T = TypeVar("T")

#: Seconds for which the hub's word about a person counts: whoever leaves a group or loses a token
#: is soon known, and a page with several calls asks the hub once.
REMEMBERED = 10

#: What a hub admin's token carries unless it was made for less.
FULL_SCOPE = "admin:servers"


@dataclass(frozen=True)
class Visitor:
    """A person and what the token or session in use may do."""

    person: Person
    scopes: frozenset[str]
    by_token: bool = False

    @property
    def _acts_as_admin(self) -> bool:
        """Whether an admin's word counts as such here.

        On the pages it does. A token may have been made with fewer rights than its owner has, and
        then it must not open what it was not made for: it counts where it could stop anybody's
        server through the hub itself.
        """
        return self.person.admin and (not self.by_token or FULL_SCOPE in self.scopes)

    @property
    def is_admin(self) -> bool:
        """Whether this visitor sees and ends everybody's leases."""
        return self._acts_as_admin or ADMIN_SCOPE in self.scopes

    @property
    def decider(self) -> Person:
        """This visitor as the broker's rules on decisions see them.

        The hub's roles can make somebody an approver, by scope, whom the broker's settings do not
        name. The rules know people only, so the scope stands for what it is worth: as much as
        being an admin, when deciding. That nobody decides about their own request still holds.
        """
        return replace(self.person, admin=self._acts_as_admin or APPROVE_SCOPE in self.scopes)


def hub_oauth(environ: Mapping[str, str]) -> HubOAuth:
    """The hub's OAuth, set up from the environment that the hub gives a managed service.

    What is not passed on here it reads there by itself (``jupyterhub.services.auth``).
    """
    return HubOAuth(
        base_url=environ["JUPYTERHUB_SERVICE_PREFIX"],
        api_url=environ["JUPYTERHUB_API_URL"],
        api_token=environ["JUPYTERHUB_API_TOKEN"],
        oauth_client_id=environ["JUPYTERHUB_CLIENT_ID"],
        cache_max_age=REMEMBERED,
    )


class Asked(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    """Base of all handlers: knows the visitor, turns errors into sentences."""

    visitor: Visitor | None = None
    _answer: Answer | None = None

    def initialize(self) -> None:
        """Called by tornado for each request."""
        self.hub_auth = self.settings["hub_auth"]

    @property
    def parts(self) -> Parts:
        """The running service's parts."""
        parts: Parts = self.settings["parts"]
        return parts

    async def ask(self, use: Callable[[Broker], T]) -> T:
        """One use of the broker, off the event loop."""
        return await self.parts.ask(use)

    async def identify(self) -> Visitor | None:
        """The visitor; None when nobody is signed in. Raises :exc:`.Problem` for the refused."""
        # Set at once: left alone, tornado would ask the hub again, and block the loop meanwhile.
        self.current_user = None
        try:
            model = await self.hub_auth.get_user(self, sync=False)
        except HTTPError as error:
            raise HubError("The hub did not say who a visitor is.") from error
        if not model:
            self._refuse_bad_credentials()
            return None
        name = str(model.get("name"))
        if model.get("kind", "user") != "user":
            raise Problem(
                403,
                "not-allowed",
                f"This token belongs to the service {name!r}, and services hold no slices; "
                "use the token of a person.",
            )
        try:
            self.check_hub_user(model)
        except UserNotAllowed:
            raise Problem(
                403,
                "not-allowed",
                f"This sign-in of {name!r} does not reach the GPU service. A token needs the scope "
                "access:services for it; a person without that right has to ask the hub's admins.",
            ) from None
        self.current_user = model
        self._require_xsrf()
        return Visitor(
            person=Person(
                name=name,
                groups=frozenset(model.get("groups") or ()),
                admin=bool(model.get("admin")),
            ),
            scopes=frozenset(model.get("scopes") or ()),
            by_token=bool(getattr(self, "_token_authenticated", False)),
        )

    def check_xsrf_cookie(self) -> None:
        """The hub's check, held back until it is known whether a token or a cookie signs in.

        tornado calls this before ``prepare``; ``identify`` calls it again once that is known.
        """
        if hasattr(self, "_cached_hub_user"):
            super().check_xsrf_cookie()

    def _require_xsrf(self) -> None:
        try:
            self.check_xsrf_cookie()
        except HTTPError:
            raise Problem(
                403,
                "xsrf",
                "This request is signed in by cookie but does not carry the page's XSRF token. "
                "Reload the page and try again; programs send 'Authorization: token …' instead.",
            ) from None

    def _refuse_bad_credentials(self) -> None:
        """Tell a visitor whose sign-in failed why, rather than that there was none."""
        if self.get_secure_cookie(self.hub_auth.cookie_name):
            self._require_xsrf()
        if self.hub_auth.get_token(self, in_cookie=False):
            raise Problem(
                401,
                "not-signed-in",
                "The hub does not know this token, or it has expired; make a new one on the hub's "
                "token page.",
            )

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Every error becomes one answer; the handler's ``write_error`` gives it its form."""
        exc_info = kwargs.get("exc_info")
        self._answer = answer_for(exc_info[1] if exc_info else None, status_code)
        super().send_error(self._answer.status, **kwargs)

    @property
    def answer(self) -> Answer:
        """The error this request ended in."""
        return self._answer or answer_for(None)

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Expected trouble is a sentence in the log; only the unexpected is a traceback."""
        if not is_expected(value):
            super().log_exception(typ, value, tb)
        elif isinstance(value, (HubError, DatabaseError)):
            log.warning("%s %s: %s", self.request.method, self.request.path, value)
