"""Who is asking, as the hub says it; nothing in a request can say otherwise.

Relies on the hub's OAuth for browsers and on its API tokens for programs
(``jupyterhub.services.auth``). Promises that every handler knows its visitor before it does
anything; that a request that changes something and is signed in by cookie carries the XSRF token,
while one with a token of the hub needs none; and that services are nobody: only people hold slices.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeVar

from jupyterhub.services.auth import HubOAuth, HubOAuthenticated, UserNotAllowed
from jupyterhub.utils import make_ssl_context
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.web import HTTPError, RequestHandler

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.clients import WrongPeer, checked_client
from jupyterhub_migspawner.errors import DatabaseError, Refusal
from jupyterhub_migspawner.hub.scopes import ADMIN_SCOPE, APPROVE_SCOPE, SELF_SCOPE
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.service.clients.hub import Beside, HubError, HubServer
from jupyterhub_migspawner.service.clients.peers import check_hub
from jupyterhub_migspawner.service.http.limits import Turns
from jupyterhub_migspawner.service.http.problem import Answer, Problem, answer_for, is_expected
from jupyterhub_migspawner.service.http.scopes import may_start
from jupyterhub_migspawner.service.parts import Parts

#: Lines that people outside can cause; see :mod:`.logs`.
log = logging.getLogger("migspawner.service.requests")

#: Characters of a request's path in the log.
MOST_PATH = 200

T = TypeVar("T")

#: Seconds for which the hub's word about a person counts: that a user left a group or lost a token
#: is soon known, and a page with several calls asks the hub once.
REMEMBERED = 10

#: Characters of a token and of a session's name; the hub's have 32 or 43.
MOST_TOKEN = 500
#: What a longer one is taken for, which the hub does not know either.
TOO_LONG = "too-long"

#: Characters of an address to which a visitor comes back after signing in.
MOST_URL = 2000
#: Visitors who are signing in at the same time.
MOST_STATES = 10_000

#: With it a hub admin's token sees and stops everybody's servers through the hub itself.
ALL_SERVERS = "admin:servers"


@dataclass(frozen=True)
class Visitor:
    """A person, as far as the token or the sign-in in use carries their rights."""

    person: Person
    """With those rights only which the scopes open as well."""
    scopes: frozenset[str]
    decider: Person
    """The person as the broker's rules on decisions see them."""

    @classmethod
    def of(cls, name: str, groups: frozenset[str], admin: bool, scopes: frozenset[str]) -> Visitor:
        """Return the visitor whom the hub describes so.

        A right counts where both the person and the token in use have it. What the hub's admins
        and the approvers of the configuration may do is opened by ``custom:migspawner:self``,
        which every user has and which a token made for less lacks.

        The hub's roles can also make people admins or approvers here whom the settings do not
        name, by ``custom:migspawner:admin`` and ``custom:migspawner:approve``. The broker's rules
        on decisions know people only, so that there the scope counts as being an admin. That
        nobody decides about their own request still holds.
        """
        everything = SELF_SCOPE in scopes
        decides = everything or APPROVE_SCOPE in scopes
        person = Person(name, groups, admin and (everything or ALL_SERVERS in scopes), decides)
        decider = replace(person, admin=(admin and everything) or APPROVE_SCOPE in scopes)
        return cls(person, scopes, decider)

    @property
    def is_admin(self) -> bool:
        """Whether this visitor sees and ends everybody's leases."""
        return self.person.admin or ADMIN_SCOPE in self.scopes

    @property
    def maker(self) -> Person:
        """The person as the broker's rules for admins see them: the scope makes an admin."""
        return replace(self.person, admin=self.is_admin)

    def demand_start(self, server: str, what: str) -> None:
        """Refuse ``what`` unless this visitor may start that server of their own at the hub.

        The service acts with rights of its own, which must not stand in for those that the token
        lacks. Raises :class:`~jupyterhub_migspawner.errors.Refusal` (``not-allowed``).
        """
        if not may_start(self.scopes, self.person.name, self.person.groups, server):
            raise Refusal(
                f"This token may not {what}: it lacks the hub's scope start:servers (servers, "
                "before JupyterHub 6) for that server. Use a token with it, or sign in with a "
                "browser.",
                reason="not-allowed",
            )


