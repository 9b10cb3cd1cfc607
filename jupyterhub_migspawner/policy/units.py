"""The name of the systemd unit that a server runs in.

A pure function of hub, user and server, so that the unit is found without saved state: by a hub
that crashed in the middle of a start, or by an admin. Different servers always have different
names, whatever characters the names consist of.
"""

from __future__ import annotations

import hashlib
import re

SUFFIX = ".service"

PREFIX = "migspawner"

# UNIT_NAME_MAX of systemd, which counts the byte that ends a C string.
_MOST = 255 - len(SUFFIX)

_DIGEST = 32  # hexadecimal digits: 128 bits

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_.")


def escape(name: str) -> str:
    r"""Return a name as a part of a unit's name, as ``systemd-escape`` writes it.

    Unlike there, a slash becomes ``\x2f`` too: a hyphen only ever stands between two parts.
    ``systemd-escape --unescape`` gives the name back.
    """
    encoded = name.encode("utf-8", "surrogatepass")
    return "".join(
        chr(byte) if byte in _PLAIN and not (byte == ord(".") and at == 0) else f"\\x{byte:02x}"
        for at, byte in enumerate(encoded)
    )


def unit_name(hub: str, user: str, server: str) -> str:
    """Return the name of a server's unit, without ``.service``; ``server`` is empty for the first.

    Names that would be too long are cut and get a digest of the whole. Two hyphens in a row stand
    in front of it, which no other name has.
    """
    parts = [hub, user, server] if server else [hub, user]
    name = "-".join([PREFIX, *(escape(part) for part in parts)])
    if len(name) <= _MOST:
        return name
    digest = hashlib.sha256(name.encode("ascii")).hexdigest()[:_DIGEST]
    # Not in the middle of an escaped character.
    start = re.sub(r"\\x?[0-9a-f]?$", "", name[: _MOST - len(digest) - 2]).rstrip("-")
    return f"{start}--{digest}"
