"""The web server's connections: who may connect, how many there are, and for how long.

Relies on tornado's HTTP server to read requests within the times given to it, and on
:mod:`...sockets` to know who connects. Promises that no number of half-sent requests, unread
answers or refused clients uses up this process's file descriptors or fills the log, and that a
process without descriptors waits for a moment instead of trying again at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import select
import socket
import struct
from asyncio import Future
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from tornado.iostream import IOStream

from jupyterhub_migspawner.service.http.body import MOST_READ
from jupyterhub_migspawner.sockets import peer_of

#: Lines that people outside can cause; see :mod:`.logs`.
log = logging.getLogger("migspawner.service.requests")

MOST_OPEN = 512
"""Connections at the same time."""

MOST_OF_ONE = 64
"""Connections at the same time of one local user who is neither root nor the hub's."""

HEADER_SECONDS = 20.0
"""Seconds for the headers of a request, and for the next request on an open connection."""

BODY_SECONDS = 30.0
"""Seconds for the body of a request."""

ANSWER_SECONDS = 120.0
"""Seconds for a client to read its answer."""

MOST_UNREAD = 64 * 1024 * 1024
"""Bytes of answers that are kept for clients who have not read them yet, of all together."""

SWEEP_SECONDS = 5.0
"""Seconds between two searches for clients that do not read their answer."""

MOST_HEADERS = 32 * 1024
"""Bytes of the headers of a request."""

OTHER_FILES = 128
"""Descriptors that are left for everything but the web server's connections."""

PAUSE_SECONDS = 1.0
"""Seconds for which no connection is accepted after the system refused one."""

LINGER_SECONDS = 2.0
"""Seconds in which a proxy may read an answer after which its unix socket is closed."""

