"""What the hub calls the people whom the admin's file names.

A hub's authenticator normalizes each name at login: JupyterHub's own lower-case it and apply
``username_map``, others do what they like (``Authenticator.normalize_username``, 5.4 to 6.1). A
name in tiers, quotas or approvers that is compared as it was written would match nobody.

Relies on the configuration alone. Promises to run none of an authenticator's own start-up code, and
to fall back on JupyterHub's own rule where an authenticator cannot be asked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from traitlets.config import Config, LoggingConfigurable
from traitlets.config.loader import LazyConfigValue
from traitlets.utils.importstring import import_item

log = logging.getLogger("migspawner.config")

#: Authenticators of JupyterHub itself that keep its rule; to know that, nothing has to be imported.
_PLAIN = frozenset(
    {
        "default",
        "dummy",
        "null",
        "pam",
        "shared-password",
        "jupyterhub.auth.DummyAuthenticator",
        "jupyterhub.auth.NullAuthenticator",
        "jupyterhub.auth.PAMAuthenticator",
    }
)


class Usernames:
    """The hub's names of people, by the names that stand in its file.

    ``changed`` are those asked for so far that the hub spells otherwise.
    """

    def __init__(self, config: Config, given: Mapping[str, str] | None = None) -> None:
        """Put ``given`` first: names that another process has found out already."""
        self.changed: dict[str, str] = {}
        self._config = config
        self._given = dict(given or {})
        self._given_lower = {name.lower(): known for name, known in self._given.items()}
        self._map: dict[str, str] = {}
        for name, section in config.items():
            if isinstance(section, Config) and name.endswith("Authenticator"):
                found: Any = section.get("username_map")
                # A file may also only add to it, which traitlets records until it is used.
                found = found.get_value({}) if isinstance(found, LazyConfigValue) else found
                self._map.update(found if isinstance(found, Mapping) else {})
        self._own = self._rule_of_its_own()

    def __call__(self, name: str) -> str:
        """Return the name by which the hub knows this person."""
        found = self._given.get(name) or self._normalized(name)
        if found != name:
            self.changed[name] = found
        return found

    def _normalized(self, name: str) -> str:
        if self._own is not None:
            try:
                found = self._own.normalize_username(name)
                if isinstance(found, str) and found:
                    return found
            except Exception as error:
                # Such as PAM for a user who has no account on this machine.
                log.debug("The hub's authenticator did not normalize %r: %r", name, error)
        lower = name.lower()
        if lower in self._given_lower:
            return self._given_lower[lower]
        return self._map.get(lower, lower)

    def _rule_of_its_own(self) -> Any:
        """Return an authenticator of the class if it does not keep JupyterHub's rule, else None."""
        chosen = self._config.get("JupyterHub", {}).get("authenticator_class", "pam")
        pam = self._config.get("PAMAuthenticator", {}).get("pam_normalize_username", False)
        if isinstance(chosen, str) and str(chosen) in _PLAIN and not pam:
            return None
        kind = _class_of(chosen)
        rule = getattr(kind, "normalize_username", None)
        bases = [each for each in getattr(kind, "__mro__", ()) if _is_hubs_own(each)]
        if rule is None or not bases or rule is bases[0].normalize_username:
            return None
        try:
            asked = kind.__new__(kind)
            # Its settings, and nothing else of what it does when it is made.
            LoggingConfigurable.__init__(asked, config=self._config)
        except Exception as error:
            log.warning(
                "The hub's authenticator cannot be asked how it normalizes names: %r", error
            )
            return None
        return asked


def _class_of(chosen: Any) -> Any:
    """Return the class of ``JupyterHub.authenticator_class``; None if it is not found here."""
    if not isinstance(chosen, str):
        return chosen
    try:
        for entry in entry_points(group="jupyterhub.authenticators"):
            if entry.name == chosen:
                return entry.load()
        return import_item(str(chosen))
    except Exception as error:
        log.debug("The hub's authenticator %s is not found here: %r", chosen, error)
        return None


def _is_hubs_own(kind: type) -> bool:
    return (kind.__module__, kind.__name__) == ("jupyterhub.auth", "Authenticator")
