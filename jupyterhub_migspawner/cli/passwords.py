"""Passwords on the command line: hidden where words are repeated, and warned of."""

from __future__ import annotations

import re

from jupyterhub_migspawner.cli.output import complain

_PASSWORD = re.compile(r"//[^/@]*:.+@|\bpassword=\S*", re.IGNORECASE | re.DOTALL)


def hidden(text: str) -> str:
    """Return ``text`` without the passwords of database addresses in it."""
    return _PASSWORD.sub("…", text)


def warn(where: str, text: str) -> None:
    """Warn on standard error if the command's arguments have a password in them."""
    if _PASSWORD.search(text):
        complain(
            f"Every user of this machine can read the password in {where} while this command runs; "
            "write it into the configuration file instead, or a PostgreSQL password into ~/.pgpass."
        )
