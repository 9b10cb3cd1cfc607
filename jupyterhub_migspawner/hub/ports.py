"""The service's sockets, held by the hub: nobody else can take them while the service is away.

Relies on the hub's process, which opens them while it reads its configuration and keeps them as
long as it lives. Promises that the service it started gets them, over a unix socket that only the
hub's user can reach; that requests wait meanwhile, for a while; that the hub hears at once when the
service has gone; and that the path of the unix socket which the proxy is given lies where no other
user can put anything, whether hub and service live or not.

The sockets are handed over on a unix socket, in the folder that only the hub's user can enter, or
without one on an abstract socket (unix(7)). Each side looks at the other's credentials: the hub
serves only its own children, and a service believes only its hub. Neither descriptors that are
used up nor other users' connections keep the next service from its sockets.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import select
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jupyterhub_migspawner.outages import Outage

SOCKETS = "MIGSPAWNER_SOCKETS"
"""Environment variable: where the service asks its hub for its sockets."""

CALLERS = "MIGSPAWNER_CALLERS"
"""Environment variable: ``hub`` when only the hub's user connects to the service, else ``any``."""

QUEUE = 1024
"""Connections that wait while the service starts."""

WEB = "web"
"""The name of the unix socket that the proxy connects to, before the pid of its hub."""

ASK = "ask"
"""The name of the unix socket where a service gets its sockets, before the pid of its hub."""

ASK_SECONDS = 10.0
"""Seconds in which a service asks again while its hub has no descriptor or no time for it."""

AT_ONCE = 64
"""Connections that are looked at before a service that has ended is noticed."""

PATIENCE = 20.0
"""Seconds without a service after which waiting requests are answered that it is away."""

LONGEST_PATH = 100
"""Bytes of a unix socket's path (unix(7): 108 with the byte that ends it)."""

_PREFIX = ".migspawner-"
_DIGITS = 10
_LARGEST_PID = 4194304
_CREDENTIALS = struct.Struct("=iII")
_AWAY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 10\r\n"
    b"Content-Length: 55\r\nConnection: close\r\n\r\n"
    b"The GPU service is restarting; try again in a minute.\r\n"
)

log = logging.getLogger("migspawner.hub")


@dataclass(frozen=True)
class Given:
    """What the service has from its hub; ``line`` stays open as long as it lives."""

    listening: tuple[socket.socket, ...]
    line: socket.socket


class ServicePorts:
    """The service's sockets in the hub's process."""

    def __init__(self, folder: Path | None) -> None:
        """Open the sockets; ``folder`` is for the unix sockets, None where there is no safe one."""
        tcp = socket.socket()
        tcp.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
        self.listening = [tcp]
        self.socket_url = ""
        if folder is not None:
            # A name of its own: another hub of this configuration, started by mistake or only to
            # make certificates, must not take away the socket of the one that runs.
            path = folder / f"{WEB}-{os.getpid()}"
            _remove_old(folder)
            self.listening.append(_bound(path))
            self.socket_url = f"http+unix://{quote(str(path), safe='')}"
        for each in self.listening:
            each.listen(QUEUE)
            each.setblocking(False)
        if folder is not None:
            # Where nobody else can even connect.
            self.asked_at = str(folder / f"{ASK}-{os.getpid()}")
            self._asked = _bound(Path(self.asked_at))
        else:
            self.asked_at = f"migspawner-{os.getpid()}-{secrets.token_hex(8)}"
            self._asked = socket.socket(socket.AF_UNIX)
            self._asked.bind(f"\0{self.asked_at}")
        self._asked.listen(QUEUE)
        self._asked.setblocking(False)
        self._gone: Callable[[int], None] = lambda pid: None
        self._lines: dict[socket.socket, int] = {}
        # Set from the end of a service on: before the first one the hub itself is starting.
        self._alone = threading.Event()
        self._alone_since = 0.0

    def hand_over(self, gone: Callable[[int], None]) -> None:
        """Give the sockets to each service that this process starts, beside all else that it does.

        ``gone`` is called, in another thread, with the pid of a service that has ended.
        """
        self._gone = gone
        for name, work in (("ports", self._serve), ("excuse", self._excuse)):
            threading.Thread(
                target=_for_ever, args=(work,), name=f"migspawner-{name}", daemon=True
            ).start()

    def _serve(self) -> None:
        """Give the sockets to a service that asks, and learn of the end of one."""
        # poll(2) takes no descriptor of its own: the hub may have none left.
        poll = select.poll()
        for each in (self._asked, *self._lines):
            poll.register(each, select.POLLIN)
        ready = {number for number, _ in poll.poll()}
        for line in list(self._lines):
            if line.fileno() in ready:
                self._hear(line)
        if self._asked.fileno() in ready:
            for _ in range(AT_ONCE):
                try:
                    line, _ = self._asked.accept()
                except BlockingIOError:
                    return
                self._give(line)

    def _give(self, line: socket.socket) -> None:
        given = False
        try:
            pid, uid = _peer(line)
            if uid == os.geteuid() and _parent(pid) == os.getpid():
                socket.send_fds(line, [b"sockets"], [each.fileno() for each in self.listening])
                given = True
                self._lines[line] = pid
                self._alone.clear()
        finally:
            if not given:
                line.close()

    def _hear(self, line: socket.socket) -> None:
        with suppress(ConnectionError):
            if line.recv(64):
                return
        pid = self._lines.pop(line)
        line.close()
        if not self._lines:
            self._alone_since = time.monotonic()
            self._alone.set()
        self._gone(pid)

    def _excuse(self) -> None:
        """Answer one waiting request that there is no service, where there is none for long."""
        self._alone.wait()
        rest = self._alone_since + PATIENCE - time.monotonic()
        if rest > 0:
            time.sleep(min(rest, 1.0))
            return
        poll = select.poll()
        for each in self.listening:
            poll.register(each, select.POLLIN)
        ready = {number for number, _ in poll.poll(1000)}
        for each in self.listening:
            if each.fileno() in ready and self._alone.is_set():
                _say_away(each)


