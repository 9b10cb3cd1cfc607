"""The hub's own key, which keeps servers' tokens unreadable in the lease database.

Several hubs and all nodes can read and write that database; a server's token is for its server, its
hub and that hub's service. So the hub seals each token (AES-256-GCM) with a key from a file that
only the hub's user can read, and its service opens it. A sealed token is bound to its lease and to
the address of its server: moved to another row, or beside another address, it does not open, so
nobody who can write the database can have a token sent to an address of theirs.

Relies on ``cryptography`` for the cipher. Promises that neither a key nor a token stands in an
error, a log or a ``repr``; that a key file is never created wider than 0600, never overwritten, and
not used while others can read it; and that a file which is replaced or mended counts at once.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets
import shlex
import stat
import threading
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_migspawner import files
from jupyterhub_migspawner.errors import ConfigError, MigspawnerError

VERSION = "v1:"
"""Every sealed token begins with it."""

ANY_LEASE = 0
"""In the place of a lease's number: a start has one lease, whatever number that has."""

KEY_BYTES = 32
NONCE_BYTES = 12

MOST_BYTES = 64 * 1024
"""Bytes of a key file; one key takes 65."""

_KEY = re.compile(r"[0-9a-fA-F]{64}")

_HEAD = """\
# The hub's key for the tokens of people's servers in the lease database.
# To replace it, put a new line above the old one (openssl rand -hex 32), and
# take the old one out when the sessions of before have ended.
"""


class SealError(MigspawnerError):
    """A sealed token does not open: another key, another lease, another address."""


@dataclass(frozen=True)
class Binding:
    """What a sealed token belongs to; it opens for nothing else.

    ``lease_id`` is :data:`ANY_LEASE` where the hub saves a token for the time after a loss of the
    lease database, when the same start of the server gets a lease of another number.
    """

    lease_id: int
    attempt: str
    url: str

    def as_bytes(self) -> bytes:
        """Return the binding as the cipher authenticates it."""
        return json.dumps([VERSION, self.lease_id, self.attempt, self.url]).encode()


@dataclass(frozen=True)
class Keys:
    """The keys of one key file: the first one seals, every one opens."""

    values: tuple[bytes, ...] = field(repr=False)

    def seal(self, token: str, binding: Binding) -> str:
        """Return the token as it may stand in the lease database."""
        # Loaded where it is needed: the command line starts faster without it.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = AESGCM(self.values[0]).encrypt(nonce, token.encode(), binding.as_bytes())
        return VERSION + base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, sealed: str, binding: Binding) -> str:
        """Return the token itself. Raises :exc:`SealError`."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            raw = base64.b64decode(sealed.removeprefix(VERSION), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if sealed.startswith(VERSION) and len(raw) > NONCE_BYTES:
            nonce, ciphertext = raw[:NONCE_BYTES], raw[NONCE_BYTES:]
            for value in self.values:
                try:
                    return AESGCM(value).decrypt(nonce, ciphertext, binding.as_bytes()).decode()
                except (InvalidTag, UnicodeDecodeError):
                    continue
        raise SealError("the token of its server does not open with this hub's key")


class KeyFile:
    """The file that keeps the hub's keys. Thread-safe."""

    def __init__(self, path: Path, *, any_owner: bool = False) -> None:
        """Name the file; ``any_owner`` is for root, who looks at the file of the hub's user."""
        self.path = path
        self._any_owner = any_owner
        self._lock = threading.Lock()
        self._known: tuple[tuple[int, ...], Keys] | None = None

    def make(self) -> Keys:
        """Return the keys; create the file if there is none. Raises :exc:`.ConfigError`."""
        if not os.path.lexists(self.path):
            text = f"{_HEAD}{secrets.token_hex(KEY_BYTES)}\n"
            try:
                # Of several that find no file, one creates it and the others read it.
                files.create(self.path, text)
            except OSError as error:
                raise ConfigError(
                    f"The key file {self.path} cannot be created ({error.strerror}). The hub "
                    "encrypts the tokens of people's servers in the lease database with its "
                    "key. Set c.MigBroker.key_file to a file in a folder that the user who runs "
                    "the hub can write to."
                ) from error
        return self.read()

    def read(self) -> Keys:
        """Return the keys, as the file has them now. Raises :exc:`.ConfigError`."""
        with self._lock:
            try:
                # Never waits for the other end of a pipe.
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError:
                self._known = None
                raise ConfigError(
                    f"The key file {self.path} does not exist. Restore it if you can; otherwise "
                    "the hub creates a new one when it or the next server starts."
                ) from None
            except OSError as error:
                raise ConfigError(
                    f"The key file {self.path} cannot be read ({error.strerror}); it has to belong "
                    "to the user who runs the hub."
                ) from error
            try:
                return self._read(descriptor)
            finally:
                os.close(descriptor)

    def _read(self, descriptor: int) -> Keys:
        found = os.fstat(descriptor)
        self._demand_private(found)
        version = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if self._known is None or self._known[0] != version:
            try:
                text = os.read(descriptor, MOST_BYTES).decode("ascii", "replace")
            except OSError as error:
                raise ConfigError(
                    f"The key file {self.path} cannot be read ({error.strerror})."
                ) from error
            self._known = version, _parsed(self.path, text)
        return self._known[1]

    def _demand_private(self, found: os.stat_result) -> None:
        """Raise :exc:`.ConfigError` unless it is a file that its owner alone can use."""
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(
                f"The key file {self.path} is not a file; move it away, or correct "
                "c.MigBroker.key_file."
            )
        mode, place = stat.S_IMODE(found.st_mode), shlex.quote(str(self.path))
        if mode & 0o077:
            raise ConfigError(
                f"The key file {self.path} can be read or changed by others (mode {mode:04o}), so "
                f"it is not used. Run `chmod 600 {place}`; if it may have been read, also put a "
                "new key above the old one, as the file says."
            )
        if not self._any_owner and found.st_uid not in (os.geteuid(), 0):
            raise ConfigError(
                f"The key file {self.path} belongs to another user (uid {found.st_uid}), so it is "
                f"not used. Run `chown {os.geteuid()} {place}` as root, or correct "
                "c.MigBroker.key_file."
            )


def _parsed(path: Path, text: str) -> Keys:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    # What a line holds is not shown: it may be most of a key.
    wrong = next((number for number, line in enumerate(lines, 1) if not _KEY.fullmatch(line)), 0)
    if wrong or not lines:
        what = f"key number {wrong} is not a key" if wrong else "it is empty"
        raise ConfigError(
            f"The key file {path} cannot be used: {what}; expected 64 hexadecimal digits on each "
            "line (openssl rand -hex 32). Restore it, or delete it and the hub creates a new one "
            "at its next start."
        )
    return Keys(tuple(bytes.fromhex(line) for line in lines))
