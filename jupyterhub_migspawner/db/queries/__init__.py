"""The statements of the lease database and their rows; one file a noun.

Imported as the package, so that no module's name clashes with a variable::

    from jupyterhub_migspawner.db import queries

    found = queries.leases.select(tx, user="ada")
"""

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
