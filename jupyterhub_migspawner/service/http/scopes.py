"""What the scopes of a token allow, for people and servers.

Relies on the hub for the scopes' meaning (``jupyterhub.scopes``) and for which groups a person is
in. A scope may be limited to a user, to the members of a group or to one server
(``servers!server=ada/lab``); a limit to another user or server does not count.
"""

from __future__ import annotations

from collections.abc import Collection

from jupyterhub.scopes import has_scope

#: Either allows a server to be started: the first is new in JupyterHub 6, the second contains it.
START_SCOPES = ("start:servers", "servers")


def may_start(scopes: Collection[str], user: str, groups: Collection[str], server: str) -> bool:
    """Return whether a token with these expanded scopes may start that server of that user.

    ``groups`` are the user's; ``server`` is empty for the default server.
    """
    # Each as a filter of its own: without the hub's database has_scope knows no groups.
    filters = [f"server={user}/{server}", *(f"group={group}" for group in groups)]
    # A filter without a value is not expanded, and opens nothing.
    expanded = frozenset(scope for scope in scopes if "!" not in scope or "=" in scope)
    return any(has_scope(f"{scope}!{each}", expanded) for scope in START_SCOPES for each in filters)
