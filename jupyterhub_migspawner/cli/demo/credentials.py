"""How people sign in to a demo: a random password, and links that each sign in once.

Relies on the demo's folder being readable by its owner alone. Promises that a link works once, even
when several requests bring it at the same moment, and only for a few minutes; that no link is kept
in a form that could be used; and that secrets are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from jupyterhub_migspawner import files
from jupyterhub_migspawner.errors import MigspawnerError

PASSWORD = "password"  # noqa: S105  # the name of the file
LINKS = "login-links"

#: Where a login link leads, below the hub's base URL, and the name of its one argument. The hub's
#: access log hides arguments of this name (``jupyterhub.log._scrub_uri``).
LINK_PATH = "/demo-login"
KEY = "key"

#: Seconds for which a login link works.
LINK_SECONDS = 600.0

#: Wrong passwords that are answered at once, and the seconds until one more is.
GUESSES = 10
GUESS_SECONDS = 6.0

# Without letters and digits that are mistaken for each other.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def make_password(directory: Path) -> str:
    """Return the demo's password; a new folder gets a random one (about 79 bits).

    Raises :exc:`MigspawnerError` when the file is empty.
    """
    file = directory / PASSWORD
    groups = ("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))
    if not files.create(file, "-".join(groups) + "\n"):
        file.chmod(files.FILE_MODE)
    password = read_password(directory)
    if password is None:
        raise MigspawnerError(f"{file} is empty; remove it, and the demo creates a new password.")
    return password


def read_password(directory: Path) -> str | None:
    """Return the demo's password, or None when there is none to sign in with."""
    try:
        return (directory / PASSWORD).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeError):
        return None


def same(one: str, other: str) -> bool:
    """Compare two secrets in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _since_boot() -> float:
    # Unlike the wall clock it cannot be set back, and every process reads the same one.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Links:
    """The login links of a demo that have not been used: one file each, named by a digest.

    ``clock`` gives seconds since this machine booted.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = _since_boot) -> None:
        self._folder = directory / LINKS
        self._clock = clock

    def clear(self) -> None:
        """Make all links unusable, for example at a start: they are those of an earlier hub."""
        files.make_folder(self._folder)
        for file in self._folder.iterdir():
            file.unlink(missing_ok=True)

    def create(self, user: str) -> str:
        """Return a new key that signs in ``user`` once within :data:`LINK_SECONDS`."""
        key = secrets.token_urlsafe(32)
        record = {"user": user, "expires": self._clock() + LINK_SECONDS}
        files.replace(self._folder / _digest(key), json.dumps(record))
        return key

    def use(self, key: str) -> str | None:
        """Return whom ``key`` signs in and make it unusable; None for an unusable key."""
        digest = _digest(key)
        try:
            # Every name is compared, so that the time says nothing about any of them.
            found = [file for file in self._folder.iterdir() if same(file.name, digest)]
            if not found:
                return None
            (file,) = found
            record = json.loads(file.read_text(encoding="utf-8"))
            # Of several that come this far one removes the file; the others fail here.
            file.unlink()
        except (OSError, ValueError):
            return None
        return str(record["user"]) if self._clock() < record["expires"] else None


def _digest(key: str) -> str:
    # The key has 256 random bits: a digest of it cannot be guessed back, salted or not.
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


class Guesses:
    """Limits wrong passwords, of all people together: every local user comes from one address.

    ``monotonic`` gives seconds; it is only compared with itself.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._wrong = 0.0
        self._at = monotonic()

    def wait(self) -> float:
        """Return the seconds until the next password is looked at; 0 when it is looked at now."""
        return max(0.0, (self._now() - GUESSES + 1) * GUESS_SECONDS)

    def failed(self) -> None:
        """Count a wrong password."""
        self._wrong = self._now() + 1

    def _now(self) -> float:
        moment = self._monotonic()
        self._wrong = max(0.0, self._wrong - (moment - self._at) / GUESS_SECONDS)
        self._at = moment
        return self._wrong
