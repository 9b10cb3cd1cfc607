"""The statements of the lease database and their rows; one file a noun.

Imported as the package, so that no module's name clashes with a variable::

    from jupyterhub_migspawner.db import queries

    found = queries.leases.select(tx, user="ada")

A module is imported when it is used for the first time: it builds its statements then, and a
listing of the command line needs few of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jupyterhub_migspawner.db.queries import (
        anchors,
        capacity,
        cards,
        drafts,
        events,
        hubs,
        leases,
        moves,
        nodes,
        notices,
        orphans,
        processes,
        quotas,
        rates,
        requests,
        sessions,
        slices,
        tickets,
        tombstones,
        usage,
        users,
    )

__all__ = [
    "anchors",
    "capacity",
    "cards",
    "drafts",
    "events",
    "hubs",
    "leases",
    "moves",
    "nodes",
    "notices",
    "orphans",
    "processes",
    "quotas",
    "rates",
    "requests",
    "sessions",
    "slices",
    "tickets",
    "tombstones",
    "usage",
    "users",
]


def load() -> None:
    """Load all of them now, as a process does that runs for long.

    It would otherwise import some of them later, perhaps those of another version that has been
    installed meanwhile.
    """
    for name in __all__:
        import_module(f"{__name__}.{name}")


def __getattr__(name: str) -> Any:
    """Import a module of this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
