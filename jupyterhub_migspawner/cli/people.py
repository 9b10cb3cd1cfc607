"""Who a name on the command line is, as far as the configuration file knows.

The command line has no login: whoever may write to the lease database may name anyone. It still
decides as the policy does, so that a mistake (approving one's own request, approving without being
an approver) is refused here as everywhere. Groups come from ``JupyterHub.load_groups`` and admins
from ``admin_users``; groups that only the authenticator knows are not seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_migspawner.policy.people import Person


def person_named(config: Config, name: str) -> Person:
    """The person of that name, with the groups and rights that the configuration gives."""
    groups = frozenset(
        group for group, members in _groups(config).items() if name in _members(members)
    )
    return Person(name=name, groups=groups, admin=name in _admins(config))


def _groups(config: Config) -> Mapping[str, Any]:
    groups = _value(config.JupyterHub, "load_groups", {})
    return groups if isinstance(groups, Mapping) else {}


def _members(group: Any) -> Iterable[str]:
    # JupyterHub takes a list of names, or a dict with the names under "users".
    if isinstance(group, Mapping):
        group = group.get("users", [])
    return group if isinstance(group, (list, tuple, set, frozenset)) else []


def _admins(config: Config) -> frozenset[str]:
    names: set[str] = set()
    for section in config:
        # admin_users may stand on the base class or on the authenticator that is used.
        if section.endswith("Authenticator"):
            names.update(_value(config[section], "admin_users", set()))
    return frozenset(names)


def _value(section: Config, name: str, default: Any) -> Any:
    if name not in section:
        return default
    value = section[name]
    # `c.Authenticator.admin_users.add(...)` is recorded, not yet a set.
    return value.get_value(default) if isinstance(value, LazyConfigValue) else value
