"""The hub's own look for the service's pages: its templates, with what they expect to be given.

Relies on the hub's ``page.html`` (JupyterHub 5.4 to 6) and, where the admin has changed it, on
theirs. Promises that everything is escaped, and that an admin's template which needs more than a
service knows costs its looks and not the page: the hub's original is used instead.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, PrefixLoader
from jupyterhub._data import DATA_FILES_PATH
from jupyterhub.utils import url_path_join
from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_migspawner.hub.scopes import SERVICE_NAME
from jupyterhub_migspawner.hub.wiring import with_templates
from jupyterhub_migspawner.policy.wording import hours, listed, minutes
from jupyterhub_migspawner.service.http.auth import Visitor
from jupyterhub_migspawner.service.parts import Parts

log = logging.getLogger("migspawner.service")


@dataclass(frozen=True)
class PageUser:
    """The visitor as the hub's ``page.html`` reads it."""

    name: str
    admin: bool

    @property
    def json_escaped_name(self) -> str:
        """For the inside of a JavaScript string in a script element, where nothing escapes it."""
        text = json.dumps(self.name)[1:-1]
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@dataclass(frozen=True)
class Link:
    """An entry of the navigation bar's list of services."""

    name: str
    href: str


class Theme:
    """Renders pages in the hub's looks. ``config`` is the hub's configuration."""

    def __init__(self, parts: Parts, config: Config) -> None:
        self._parts = parts
        self._hub_url = parts.hub_host + parts.hub_prefix
        self._data = str(_set_in(config.JupyterHub, "data_files_path", DATA_FILES_PATH))
        original = str(Path(self._data, "templates"))
        theirs = [str(path) for path in _set_in(config.JupyterHub, "template_paths", [])]
        self._plain = _environment(with_templates([original], self._data), original)
        paths = with_templates([*theirs, original], self._data)
        self._theirs = _environment(paths, original) if theirs else self._plain
        variables = _set_in(config.JupyterHub, "template_vars", {})
        # The hub calls those that can be called with its own user object, which is not here.
        self._variables = {name: v for name, v in variables.items() if not callable(v)}

    def render(self, name: str, visitor: Visitor | None, xsrf: str, **values: Any) -> str:
        """Return one page as HTML."""
        context = {**self._variables, **self._hub_values(visitor, xsrf), **values}
        if self._theirs is not self._plain:
            try:
                return self._theirs.get_template(name).render(context)
            except Exception:
                log.exception(
                    "The hub's template_paths have a page.html that the GPU service's pages "
                    "cannot use; they use the hub's original one."
                )
        return self._plain.get_template(name).render(context)

    def _hub_values(self, visitor: Visitor | None, xsrf: str) -> dict[str, Any]:
        """Return what ``page.html`` uses (``jupyterhub.handlers.base``, ``template_namespace``)."""
        person = visitor.person if visitor else None
        return {
            "base_url": self._hub_url,
            "prefix": self._parts.hub_host + self._parts.hub_prefix.removesuffix("hub/"),
            "user": PageUser(person.name, person.admin) if person else None,
            "login_url": url_path_join(self._hub_url, "login"),
            "logout_url": url_path_join(self._hub_url, "logout"),
            "static_url": self.static_url,
            "version_hash": "",
            "services": [Link(SERVICE_NAME, self._parts.prefix)] if person else [],
            # Which of its own links the hub's navigation shows; following one is the hub's matter.
            "parsed_scopes": {"admin-ui": True} if person and person.admin else {},
            "expanded_scopes": frozenset(),
            "xsrf": xsrf,
            "xsrf_token": xsrf,
            "no_spawner_check": True,
            "admin_access": False,
            "service_url": self._parts.prefix,
            "spawn_url": url_path_join(self._hub_url, "spawn"),
            "home_url": url_path_join(self._hub_url, "home"),
        }

    def static_url(self, path: str, include_version: bool = True) -> str:
        """Return the URL of a file of the hub's own, as the hub's templates ask for it."""
        return url_path_join(self._hub_url, "static", path)  # type: ignore[no-any-return]


def _environment(paths: list[str], original: str) -> Environment:
    """Return the templates in the hub's order of search, with the service's own pages."""
    made = Environment(
        loader=ChoiceLoader(
            [
                PackageLoader("jupyterhub_migspawner.service.pages", "templates"),
                # As in the hub: an admin's page.html extends "templates/page.html".
                PrefixLoader({"templates": FileSystemLoader([original])}, "/"),
                FileSystemLoader(paths),
            ]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["hours"] = hours
    made.filters["listed"] = listed
    made.filters["minutes"] = minutes
    return made


def _set_in(section: Config, name: str, default: Any) -> Any:
    """Return a trait's configured value, also where the file only added to it."""
    if name not in section:
        return default
    value = section[name]
    return value.get_value(default) if isinstance(value, LazyConfigValue) else value
