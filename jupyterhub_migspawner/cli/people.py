"""Who a name on the command line is, as far as the configuration file knows.

The command line has no login: any user who may write to the lease database may name anyone. It
still decides as the policy does, so that a mistake (approving one's own request, approving without
being an approver) is refused here as everywhere. Groups come from ``JupyterHub.load_groups`` and
admins from ``admin_users``; groups that only the authenticator knows are not seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.settings import Settings


def person_named(config: Config, name: str) -> Person:
    """Return the person of that name, with the groups and rights of the configuration."""
    groups = frozenset(
        group for group, members in _groups(config).items() if name in _members(config, members)
    )
    return Person(name=name, groups=groups, admin=name in _of_authenticators(config, "admin_users"))


def names_in(config: Config, settings: Settings) -> frozenset[str]:
    """Return all names of people that the configuration mentions, for the hub or the broker."""
    names = {name for members in _groups(config).values() for name in _members(config, members)}
    names |= _of_authenticators(config, "admin_users") | _of_authenticators(config, "allowed_users")
    names |= {user for tier in settings.tiers for user in tier.users}
    names |= {user for rule in settings.approvers.rules for user in rule.users}
    return frozenset((*names, *settings.quotas.users, *settings.default_tier.users))


def _groups(config: Config) -> Mapping[str, Any]:
    groups = _value(config.JupyterHub, "load_groups", {})
    return groups if isinstance(groups, Mapping) else {}


def _members(config: Config, group: Any) -> frozenset[str]:
    # JupyterHub takes a list of names, or a dict with the names under "users".
    if isinstance(group, Mapping):
        group = group.get("users", [])
    names = group if isinstance(group, (list, tuple, set, frozenset)) else []
    return _known_as(config, names)


def _of_authenticators(config: Config, trait: str) -> frozenset[str]:
    names: set[str] = set()
    for section in config:
        # It may stand on the base class or on the authenticator that is used.
        if section.endswith("Authenticator"):
            names.update(_value(config[section], trait, set()))
    return _known_as(config, names)


def _known_as(config: Config, names: Iterable[Any]) -> frozenset[str]:
    """Return the hub's names of people: it normalizes those of its own settings, too."""
    known_as = MigBroker(config=config).known_as
    return frozenset(known_as(name) for name in names if isinstance(name, str))


def _value(section: Config, name: str, default: Any) -> Any:
    if name not in section:
        return default
    value = section[name]
    # `c.Authenticator.admin_users.add(...)` is recorded, not yet a set.
    return value.get_value(default) if isinstance(value, LazyConfigValue) else value
