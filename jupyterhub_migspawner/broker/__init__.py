"""The application layer: every use case is one method and one transaction.

Used by the hub, the service, the agents and the command line alike, each with a :class:`Broker`
of their own on the same lease database. Calls block and are thread-safe; callers with an event loop
make them in a thread. They raise :class:`~jupyterhub_migspawner.errors.Refusal` when a person
cannot have what they ask, with nothing changed, and
:class:`~jupyterhub_migspawner.errors.DatabaseError` when the database cannot be used; such a call
may be made again.
"""

from __future__ import annotations

from jupyterhub_migspawner.broker.clock import Clocks
from jupyterhub_migspawner.broker.coming import Coming
from jupyterhub_migspawner.broker.history import History
from jupyterhub_migspawner.broker.hubs import Hubs
from jupyterhub_migspawner.broker.inventory import Inventories
from jupyterhub_migspawner.broker.layouts import Layouts
from jupyterhub_migspawner.broker.leasing import Leasing
from jupyterhub_migspawner.broker.noticing import Noticing
from jupyterhub_migspawner.broker.orphans import Adoption, Orphans
from jupyterhub_migspawner.broker.processes import Processes
from jupyterhub_migspawner.broker.queueing import Queueing
from jupyterhub_migspawner.broker.renaming import Renaming
from jupyterhub_migspawner.broker.statuses import SliceStatus, TierOffer
from jupyterhub_migspawner.db.clock import utc_now

__all__ = ["Adoption", "Broker", "SliceStatus", "TierOffer", "utc_now"]


class Broker(
    Leasing,
    Queueing,
    Renaming,
    Noticing,
    Coming,
    Inventories,
    Processes,
    Layouts,
    Orphans,
    History,
    Hubs,
    Clocks,
):
    """All use cases; see the classes it is made of.

    ``Broker(store, settings, clock=..., machine=...)``: ``store`` an open
    :class:`~jupyterhub_migspawner.db.store.Store`, ``settings`` the admin's choices, ``clock``
    the time to decide by, aware UTC; without one, it is that of the lease database as ``machine``
    counts it.
    """
