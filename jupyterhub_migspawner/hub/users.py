"""Read the names of users and groups from the hub's own database.

For programs that run beside the hub, such as the command line: the hub's API needs a token, its
database only the right to read it. Opens the database for reading only and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from jupyterhub_migspawner.errors import MigspawnerError

DEFAULT_URL = "sqlite:///jupyterhub.sqlite"
"""JupyterHub's own default of ``c.JupyterHub.db_url``."""

_SQLITE = "sqlite:///"


class HubDatabaseError(MigspawnerError):
    """The hub's database exists and cannot be read: why."""


@dataclass(frozen=True)
class HubNames:
    """The users and groups that a hub knows."""

    users: frozenset[str]
    groups: frozenset[str]


def read_names(url: str, folders: Iterable[Path]) -> HubNames | None:
    """Read the names of all users and groups.

    ``url`` is the hub's ``db_url``; a relative path of an SQLite file is looked for in each of
    ``folders``, in order, since it starts where the hub was started.

    Returns None where there is no such file. Raises :class:`HubDatabaseError` where the database
    cannot be read.
    """
    if "://" not in url:
        url = _SQLITE + url
    if not url.startswith(_SQLITE):
        return _read(url)
    name = url[len(_SQLITE) :].partition("?")[0]
    for folder in folders:
        path = folder / os.path.expanduser(name)
        if os.path.lexists(path):
            return _read(f"sqlite:///file:{path.absolute()}?mode=ro&uri=true")
    return None


def _read(url: str) -> HubNames:
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            users = connection.execute(sa.text("SELECT name FROM users")).scalars().all()
            groups = connection.execute(sa.text("SELECT name FROM groups")).scalars().all()
    except (SQLAlchemyError, ImportError) as error:
        # Their own messages may repeat the URL, with its password.
        cause = getattr(error, "orig", None)
        why = str(cause).splitlines()[0] if cause is not None else type(error).__name__
        raise HubDatabaseError(f"The hub's database cannot be read ({why}).") from None
    return HubNames(frozenset(users), frozenset(groups))
