"""The hub as the service sees it: who its users are, which servers run, how one starts and stops.

Relies on the hub's REST API and the service's own token (scopes ``list:users``, ``read:servers``,
``read:users:groups``, ``servers``). Promises to be honest about what it does not know: an answer is
either complete or a :exc:`HubError`; a missing right is never mistaken for a missing server.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import quote, urlencode

from tornado.httpclient import HTTPClientError, HTTPRequest

from jupyterhub_migspawner.clients import WrongPeer, checked_client
from jupyterhub_migspawner.errors import MigspawnerError
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.service.clients.peers import check_hub

#: Without the media type the hub silently cuts long lists (jupyterhub.apihandlers.base).
PAGINATED = "application/jupyterhub-pagination+json"
#: What the service needs; narrower filters (``!group=x``) would hide servers from it.
NEEDED_SCOPES = frozenset({"list:users", "read:servers", "delete:servers"})
#: More pages than any hub has users for: a hub that never stops paginating is not believed.
MOST_PAGES = 10_000


class HubError(MigspawnerError):
    """The hub did not answer, or not in a way that can be relied on."""


class HubAway(HubError):
    """The hub did not answer at all."""


@dataclass(frozen=True)
class HubServer:
    """One server that the hub runs, starts, checks or stops (never a stopped one)."""

    user: str
    name: str
    """Empty for the default server."""
    ready: bool
    pending: str
    """``spawn``, ``stop``, ``check``, ``rename`` or empty."""
    started: datetime | None
    """UTC, by the clock that leases go by; when this start of the server began."""
    url: str
    tier: str
    """What its options name; empty when they name none."""
    options: Mapping[str, Any] = field(default_factory=dict)
    noted: datetime | None = None
    """As :attr:`started`, in UTC by the hub's own clock, as the hub noted it."""


@dataclass(frozen=True)
class Beside:
    """What else a person runs, as the broker's rules ask for it.

    ``server`` is the one that would start, None where that is one more; ``other_servers`` counts
    those beside it, None where the hub does not say; ``stopping`` are the names of those of them
    that it is just stopping.
    """

    server: str | None = None
    other_servers: int | None = None
    stopping: tuple[str, ...] = ()

    @classmethod
    def of(cls, servers: Sequence[HubServer], server: str) -> Beside:
        """Return what runs beside a server, of all that a person has."""
        others = [each for each in servers if each.name != server]
        stopping = tuple(each.name for each in others if each.pending == "stop")
        return cls(server, len(others), stopping)

    @classmethod
    def of_next(cls, servers: Sequence[HubServer]) -> Beside:
        """Return what runs beside a start now.

        That is a start of the default server if it does not run, else of one more.
        """
        if any(not each.name for each in servers):
            return replace(cls.of_all(servers), server=None)
        return cls.of(servers, "")

    @classmethod
    def of_all(cls, servers: Sequence[HubServer], server: str = "") -> Beside:
        """Return all that a person runs, for a ticket: a running server counts until its turn."""
        stopping = tuple(each.name for each in servers if each.pending == "stop")
        return cls(server, len(servers), stopping)


@dataclass(frozen=True)
class Account:
    """A user of the hub, and what runs for them."""

    person: Person
    servers: tuple[HubServer, ...]


