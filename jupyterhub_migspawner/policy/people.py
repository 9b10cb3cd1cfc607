"""Who is asking.

A value only: the caller (spawner, service, command line) takes name, groups and admin flag from
the hub, which alone knows them; every decision in :mod:`jupyterhub_migspawner.policy` believes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

KnownAs = Callable[[str], str]
"""Gives the hub's name of a person for the name that stands in the admin's file."""


def as_written(name: str) -> str:
    """Return the name itself, for where no hub's rule is at hand."""
    return name


@dataclass(frozen=True)
class Person:
    """One user of the hub with the groups the hub lists for them at this moment."""

    name: str
    groups: frozenset[str] = frozenset()
    admin: bool = False
    decides: bool = True
    """Whether what they signed in with may decide on requests, if they are an approver at all."""