def _for_ever(work: Callable[[], None]) -> None:
    outage = Outage()
    while True:
        try:
            work()
        except Exception as error:
            # Whatever it is: without this thread no service would get its sockets again.
            if outage.failed(repr(error)):
                log.warning("The GPU service's sockets: %s", error)
            time.sleep(0.1)
        else:
            outage.worked()


def _say_away(listening: socket.socket) -> None:
    try:
        connection, _ = listening.accept()
    except BlockingIOError:
        return
    with connection, suppress(OSError):
        connection.settimeout(0.2)
        connection.recv(65536)
        connection.sendall(_AWAY)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(65536)


def ask_for_sockets(name: str, hub: int, *, patience: float = ASK_SECONDS) -> Given:
    """Get the service's sockets from its hub (a pid), within so many seconds.

    Raises :exc:`ConnectionRefusedError` when the hub is gone, another :exc:`OSError` when it does
    not give them.
    """
    give_up = time.monotonic() + patience
    while True:
        try:
            return _asked(name, hub, max(0.1, give_up - time.monotonic()))
        except ConnectionRefusedError:
            raise
        except OSError:
            # The hub's queue is full, or it has no descriptor just now.
            if time.monotonic() >= give_up:
                raise
            time.sleep(0.1)


def _asked(name: str, hub: int, seconds: float) -> Given:
    line = socket.socket(socket.AF_UNIX)
    try:
        line.settimeout(seconds)
        try:
            line.connect(name if name.startswith("/") else f"\0{name}")
        except FileNotFoundError as error:
            raise ConnectionRefusedError("the hub's socket is gone") from error
        pid, uid = _peer(line)
        if pid != hub or uid not in (0, os.geteuid()):
            raise ConnectionRefusedError("another process has taken the hub's place")
        _, numbers, _, _ = socket.recv_fds(line, 64, 8)
        if not numbers:
            raise ConnectionError("the hub gives this process no sockets")
        line.settimeout(None)
    except BaseException:
        line.close()
        raise
    return Given(tuple(socket.socket(fileno=number) for number in numbers), line)


def safe_places(candidates: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the folders that only this user and root can write and a unix socket's path fits in."""
    for candidate in candidates:
        base = Path(candidate)
        longest = base / (_PREFIX + _DIGITS * "x") / f"{WEB}-{_LARGEST_PID}"
        if not base.is_absolute() or len(os.fsencode(longest)) > LONGEST_PATH:
            continue
        try:
            if is_safe(base.resolve(strict=True)):
                yield base
        except OSError:
            continue


def socket_folder(candidates: Iterable[str | Path], home: str) -> Path | None:
    """Return a folder that only this user can reach and nobody else can replace; None without one.

    The same hub, called ``home``, finds the same folder again.
    """
    name = _PREFIX + hashlib.sha256(home.encode()).hexdigest()[:_DIGITS]
    for base in safe_places(candidates):
        folder = base / name
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            folder.chmod(0o700)
        except OSError:
            continue
        return folder
    return None


def is_safe(folder: Path) -> bool:
    """Return whether only this user and root can replace what is in a folder, or on the way there.

    Raises :exc:`OSError`.
    """
    for at, each in enumerate((folder, *folder.parents)):
        found = each.stat()
        if found.st_uid not in (0, os.geteuid()):
            return False
        others_write = found.st_mode & 0o022
        # In a sticky folder, as /tmp is, nobody can replace what belongs to another.
        if others_write and (at == 0 or not found.st_mode & stat.S_ISVTX):
            return False
    return True


def _remove_old(folder: Path) -> None:
    """Remove the sockets of hubs that have ended."""
    for each in (*folder.glob(f"{WEB}-*"), *folder.glob(f"{ASK}-*")):
        pid = each.name.rpartition("-")[2]
        if not Path(f"/proc/{pid}").exists():
            each.unlink(missing_ok=True)


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    path.chmod(0o600)
    return made


def _peer(line: socket.socket) -> tuple[int, int]:
    """Return the pid and uid of the process at the other end of a unix socket."""
    raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


def _parent(pid: int) -> int:
    """Return the parent of a process; 0 when it has ended. Raises :exc:`OSError`."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.rpartition(b")")[2].split()[1])