class HubApi:
    """The few calls of the hub's REST API that the service makes."""

    def __init__(
        self,
        api_url: str,
        token: str,
        *,
        ssl_context: ssl.SSLContext | None = None,
        page_size: int = 200,
        timeout: float = 20.0,
        ahead: Callable[[], timedelta] = timedelta,
    ) -> None:
        """Prepare calls of the API at ``api_url``, which ends in ``/hub/api``.

        ``timeout`` is in seconds, for each request.
        ``ahead`` says how far the hub's clock is ahead of the one that leases go by; the hub's
        times are given out as that one would have them.
        """
        self._api_url = api_url.rstrip("/")
        self._token = token
        self._ssl = ssl_context
        self._page_size = page_size
        self._timeout = timeout
        self._ahead = ahead
        #: Hears of another user's process at the hub's port.
        self.stranger: Callable[[WrongPeer], None] = lambda error: None

    async def servers(self) -> dict[tuple[str, str], HubServer]:
        """Return every live server by (user, name). Raises :exc:`HubError` unless complete."""
        found: dict[tuple[str, str], HubServer] = {}
        offset = 0
        for _ in range(MOST_PAGES):
            query = {
                "state": "active",
                "sort": "id",
                "offset": str(offset),
                "limit": str(self._page_size),
            }
            page = await self._get("/users?" + urlencode(query))
            items = page.get("items") if isinstance(page, dict) else None
            if not isinstance(items, list):
                raise HubError("The hub's list of users is not paginated, so it may be incomplete.")
            ahead = self._ahead()
            for model in items:
                for server in _servers_of(model, ahead):
                    found[(server.user, server.name)] = server
            following = _mapping(page.get("_pagination")).get("next")
            if following is None:
                return found
            next_offset = _mapping(following).get("offset")
            if not isinstance(next_offset, int) or next_offset <= offset:
                raise HubError("The hub's list of users does not continue from page to page.")
            offset = next_offset
        raise HubError("The hub's list of users does not end.")

    async def servers_of(self, user: str) -> tuple[HubServer, ...] | None:
        """Return the live servers of one user; None when the hub has no such user.

        The hub also answers 404 about users whom the asking token may not see, so that answer
        counts only when the service's own rights are unrestricted.
        """
        model = await self._get(f"/users/{_quoted(user)}", missing_is_none=True)
        if model is None:
            lacking = await self.missing_scopes()
            if lacking:
                raise HubError(_lacks(lacking))
            return None
        return _servers_of(model, self._ahead())

    async def server_names(self, user: str) -> frozenset[str]:
        """Return the names of the servers that the hub has for a user, running or not.

        Raises :exc:`HubError`.
        """
        path = f"/users/{_quoted(user)}?include_stopped_servers=1"
        model = _mapping(await self._get(path, missing_is_none=True) or {"servers": {}})
        servers = model.get("servers")
        if not isinstance(servers, dict):
            raise HubError(_lacks(frozenset({"read:servers"})))
        return frozenset(name for name in servers if isinstance(name, str))

    async def account(self, user: str) -> Account | None:
        """Return a user with their groups and live servers; None when the hub has no such user."""
        model = await self._get(f"/users/{_quoted(user)}", missing_is_none=True)
        if model is None:
            lacking = await self.missing_scopes()
            if lacking:
                raise HubError(_lacks(lacking))
            return None
        groups = _mapping(model).get("groups")
        if not isinstance(groups, list):
            raise HubError(_lacks(frozenset({"read:users:groups"})))
        names = frozenset(group for group in groups if isinstance(group, str))
        admin = _mapping(model).get("admin") is True
        return Account(Person(user, names, admin), _servers_of(model, self._ahead()))

    async def start_server(self, user: str, name: str, options: Mapping[str, Any]) -> None:
        """Ask the hub to start a server; return when it has begun. Raises :exc:`HubError`."""
        path = f"/users/{_quoted(user)}/server"
        if name:
            path = f"/users/{_quoted(user)}/servers/{_quoted(name)}"
        status, body = await self._fetch("POST", path, json.dumps(options))
        if status not in (201, 202):
            raise HubError(f"The hub did not start server {name!r} of {user!r}: {_told(body)}")

    async def missing_scopes(self) -> frozenset[str]:
        """Return which of :data:`NEEDED_SCOPES` the service does not have without limits."""
        model = await self._get("/user")
        scopes = model.get("scopes") if isinstance(model, dict) else None
        if not isinstance(scopes, list):
            raise HubError("The hub does not say which rights the service has.")
        return NEEDED_SCOPES.difference(scope for scope in scopes if isinstance(scope, str))

    async def stop_server(self, user: str, name: str) -> None:
        """Ask the hub to stop a server; return when it has begun. Raises :exc:`HubError`."""
        path = f"/users/{_quoted(user)}/server"
        if name:
            path = f"/users/{_quoted(user)}/servers/{_quoted(name)}"
        status, body = await self._fetch("DELETE", path)
        if status not in (202, 204):
            raise HubError(f"The hub did not stop server {name!r} of {user!r}: {_told(body)}")

    async def note_activity(self, user: str, server: str, at: datetime, token: str) -> None:
        """Report to the hub that a server was in use at that time, with the server's own token.

        Raises :exc:`HubError`.
        """
        moment = (at + self._ahead()).astimezone(timezone.utc).isoformat()
        sent = {"last_activity": moment, "servers": {server: {"last_activity": moment}}}
        path = f"/users/{_quoted(user)}/activity"
        status, body = await self._fetch("POST", path, json.dumps(sent), token=token)
        if status != 200:
            raise HubError(f"The hub did not record activity of {user!r}: {_told(body)}")

    async def _get(self, path: str, *, missing_is_none: bool = False) -> Any:
        status, body = await self._fetch("GET", path)
        if status == 404 and missing_is_none:
            return None
        if status == 403:
            raise HubError(f"The hub refuses the service its rights: {_told(body)}")
        if status != 200:
            raise HubError(f"The hub answered {status}: {_told(body)}")
        try:
            return json.loads(body)
        except ValueError:
            raise HubError("The hub's answer is not JSON.") from None

    async def _fetch(
        self, method: str, path: str, sent: str | None = None, *, token: str = ""
    ) -> tuple[int, bytes]:
        request = HTTPRequest(
            self._api_url + path,
            method=method,
            body=sent,
            headers={"Authorization": f"token {token or self._token}", "Accept": PAGINATED},
            connect_timeout=5.0,
            request_timeout=self._timeout,
            follow_redirects=False,
            ssl_options=self._ssl,
        )
        client = checked_client(check_hub)
        try:
            response = await client.fetch(request, raise_error=False)
        except (HTTPClientError, OSError, ValueError) as error:
            if isinstance(error, WrongPeer):
                self.stranger(error)
            raise HubAway(f"The hub does not answer at {self._api_url} ({error}).") from error
        finally:
            client.close()
        if response.code == 599:
            raise HubAway(f"The hub does not answer at {self._api_url} ({response.error}).")
        return response.code, response.body


