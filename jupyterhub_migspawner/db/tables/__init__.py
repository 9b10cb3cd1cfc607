"""The tables of the lease database.

Two unique partial indexes are the last word on rule one of the design: a seat of a slice has at
most one live lease, and a server of a user of a hub has at most one lease it may run on. Everything
else in ``db/`` only finds out earlier and reports it better.

``slices.held`` counts the live leases on a slice. It repeats what ``leases`` says so that a free
slice can be found, and its row locked, without looking at leases; both change in one transaction.
So does ``slices.shared_by``, the tier whose seats the live leases are; it is null while nobody has
the slice, or one lease has it alone.

Import tables from here, whichever module defines them. The migrations in
:mod:`jupyterhub_migspawner.db.migrations` make them; a test compares the two.
"""

from jupyterhub_migspawner.db.tables.base import clocks, database_identity, hubs, metadata
from jupyterhub_migspawner.db.tables.hardware import FREE, SHARED, cards, node_roles, nodes, slices
from jupyterhub_migspawner.db.tables.history import event_counts, event_readers, events
from jupyterhub_migspawner.db.tables.sessions import (
    leases,
    orphans,
    processes,
    readings,
    stays,
    tombstones,
)
from jupyterhub_migspawner.db.tables.users import (
    action_rates,
    drafts,
    notice_choices,
    quota_exceptions,
    requests,
    tickets,
)

__all__ = [
    "FREE",
    "SHARED",
    "action_rates",
    "cards",
    "clocks",
    "database_identity",
    "drafts",
    "event_counts",
    "event_readers",
    "events",
    "hubs",
    "leases",
    "metadata",
    "node_roles",
    "nodes",
    "notice_choices",
    "orphans",
    "processes",
    "quota_exceptions",
    "readings",
    "requests",
    "slices",
    "stays",
    "tickets",
    "tombstones",
]
