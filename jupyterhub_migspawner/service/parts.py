"""What handlers and loops share, and the way to the lease database off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.keys import KeyFile
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.service.clients.hub import HubApi

T = TypeVar("T")


@dataclass(frozen=True)
class Parts:
    """The parts of one running service.

    ``key_file`` is the hub's own. ``home`` tells this hub from another one of its name. ``prefix``
    is where the service lives and ``hub_prefix`` where the hub does, both as they stand in a URL
    (escaped, with a slash at each end); ``hub_host`` is empty unless the hub spreads people over
    subdomains.
    """

    broker: Broker
    settings: Settings
    hub: HubApi
    database: Executor
    key_file: KeyFile
    home: str
    prefix: str
    hub_prefix: str
    hub_host: str = ""

    async def ask(self, use: Callable[[Broker], T]) -> T:
        """Use the broker once, in a thread: it blocks for as long as the database does."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.database, use, self.broker)
