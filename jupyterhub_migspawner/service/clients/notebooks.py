"""Servers of sessions, as the broker talks to them: what runs there, and notices to send there.

Relies on Jupyter Server's REST API, and for notices on this package's extension of it
(:mod:`jupyterhub_migspawner.notebook`), where that is installed. Promises that whatever a server
says, slowly or at length, costs a bounded time and nobody else's turn (it is read and understood
beside the caller's event loop); and that no token but a server's own is ever sent to it, and to
nobody else (:mod:`.peers`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import HTTPInputError

from jupyterhub_migspawner.clients import WrongPeer, checked_client
from jupyterhub_migspawner.notebook import ACTIVITY_PATH, KERNELS_PATH, PATH
from jupyterhub_migspawner.service.clients.background import BackgroundLoop
from jupyterhub_migspawner.service.clients.peers import ServerCheck
from jupyterhub_migspawner.service.clients.tokens import Reach

THREAD = "migspawner-notebooks"

IN_FLIGHT = 40
"""Servers that are asked at the same time."""

PATIENCE = 10.0
"""Seconds for one answer of a server."""

MOST_BYTES = 256 * 1024
"""Bytes of one answer that are read."""

MOST_HEADERS = 16 * 1024
"""Bytes of the headers of one."""

MOST_LISTED = 1000
"""Kernels or terminals of one server; more are no answer of a person's server."""

MOST_PARTS = 20 * MOST_LISTED
"""Parts of such a list that are worth parsing, which holds everybody else up."""

MOST_WISHED = 100
"""Characters of the name of an extension request."""

AT_REST = frozenset({"idle", "starting", "restarting", "autorestarting", "dead"})
"""States of a kernel in which it computes nothing (jupyter_client, jupyter_server). In any other
one, known or not, it counts as busy."""


@dataclass(frozen=True)
class Said:
    """What a server says of its kernels and terminals."""

    fingerprint: str
    busy: bool
    words: str


class NotSaid(Exception):
    """A server did not answer, or not in a way that can be read; the text says how."""


class Notebooks:
    """Talks to servers; at most ``in_flight`` at the same time."""

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None = None,
        in_flight: int = IN_FLIGHT,
        *,
        wrong_peer: Callable[[Reach, WrongPeer], None] = lambda reach, error: None,
    ) -> None:
        """Prepare to talk to servers, ``in_flight`` at the same time.

        ``wrong_peer`` is called, in another thread, for those who answer in a server's place.
        """
        self._ssl = ssl_context
        self._turns = asyncio.Semaphore(in_flight)
        self._background = BackgroundLoop(THREAD)
        self._peers = ServerCheck()
        self._wrong_peer = wrong_peer

    def close(self) -> None:
        """Let go of all connections; what is being asked is not answered any more."""
        self._background.close(lambda: None)

    async def runs(self, reach: Reach) -> Said:
        """Return what runs on a server. Raises :exc:`NotSaid`."""
        if reach.problem:
            raise NotSaid(reach.problem)
        async with self._turns:
            return await self._background.run(self._runs(reach))

    async def _runs(self, reach: Reach) -> Said:
        try:
            # One time for all of them: none of them is the longer for coming last.
            said = await asyncio.wait_for(self._lists(reach), 2 * PATIENCE)
        except asyncio.TimeoutError as error:
            raise NotSaid("its server does not answer in time") from error
        return read(*said)

    async def _lists(self, reach: Reach) -> tuple[list[Any], list[Any], list[Any], int | None]:
        kernels = await self._list(reach, "api/kernels")
        terminals = await self._list(reach, "api/terminals")
        # Where this package's extension is not installed, the server's own word has to do.
        watched = await self._list(reach, KERNELS_PATH)
        return kernels, terminals, watched, await self._acts(reach)

    async def _acts(self, reach: Reach) -> int | None:
        """Return how much its person did beside kernels and terminals; None if not reported."""
        response = await self._ask(reach, ACTIVITY_PATH)
        return None if response.code == 404 else _number(_read_json(response), "acts")

    async def tell(self, reach: Reach, word: dict[str, Any]) -> str:
        """Send a notice to a server's person; return their extension request, or nothing.

        A server without this package's extension hears nothing of it. Raises :exc:`NotSaid`.
        """
        async with self._turns:
            return await self._background.run(self._tell(reach, json.dumps(word)))

    async def _tell(self, reach: Reach, word: str) -> str:
        response = await self._ask(reach, PATH, "PUT", word)
        if response.code == 404:
            return ""
        found = _read_json(response)
        extension_request = found.get("wish") if isinstance(found, dict) else None
        if not isinstance(extension_request, str) or len(extension_request) > MOST_WISHED:
            raise NotSaid("the answer of its server cannot be read")
        return extension_request

    async def _list(self, reach: Reach, path: str) -> list[Any]:
        """Return a list of the server's own API. That it was asked is no activity of anybody's."""
        response = await self._ask(reach, path)
        if response.code == 404 and path != "api/kernels":
            return []  # a server without terminals (terminals_enabled), or without our extension
        found = _read_json(response)
        if not isinstance(found, list) or len(found) > MOST_LISTED:
            raise NotSaid("the answer of its server cannot be read")
        return found

    async def _ask(
        self, reach: Reach, path: str, method: str = "GET", body: str | None = None
    ) -> HTTPResponse:
        in_chunks = False

        def look(line: str) -> None:
            # Jupyter Server sends the length of its lists. A body of a hundred thousand chunks of
            # one byte is no list but a second's work for its reader.
            nonlocal in_chunks
            if line.lower().startswith("transfer-encoding:"):
                in_chunks = True
                raise HTTPInputError("An answer in chunks is not read.")

        request = HTTPRequest(
            f"{reach.url}{path}?no_track_activity=1",
            method=method,
            body=body,
            headers={"Authorization": f"token {reach.token}", "Accept": "application/json"},
            connect_timeout=PATIENCE,
            request_timeout=PATIENCE,
            follow_redirects=False,
            decompress_response=False,
            header_callback=look,
            ssl_options=self._ssl if urlsplit(reach.url).scheme == "https" else None,
        )
        client = checked_client(
            self._peers.of(reach.user, reach.attempt),
            # Older tornado bounds a body without a length by its buffer alone.
            max_buffer_size=MOST_BYTES,
            max_body_size=MOST_BYTES,
            max_header_size=MOST_HEADERS,
        )
        try:
            return await asyncio.wait_for(client.fetch(request, raise_error=False), 2 * PATIENCE)
        except WrongPeer as error:
            self._wrong_peer(reach, error)
            raise NotSaid(str(error)) from error
        except Exception as error:
            # Whatever an untrusted server does to the client, it gave no answer.
            if in_chunks:
                raise NotSaid(
                    "its server answers in chunks, which Jupyter Server does not do"
                ) from error
            raise NotSaid(f"its server does not answer{_why(error)}") from error
        finally:
            client.close()