def _servers_of(model: Any, ahead: timedelta) -> tuple[HubServer, ...]:
    user = _mapping(model)
    name = user.get("name")
    servers = user.get("servers")
    if not isinstance(name, str) or not isinstance(servers, dict):
        # A user model without its servers means a missing right, not a user without servers.
        raise HubError(_lacks(frozenset({"read:servers"})))
    return tuple(_server(name, server, ahead) for server in servers.values())


def _server(user: str, raw: Any, ahead: timedelta) -> HubServer:
    model = _mapping(raw)
    name = model.get("name")
    ready = model.get("ready")
    pending = model.get("pending")
    if not isinstance(name, str) or not isinstance(ready, bool):
        raise HubError(f"The hub's description of a server of {user!r} cannot be read.")
    options = model.get("user_options")
    options = options if isinstance(options, dict) else {}
    tier = options.get("tier")
    url = model.get("url")
    started = _time(model.get("started"))
    return HubServer(
        user=user,
        name=name,
        ready=ready,
        pending=pending if isinstance(pending, str) else "",
        started=None if started is None else started - ahead,
        url=url if isinstance(url, str) else "",
        tier=tier if isinstance(tier, str) else "",
        options=options,
        noted=started,
    )


def _time(raw: Any) -> datetime | None:
    """Return an ISO 8601 time of the hub as aware UTC; None without one or if it is unreadable."""
    if not isinstance(raw, str):
        return None
    try:
        # Python 3.10 does not read the trailing Z.
        moment = datetime.fromisoformat(raw.replace("Z", "+00:00"))
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)


def _mapping(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise HubError("The hub's answer does not have the expected form.")
    return raw


def _quoted(part: str) -> str:
    if part in (".", ".."):
        # Not changed by quoting: it would be another address.
        raise HubError(f"The hub has no address for {part!r}.")
    # The same characters that the hub itself leaves alone (jupyterhub.utils.url_escape_path).
    return quote(part, safe="@~")


def _lacks(scopes: frozenset[str]) -> str:
    return (
        f"The hub has not given the service {', '.join(sorted(scopes))} for everybody; "
        "give its role these scopes in the hub's configuration."
    )


def _told(body: bytes) -> str:
    """Return what the hub says in an error, cut short; for the log, never for visitors."""
    try:
        message = json.loads(body).get("message", "")
    except (ValueError, AttributeError):
        message = ""
    return repr(str(message)[:200]) if message else "it does not say why."