AT_ONCE = 64
"""Connections that are accepted before other work of the event loop gets its turn."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CREDENTIALS = struct.Struct("=iII")


def connection_limit(files: int) -> int:
    """Return how many connections fit beside everything else when ``files`` may be open."""
    return max(16, min(MOST_OPEN, files - OTHER_FILES))


@dataclass
class _Open:
    """An open connection; ``since`` is when its request began to be read or was read."""

    stream: IOStream
    uid: int | None
    since: float
    reading: bool = True


class Connections(HTTPServer):
    """An HTTP server that accepts, counts and ends its connections itself.

    ``callers`` are the uids whose connections are accepted, None for those of every user.
    ``clock`` gives seconds.
    """

    def initialize(  # type: ignore[override]
        self,
        application: Callable[..., None],
        *,
        callers: Collection[int] | None = None,
        most: int = MOST_OPEN,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """Set up the server; called by tornado's constructor."""
        super().initialize(
            application,
            xheaders=True,
            max_body_size=MOST_READ,
            max_buffer_size=MOST_READ,
            max_header_size=MOST_HEADERS,
            idle_connection_timeout=HEADER_SECONDS,
            body_timeout=BODY_SECONDS,
        )
        self._callers = None if callers is None else frozenset(callers)
        self._most = most
        self._clock = clock
        self._open: dict[IOStream, _Open] = {}
        self._listening: list[socket.socket] = []
        self._paused: set[socket.socket] = set()
        self._sweep: asyncio.TimerHandle | None = None

    # -- accepting -------------------------------------------------------------------------------

    def serve(self, listening: Collection[socket.socket]) -> None:
        """Accept connections of these sockets, from now on."""
        self._listening = list(listening)
        for each in self._listening:
            each.setblocking(False)
            self._resume(each)
        self._sweep_later()

    def stop(self) -> None:
        """Accept no more connections, and close the sockets; another process may have them."""
        super().stop()
        loop = asyncio.get_event_loop()
        if self._sweep is not None:
            self._sweep.cancel()
        listening, self._listening = self._listening, []
        for each in listening:
            loop.remove_reader(each)
            each.close()

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._listening:
            self._paused.discard(listening)
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _pause(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._paused.add(listening)
        loop.call_later(PAUSE_SECONDS, self._resume, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(AT_ONCE):
            if len(self._open) >= self._most and not self._end_one():
                # All are being answered: the next ones wait in the kernel's queue.
                self._pause(listening)
                return
            try:
                # A caller whose uid cannot be looked up would be refused, and the look-up takes a
                # descriptor: the one that would get the last one waits in the queue instead.
                spare = os.dup(listening.fileno())
                try:
                    connection, address = listening.accept()
                finally:
                    os.close(spare)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if not _is_waited_for(listening):
                    return
                if error.errno not in _EXHAUSTED:
                    log.warning("A connection cannot be accepted: %s", error)
                else:
                    log.error("No connection can be accepted for now: %s", error)
                    self._end_one()
                self._pause(listening)
                return
            self._begin(connection, address)

    def _begin(self, connection: socket.socket, address: object) -> None:
        uid = uid_of(connection)
        if not self._may(uid):
            log.warning("A connection of the local user with uid %s is refused.", uid)
            connection.close()
            return
        connection.setblocking(False)
        try:
            unix = connection.family == socket.AF_UNIX
            stream = (_LingeringStream if unix else _Stream)(connection, max_buffer_size=MOST_READ)
            stream.unread = self._bound_unread
            self._open[stream] = _Open(stream, uid, self._now())
            self.handle_stream(stream, address if isinstance(address, tuple) else ("", 0))
        except OSError as error:
            log.warning("A connection cannot be served: %s", error)
            connection.close()

    def _may(self, uid: int | None) -> bool:
        if uid is not None and uid in (0, os.geteuid()):
            return True
        if self._callers is not None:
            return uid in self._callers
        of_uid = [each for each in self._open.values() if each.uid == uid]
        # Many people may stand behind one user's proxy: who sends slowest makes room for the next.
        return len(of_uid) < MOST_OF_ONE or self._end_one(of_uid)

    # -- ending ----------------------------------------------------------------------------------

    def _end_one(self, among: Collection[_Open] | None = None) -> bool:
        """Close the connection that has sent its request for longest; return False without one."""
        slow = [each for each in among or self._open.values() if each.reading]
        if not slow:
            return False
        oldest = min(slow, key=lambda each: each.since)
        log.warning("Too many connections are open; the one that sends slowest is closed.")
        self._forget(oldest.stream)
        oldest.stream.close()
        return True

    def end_unread(self) -> None:
        """Close connections whose clients do not read their answers."""
        now = self._now()
        for each in list(self._open.values()):
            if each.stream.closed():
                self._forget(each.stream)
            elif not each.reading and each.stream.writing() and now - each.since > ANSWER_SECONDS:
                log.warning("A client does not read its answer; its connection is closed.")
                self._forget(each.stream)
                each.stream.close()

    def _bound_unread(self) -> None:
        """Close connections whose answers have waited longest to be read, if too much waits."""
        waiting = {
            each.stream: size
            for each in self._open.values()
            if (size := len(each.stream._write_buffer))
        }
        total = sum(waiting.values())
        for stream in sorted(waiting, key=lambda stream: self._open[stream].since):
            if total <= MOST_UNREAD:
                return
            total -= waiting[stream]
            log.warning("Too many answers are not read; a connection is closed.")
            self._forget(stream)
            stream.close()

    def _sweep_later(self) -> None:
        def sweep() -> None:
            self.end_unread()
            self._sweep_later()

        self._sweep = asyncio.get_running_loop().call_later(SWEEP_SECONDS, sweep)

    def _forget(self, stream: IOStream) -> None:
        self._open.pop(stream, None)

    def _now(self) -> float:
        return (self._clock or asyncio.get_running_loop().time)()

    @property
    def open_connections(self) -> int:
        """How many connections are open."""
        return len(self._open)

    # -- what tornado calls ----------------------------------------------------------------------

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Note that a request begins to be read."""
        delegate = super().start_request(server_conn, request_conn)
        assert isinstance(server_conn, HTTP1ServerConnection)
        entry = self._open.get(server_conn.stream)
        if entry is None:
            return delegate
        entry.reading, entry.since = True, self._now()

        def read() -> None:
            entry.reading, entry.since = False, self._now()

        return _Noted(delegate, read)

    def on_close(self, server_conn: object) -> None:
        """Forget a connection that has ended."""
        super().on_close(server_conn)
        assert isinstance(server_conn, HTTP1ServerConnection)
        self._forget(server_conn.stream)


class _Stream(IOStream):
    """A stream that says so when what is written is not read at once."""

    #: Called then.
    unread: Callable[[], None] = staticmethod(lambda: None)

    def write(self, data: bytes | memoryview) -> Future[None]:
        """Write, as tornado's own."""
        written: Future[None] = super().write(data)
        if self.writing():
            self.unread()
        return written


class _LingeringStream(_Stream):
    """A stream over a unix socket, closed once the other side has read everything.

    Node.js, and so configurable-http-proxy, ends a request with an empty write. On a unix socket
    that has been closed this fails at once, and what was answered is not read any more.
    """

    def close_fd(self) -> None:
        """Send the end of the answer, and close the socket when the other side does."""
        connection, self.socket = self.socket, None  # type: ignore[assignment]
        try:
            connection.shutdown(socket.SHUT_WR)
            loop = asyncio.get_running_loop()
        except (OSError, RuntimeError):
            connection.close()
            return

        def end() -> None:
            loop.remove_reader(connection)
            connection.close()
            late.cancel()

        def read() -> None:
            try:
                if connection.recv(65536):
                    return
            except BlockingIOError:
                return
            except OSError:
                pass
            end()

        late = loop.call_later(LINGER_SECONDS, end)
        loop.add_reader(connection, read)


class _Noted(HTTPMessageDelegate):
    """Passes a request on, and notes when all of it has been read."""

    def __init__(self, to: HTTPMessageDelegate, read: Callable[[], None]) -> None:
        self._to = to
        self._read = read

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        return self._to.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._to.data_received(chunk)

    def finish(self) -> None:
        self._read()
        self._to.finish()

    def on_connection_close(self) -> None:
        self._to.on_connection_close()


def uid_of(connection: socket.socket) -> int | None:
    """Return the local user at the other end; None when that is not known."""
    if connection.family == socket.AF_UNIX:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        uid: int = _CREDENTIALS.unpack(raw)[1]
        return uid
    owner = peer_of(connection)
    return None if owner is None else owner.uid


def _is_waited_for(listening: socket.socket) -> bool:
    """Return whether a connection waits to be accepted. Takes no descriptor."""
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    return bool(poll.poll(0))