class CheckedHubOAuth(HubOAuth):  # type: ignore[misc]
    """The hub's OAuth, which sends nothing to another local user who has the hub's port.

    Every question carries a token: the service's, or the visitor's. What visitors can have it keep
    has a bound.
    """

    #: Hears of another user's process at the hub's port.
    stranger: Callable[[WrongPeer], None] = staticmethod(lambda error: None)

    async def _api_request(self, method: str, url: str, /, **kwargs: Any) -> Any:
        """Send one request to the hub's API, in place of JupyterHub's own (5.4 to 6.1).

        That one opens its connection by itself, so that nobody could look whose it is. Returns the
        answer, None for 403 where ``allow_403`` is given. Raises HTTPError: 400 where the hub
        refuses what a visitor brought, 500 for everything else.
        """
        allow_403 = kwargs.pop("allow_403", False)
        headers = {"Authorization": f"token {self.api_token}", **kwargs.pop("headers", {})}
        sent = kwargs.pop("data", None) or kwargs.pop("body", None)
        context = None
        if self.certfile or self.keyfile:
            context = make_ssl_context(self.keyfile, self.certfile, cafile=self.client_ca)
        client = checked_client(check_hub)
        try:
            response = await client.fetch(
                HTTPRequest(
                    url,
                    method=method,
                    headers=headers,
                    body=sent,
                    connect_timeout=5.0,
                    request_timeout=20.0,
                    follow_redirects=False,
                    ssl_options=context,
                ),
                raise_error=False,
            )
        except (HTTPClientError, OSError, ValueError) as error:
            if isinstance(error, WrongPeer):
                self.stranger(error)
            raise HTTPError(500, "The hub does not answer.") from error
        finally:
            client.close()
        if response.code == 403 and allow_403:
            return None
        if response.code == 400:
            raise HTTPError(400, "The hub refuses this sign-in.")
        if response.code != 200:
            raise HTTPError(500, "The hub answered with status %d.", response.code)
        try:
            return json.loads(response.body)
        except ValueError:
            raise HTTPError(500, "The hub's answer is not JSON.") from None

    def generate_state(self, next_url: str | None = None, **extra_state: Any) -> str:
        """Remember where a visitor who signs in wants to go; the oldest of many are forgotten."""
        if next_url is not None and len(next_url) > MOST_URL:
            next_url = None
        kept = self._oauth_states
        while len(kept.values) >= MOST_STATES:
            del kept[next(iter(kept.values))]
        state: str = super().generate_state(next_url, **extra_state)
        return state

    def get_token(self, handler: RequestHandler, in_cookie: bool = True) -> str | None:
        """Return the visitor's token; :data:`TOO_LONG` for one too long to be the hub's."""
        token: str | None = super().get_token(handler, in_cookie=in_cookie)
        return TOO_LONG if token and len(token) > MOST_TOKEN else token

    def get_session_id(self, handler: RequestHandler) -> str:
        """Return the visitor's session at the hub, a part of the key of cached answers."""
        return str(super().get_session_id(handler))[:MOST_TOKEN]


