"""Names of servers, checked as the hub checks them before a server of that name is started.

JupyterHub 5 refuses a slash only. JupyterHub 6 gives new servers names that can stand in a host
name (``jupyterhub.slugs``, ``is_valid_safe_slug``) and lets servers that are older than that keep
theirs. What could be taken for another address, or steer a terminal, is refused for every hub.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from jupyterhub_migspawner.policy.fields import NAME_LIMIT
from jupyterhub_migspawner.policy.wording import quoted

LONGEST_SLUG = 30

_SLUG = re.compile(r"[a-z](?:-?[a-z0-9])*")


@dataclass(frozen=True)
class ServerNames:
    """The hub's rule: whether it has named servers, and whether new names have to be slugs.

    ``most`` is how many named servers a person may have; 0 for no limit.
    """

    named: bool = True
    slugs: bool = False
    most: int = 0

    def why_not(self, name: str, *, existing: bool = False) -> str:
        """Return why no server can be started under that name; empty when one can.

        The empty name is the default server's. ``existing`` says that the hub has such a server
        already, which keeps a name that a new one would not get.
        """
        if not name:
            return ""
        if not self.named:
            return (
                f"This hub has no named servers, so there is none called {quoted(name)}; omit "
                "the server's name."
            )
        if self.slugs and not existing:
            if len(name) <= LONGEST_SLUG and _SLUG.fullmatch(name):
                return ""
            return (
                f"No server can be called {quoted(name)}; expected up to {LONGEST_SLUG} "
                "lowercase letters, digits and single hyphens, beginning with a letter and not "
                "ending with a hyphen."
            )
        if name in (".", "..") or "/" in name or len(name) > NAME_LIMIT or not name.isprintable():
            return (
                f"No server can be called {quoted(name)}; expected up to {NAME_LIMIT} printable "
                "characters without a slash."
            )
        return ""

    def one_too_many(self, name: str, existing: Collection[str]) -> str:
        """Return why a person with these servers, running or not, may have no other of that name.

        Empty when they may. The default server does not count, and one that they have may start.
        """
        count = len(set(existing) - {""})
        if not name or name in existing or not self.most or count < self.most:
            return ""
        return (
            f"You have {count} named servers, and this hub allows {self.most}, so you cannot "
            f"have another one called {quoted(name)}. Use the name of one that you have, omit "
            "the server's name, or delete a server on the hub's home page."
        )