def _why(error: Exception) -> str:
    """Return the system's words for a failed call, in brackets; not every failure has them."""
    said = error.strerror if isinstance(error, OSError) else None
    return f" ({said[0].lower()}{said[1:]})" if said else ""


def _read_json(response: HTTPResponse) -> Any:
    if response.code != 200:
        told = response.error if response.code == 599 else f"status {response.code}"
        raise NotSaid(f"its server does not report what runs there ({told})")
    if sum(response.body.count(each) for each in (b"{", b"[", b",")) > MOST_PARTS:
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        return None


def read(
    kernels: list[Any],
    terminals: list[Any],
    watched: list[Any] | None = None,
    acts: int | None = None,
) -> Said:
    """Return what a server's lists of kernels and terminals say. Raises :exc:`NotSaid`.

    ``watched`` is what this package's extension has heard from the kernels themselves: by that,
    what a page asks by itself is no use, and a cell computes on whatever else is done meanwhile.
    ``acts`` is how often its person has written or opened something, by the same extension.
    Times are compared with those of before and with nothing else: whose clock they come from
    does not matter. That a page is connected is no sign of use.
    """
    heard = {_text(each, "id"): each for each in watched or ()}
    busy, signs = 0, []
    for kernel in kernels:
        name, state = _text(kernel, "id"), _text(kernel, "execution_state")
        last = _text(kernel, "last_activity")
        if name in heard:
            # A kernel that dies in a cell stays busy for Jupyter Server, and one that is asked
            # something while it computes is at rest.
            busy += _number(heard[name], "running") > 0 and state != "dead"
            signs.append(f"kernel {name} {_number(heard[name], 'heard')}")
        else:
            busy += state not in AT_REST
            signs.append(f"kernel {name} {state} {last}")
    for terminal in terminals:
        signs.append(f"terminal {_text(terminal, 'name')} {_text(terminal, 'last_activity')}")
    words = f"{len(kernels)} kernel{'' if len(kernels) == 1 else 's'}, {busy} busy"
    if terminals:
        words += f"; {len(terminals)} terminal{'' if len(terminals) == 1 else 's'}"
    if acts is not None:
        signs.append(f"person {acts}")
        words += f"; {acts} {'action' if acts == 1 else 'actions'} in the browser"
    digest = hashlib.sha256("\n".join(sorted(signs)).encode("utf-8", "replace")).hexdigest()
    return Said(digest, bool(busy), words)


def _number(model: Any, name: str) -> int:
    value = model.get(name) if isinstance(model, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise NotSaid("the answer of its server cannot be read")
    return value


def _text(model: Any, name: str) -> str:
    value = model.get(name) if isinstance(model, dict) else None
    # Older terminado gives no time of a terminal's last activity.
    if value is None and name == "last_activity" and isinstance(model, dict):
        return ""
    if not isinstance(value, str):
        raise NotSaid("the answer of its server cannot be read")
    return value
