"""Who is asking.

A value only: the caller (spawner, service, command line) takes name, groups and admin flag from
the hub, which alone knows them; every decision in :mod:`jupyterhub_migspawner.policy` believes it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Person:
    """One user of the hub with the groups the hub lists for them at this moment."""

    name: str
    groups: frozenset[str] = frozenset()
    admin: bool = False
