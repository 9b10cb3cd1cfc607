"""What the hub's spawner stores when a server runs: where it answers, and its sealed token."""

from __future__ import annotations

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.keys import Binding, KeyFile
from jupyterhub_migspawner.model.leases import LeaseRow


def reach(broker: Broker, key_file: KeyFile, lease: LeaseRow, url: str, token: str) -> None:
    binding = Binding(lease.id, lease.attempt, url)
    broker.readings.reach(lease.attempt, url, key_file.make().seal(token, binding))
