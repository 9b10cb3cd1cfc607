"""What there is to try in a demo, and who its people are, as its configuration has it.

Relies on the configuration file of the demo, which may be of an earlier version or changed by hand:
only what is in it is described.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_migspawner.cli.demo.accounts import USERS
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.settings import Settings
from jupyterhub_migspawner.policy.tiers import may_use
from jupyterhub_migspawner.policy.wording import listed, number


class Tour:
    """The people of a demo and what they can try."""

    def __init__(self, config: Config) -> None:
        self._settings: Settings = MigBroker(config=config).settings()
        groups = _given(config.JupyterHub.get("load_groups"), {})
        admins = _given(config.Authenticator.get("admin_users"), set())
        # JupyterHub takes a function for them, too, and what that says is known to the hub alone.
        groups = groups if isinstance(groups, Mapping) else {}
        admins = admins if isinstance(admins, (list, tuple, set, frozenset)) else ()
        self._people = [
            Person(
                name,
                frozenset(group for group in groups if name in _members(groups[group])),
                admin=name in admins,
            )
            for name in (*USERS[1:], USERS[0])
        ]

    def people(self) -> str:
        """Return the users, each with what sets them apart."""
        words = []
        for person in self._people:
            traits = [f"group {group}" for group in sorted(person.groups)]
            if self._decides(person):
                traits.append("may approve")
            words.append(f"{person.name} ({', '.join(traits)})" if traits else person.name)
        return ", ".join(words)

    def steps(self) -> list[str]:
        """Return what to try, with whom to log in for it; a line or two each."""
        return [*self._shared(), *self._idle(), *self._quota(), *self._approval()]

    def _decides(self, person: Person) -> bool:
        return person.admin or self._settings.approvers.include(person)

    def _shared(self) -> Iterator[str]:
        for tier in self._settings.tiers:
            names = [p.name for p in self._people if not p.admin and not may_use(tier, p)][:2]
            if tier.shares and len(names) == 2:
                yield f"{tier.title} as {listed(names)}: they share one slice"
                return

    def _idle(self) -> Iterator[str]:
        for tier in self._settings.tiers:
            names = [p.name for p in self._people if not may_use(tier, p)]
            if tier.idle_minutes is not None and names:
                sooner = tier.idle_minutes_when_wanted
                wanted = f", {number(sooner)} while others wait" if sooner is not None else ""
                yield (
                    f"{tier.title} as {names[0]}, left alone: it ends after "
                    f"{number(tier.idle_minutes)} minutes{wanted}"
                )
                return

    def _quota(self) -> Iterator[str]:
        for person in self._people:
            if self._settings.quotas.for_person(person).live == 1:
                yield f"A second server with a GPU as {person.name}: the quota allows one"
                return

    def _approval(self) -> Iterator[str]:
        tier = next((tier for tier in self._settings.tiers if tier.approval), None)
        approver = next((p for p in self._people if p.groups and self._decides(p)), None)
        if tier is None or approver is None:
            return
        names = [p.name for p in self._people if p is not approver and not may_use(tier, p)]
        if names:
            yield f"{tier.title} as {names[0]}: {approver.name} may approve the request"


def _given(value: Any, unset: Any) -> Any:
    """Return a value of a configuration, also where the file only adds to it."""
    if isinstance(value, LazyConfigValue):
        return value.get_value(unset)
    return value


def _members(group: object) -> list[str]:
    """Return the members of a group in either form that ``JupyterHub.load_groups`` takes."""
    found = group.get("users", []) if isinstance(group, dict) else group
    return list(found) if isinstance(found, (list, tuple, set)) else []
