"""The application layer: every use case is one method and one transaction.

Used by the hub, the service, the agents and the command line alike, each with a :class:`Broker`
of their own on the same lease database. Calls block and are thread-safe; callers with an event loop
make them in a thread. They raise :class:`~jupyterhub_migspawner.errors.Refusal` when a person
cannot have what they ask, with nothing changed, and
:class:`~jupyterhub_migspawner.errors.DatabaseError` when the database cannot be used; such a call
may be made again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from jupyterhub_migspawner.broker.acquisition import Acquisition
from jupyterhub_migspawner.broker.admission import Admission
from jupyterhub_migspawner.broker.agents import Agents
from jupyterhub_migspawner.broker.cards import Cards
from jupyterhub_migspawner.broker.clock import Clock
from jupyterhub_migspawner.broker.context import Context
from jupyterhub_migspawner.broker.doubts import Doubts
from jupyterhub_migspawner.broker.drafts import Drafts
from jupyterhub_migspawner.broker.events import Events
from jupyterhub_migspawner.broker.hubs import Hubs
from jupyterhub_migspawner.broker.layouts import Layouts
from jupyterhub_migspawner.broker.leases import Leases
from jupyterhub_migspawner.broker.nodes import Nodes
from jupyterhub_migspawner.broker.notices import Notices
from jupyterhub_migspawner.broker.offers import Offers
from jupyterhub_migspawner.broker.orphans import Orphans
from jupyterhub_migspawner.broker.processes import Processes
from jupyterhub_migspawner.broker.queue import Queue
from jupyterhub_migspawner.broker.quotas import Quotas
from jupyterhub_migspawner.broker.readings import Readings
from jupyterhub_migspawner.broker.requests import Requests
from jupyterhub_migspawner.broker.reservations import Reservations
from jupyterhub_migspawner.broker.sessions import Sessions
from jupyterhub_migspawner.broker.slices import Slices
from jupyterhub_migspawner.broker.statuses import Adoption, SliceStatus, TierStatus
from jupyterhub_migspawner.broker.tiers import Tiers
from jupyterhub_migspawner.broker.users import Users
from jupyterhub_migspawner.broker.waiting_list import WaitingList
from jupyterhub_migspawner.db.clock import Machine, utc_now
from jupyterhub_migspawner.db.store import Store
from jupyterhub_migspawner.policy.settings import Settings

__all__ = ["Adoption", "Broker", "SliceStatus", "TierStatus", "utc_now"]


class Broker:
    """All use cases, by noun: ``broker.leases.acquire(...)``, ``broker.requests.decide(...)``.

    ``context`` is what they share. Each part gets the others that it needs when the broker is made;
    none of them knows the broker.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], datetime] | None = None,
        machine: Machine | None = None,
    ) -> None:
        """Make a broker of an open ``store`` and the admin's ``settings``.

        ``clock`` is the time to decide by, aware; without one, it is that of the lease database as
        ``machine`` (this one unless given) counts it.
        """
        self.context = context = Context(store, settings, clock=clock, machine=machine)

        # Who may have what now
        waiting_list = WaitingList(context)
        self.quotas = Quotas(context)
        admission = Admission(context, self.quotas, waiting_list)
        self.tiers = Tiers(context, admission)
        acquisition = Acquisition(context, admission, self.tiers, waiting_list)

        # What people have and ask for
        self.leases = Leases(context, acquisition)
        self.readings = Readings(context)
        self.sessions = Sessions(context, waiting_list)
        self.doubts = Doubts(context, self.sessions)
        self.offers = Offers(context, acquisition, waiting_list)
        self.queue = Queue(context, admission, self.offers, self.sessions, waiting_list)
        self.requests = Requests(context)
        self.drafts = Drafts(context, self.requests)
        self.users = Users(context, self.requests)
        self.notices = Notices(context)

        # What the nodes have
        self.agents = Agents(context)
        self.nodes = Nodes(context)
        self.cards = Cards(context)
        self.slices = Slices(context)
        self.layouts = Layouts(context)
        self.reservations = Reservations(context)
        self.orphans = Orphans(context)
        self.processes = Processes(context)

        # What the lease database is for all of them
        self.hubs = Hubs(context)
        self.events = Events(context)
        self.clock = Clock(context)

    @property
    def store(self) -> Store:
        """The lease database."""
        return self.context.store

    @property
    def settings(self) -> Settings:
        """The admin's choices."""
        return self.context.settings

    @property
    def hub(self) -> str:
        """The name under which this hub leases."""
        return self.context.hub

    def now(self) -> datetime:
        """Return the time by which the broker decides, in UTC."""
        return self.context.now()