def hub_oauth(environ: Mapping[str, str]) -> CheckedHubOAuth:
    """Return the hub's OAuth, set up from the environment that the hub gives a managed service.

    What is not passed on here it reads there by itself (``jupyterhub.services.auth``).
    """
    return CheckedHubOAuth(
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
    _counted = ""

    def initialize(self) -> None:
        """Set what all handlers need; called by tornado for each request."""
        self.hub_auth = self.settings["hub_auth"]

    @property
    def parts(self) -> Parts:
        """The running service's parts."""
        parts: Parts = self.settings["parts"]
        return parts

    async def ask(self, use: Callable[[Broker], T]) -> T:
        """Use the broker once, off the event loop, when it is this visitor's turn."""
        turns: Turns = self.settings["turns"]
        name = self.visitor.person.name if self.visitor else self.request.remote_ip
        async with turns.of(str(name)):
            return await self.parts.ask(use)

    async def live_servers(self, user: str) -> tuple[HubServer, ...] | None:
        """Return a person's servers that run, start or stop; None where the hub does not answer."""
        try:
            return await self.parts.hub.servers_of(user) or ()
        except HubError as error:
            self.log_exception(type(error), error, None)
            return None

    async def beside(self, user: str, server: str | None = None) -> Beside:
        """Return what a person runs, for a ticket for ``server``; without one, for a start now."""
        servers = await self.live_servers(user)
        if servers is None:
            return Beside(server)
        return Beside.of_next(servers) if server is None else Beside.of_all(servers, server)

    async def identify(self) -> Visitor | None:
        """Return the visitor; None if not signed in. Raises :exc:`.Problem` for the refused."""
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
                f"This token belongs to the service {name!r}, and services cannot hold slices; "
                "use the token of a person.",
            )
        try:
            self.check_hub_user(model)
        except UserNotAllowed:
            raise Problem(
                403,
                "not-allowed",
                f"This sign-in of {name!r} has no access to the GPU service. A token needs the "
                "scope access:services for it; without this right, ask the hub's admins.",
            ) from None
        self.current_user = model
        self._require_xsrf()
        turns: Turns = self.settings["turns"]
        turns.begin(name)
        self._counted = name
        return Visitor.of(
            name,
            groups=frozenset(model.get("groups") or ()),
            admin=bool(model.get("admin")),
            scopes=frozenset(model.get("scopes") or ()),
        )

    def on_finish(self) -> None:
        """Count the request as answered."""
        if self._counted:
            turns: Turns = self.settings["turns"]
            turns.end(self._counted)

    def check_xsrf_cookie(self) -> None:
        """Run the hub's check, but only once it is known whether a token or a cookie signs in.

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
        """Refuse a visitor whose sign-in failed with the reason, not as one without a sign-in."""
        if self.get_secure_cookie(self.hub_auth.cookie_name):
            self._require_xsrf()
        if self.hub_auth.get_token(self, in_cookie=False):
            raise Problem(
                401,
                "not-signed-in",
                "The hub does not know this token, or it has expired; create a new one on the "
                "hub's token page.",
            )

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Turn every error into one answer; the handler's ``write_error`` gives it its form."""
        exc_info = kwargs.get("exc_info")
        self._answer = answer_for(exc_info[1] if exc_info else None, status_code)
        super().send_error(self._answer.status, **kwargs)

    def refuse(self, refusal: Refusal) -> None:
        """Set the status of a refusal that the page itself shows."""
        self.set_status(refusal.status)
        if refusal.retry_after is not None:
            self.set_header("Retry-After", str(refusal.retry_after))

    @property
    def answer(self) -> Answer:
        """The error this request ended in."""
        return self._answer or answer_for(None)

    def _request_summary(self) -> str:
        """Return the request as tornado's own messages show it: without its query."""
        return f"{self.request.method} {self.request.path[:MOST_PATH]} ({self.request.remote_ip})"

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log an expected error as a sentence; only an unexpected one with its traceback."""
        if not is_expected(value) and typ is not None and value is not None:
            # Not tornado's own: that shows the query, in which a token may stand.
            request = f"{self.request.method} {self.request.path[:MOST_PATH]}"
            log.error("Uncaught exception: %s", request, exc_info=(typ, value, tb))
        elif isinstance(value, (HubError, DatabaseError)):
            log.warning("%s %s: %s", self.request.method, self.request.path[:MOST_PATH], value)
