"""Lease databases that a test has open beside the processes that it tests."""

from __future__ import annotations

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.db.store import Store


class Databases:
    """Opens each lease database once, however often the configuration is read again.

    A database that is lost later is not created again by a test that looks for it.
    """

    def __init__(self) -> None:
        self._stores: dict[str, Store] = {}

    def broker(self, mig: MigBroker) -> Broker:
        """The broker over the database of these settings."""
        url = mig.resolved_database_url()
        if url not in self._stores:
            self._stores[url] = Store.open(url, create=True)
        return Broker(self._stores[url], mig.settings())
