"""HTTP clients that look who answers before they send anything.

Relies on tornado's simple client, which opens a connection for each request. Promises that a
request is sent only after the check that its maker gave has seen the open connection.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from tornado.iostream import IOStream
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.tcpclient import TCPClient

Check = Callable[[socket.socket], None]
"""Looks at a connection, and raises :exc:`WrongPeer` when nothing may be sent on it."""


class WrongPeer(OSError):
    """Another process answers, or it is not known which; the text says so.

    ``uid`` is that of another local user who has the port, None where that is not what is wrong.
    """

    def __init__(self, text: str, uid: int | None = None, pids: frozenset[int] = frozenset()):
        super().__init__(text)
        self.uid = uid
        self.pids = pids


class CheckedTCPClient(TCPClient):
    """Opens connections, and closes those whose other end is not the right one."""

    def __init__(self, check: Check, **options: Any) -> None:
        super().__init__(**options)
        self._check = check

    async def connect(self, *args: Any, **kwargs: Any) -> IOStream:
        """Connect and check. Raises :exc:`WrongPeer` besides what tornado's client raises."""
        stream = await super().connect(*args, **kwargs)
        try:
            self._check(stream.socket)
        except BaseException:
            stream.close()
            raise
        return stream


def checked_client(check: Check, **options: Any) -> SimpleAsyncHTTPClient:
    """Return an HTTP client of its own that checks every connection; close it after use."""
    client = SimpleAsyncHTTPClient(force_instance=True, **options)
    client.tcp_client = CheckedTCPClient(check, resolver=client.resolver)
    return client
