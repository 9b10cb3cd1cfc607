"""The way on which a hub gives its settings to its service, its agent and the command line.

Relies on Linux: a sealed file in memory (memfd_create(2)), an abstract unix socket (unix(7)) in the
hub's process, and the credentials that the kernel gives of the process at its other end. Promises
that only the hub's user and root are given the settings, which never are in a file on a disk, in an
argument or in the environment; and that they are gone when the hub is, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

SETTINGS = "MIGSPAWNER_SETTINGS"
"""Environment variable: where the service asks its hub for its settings."""

PATIENCE = 10.0
"""Seconds after which a hub that does not answer, such as a stopped one, is asked no more."""

LARGEST = 64 << 20
"""Bytes of settings that are read at most."""

_PREFIX = "migspawner-settings-"
_DIGITS = 16
_GIVEN = b"settings"
_REFUSED = b"refused"
_CREDENTIALS = struct.Struct("=iII")

log = logging.getLogger("migspawner.hub")


class Outcome(Enum):
    """What came of asking a hub."""

    GIVEN = "given"
    REFUSED = "refused"
    SILENT = "silent"
    STRANGE = "strange"
    """It is a process of a user who is not believed."""


@dataclass(frozen=True)
class Answer:
    """What the process at a hub's socket answered; ``pid`` and ``uid`` are the kernel's word."""

    outcome: Outcome
    pid: int
    uid: int
    document: bytes = b""


class Handover:
    """The settings of one hub, for processes that may ask; ``home`` identifies the hub."""

    def __init__(self, home: str, document: bytes) -> None:
        """Keep the document in memory and open the socket. Raises :exc:`OSError`."""
        self.name = f"{_prefix(home)}{secrets.token_hex(8)}"
        #: The descriptor of the sealed file with the document.
        self.file = sealed_file(document)
        self._asked = socket.socket(socket.AF_UNIX)
        self._asked.bind(f"\0{self.name}")
        self._asked.listen(128)

    def serve(self) -> None:
        """Answer in a thread, as long as this process lives."""
        threading.Thread(target=self._serve, name="migspawner-settings", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._asked.accept()
                with line:
                    self._answer(line)
            except OSError as error:
                log.warning("A request for the settings was not answered: %s", error)
                time.sleep(0.1)

    def _answer(self, line: socket.socket) -> None:
        line.settimeout(1.0)
        # A client that has gone again needs no answer.
        with suppress(BrokenPipeError, ConnectionError):
            if _peer(line)[1] in (0, os.geteuid()):
                socket.send_fds(line, [_GIVEN], [self.file])
            else:
                line.sendall(_REFUSED)


def sealed_file(document: bytes) -> int:
    """Return the descriptor of a file in memory that nobody can change.

    Raises :exc:`OSError`.
    """
    descriptor = os.memfd_create("migspawner-settings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.fchmod(descriptor, 0o600)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(document)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(descriptor: int) -> bytes:
    """Return what a sealed file holds, wherever another process has read to.

    Raises :exc:`OSError`.
    """
    size = min(os.fstat(descriptor).st_size, LARGEST)
    content = b""
    while len(content) < size:
        piece = os.pread(descriptor, size - len(content), len(content))
        if not piece:
            break
        content += piece
    return content


def ask(name: str, believe: Collection[int], *, patience: float = PATIENCE) -> Answer:
    """Ask the hub at a socket; read nothing from a process of users other than ``believe`` (uids).

    Raises :exc:`OSError` when there is no such socket.
    """
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(patience)
        line.connect(f"\0{name}")
        pid, uid = _peer(line)
        if uid not in believe:
            return Answer(Outcome.STRANGE, pid, uid)
        try:
            word, descriptors, _, _ = socket.recv_fds(line, 64, 4)
        except TimeoutError:
            return Answer(Outcome.SILENT, pid, uid)
        document = b""
        try:
            if word == _GIVEN and descriptors:
                document = read_file(descriptors[0])
        finally:
            for each in descriptors:
                os.close(each)
        if document:
            return Answer(Outcome.GIVEN, pid, uid, document)
        return Answer(Outcome.REFUSED if word == _REFUSED else Outcome.SILENT, pid, uid)


def ask_running(
    home: str, believe: Collection[int], *, patience: float = PATIENCE
) -> Iterator[Answer]:
    """Ask every process that says it is the hub of this home; yield nothing while no hub runs."""
    for name in _names(home):
        with suppress(OSError):
            yield ask(name, believe, patience=patience)


def _names(home: str) -> list[str]:
    """Return the names of the sockets of this home's hubs on this machine.

    proc_net(5): the path of an abstract one begins with ``@``.
    """
    try:
        lines = Path("/proc/net/unix").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    words = (line.split()[-1] for line in lines if line.strip())
    start = f"@{_prefix(home)}"
    return sorted({word[1:] for word in words if word.startswith(start)})


def _prefix(home: str) -> str:
    return f"{_PREFIX}{hashlib.sha256(home.encode()).hexdigest()[:_DIGITS]}-"


def _peer(line: socket.socket) -> tuple[int, int]:
    raw = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid
