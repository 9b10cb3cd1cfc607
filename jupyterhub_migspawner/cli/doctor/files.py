"""The doctor's look at the hub's files: which there are, and who else can read or change them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from traitlets.config import Config

from jupyterhub_migspawner.cli.demo.files import LOG, RECORD
from jupyterhub_migspawner.cli.doctor.findings import OK, Finding
from jupyterhub_migspawner.cli.doctor.permissions import CHECK, Level, Permissions, Place, locate
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.config.resolved import is_secret
from jupyterhub_migspawner.policy.wording import plural

MOST_ENTRIES = 2_000
"""Entries of one folder that are looked at."""

_SQLITE = b"SQLite format 3\0"
_DUMP = b"PGDMP"
_DUMP_NAMES = (".dump", ".sql", ".sql.gz", ".pgdump")


def check(config_file: Path, config: Config, mig: MigBroker) -> Iterator[Finding]:
    """Look at every file of this hub that is there."""
    places = list(_places(config_file.absolute(), config, mig))
    permissions = Permissions({_hub_user(places)})
    wrong = False
    for place in places:
        for finding in permissions.check(place):
            wrong = True
            yield finding
    if not wrong:
        number = plural(permissions.looked_at, "file")
        yield Finding(CHECK, OK, f"{number} of the hub are accessible only to its user.")


def _hub_user(places: Iterable[Place]) -> int:
    """Return who runs the hub: the user to whom most of its own files belong."""
    owners: Counter[int] = Counter()
    for place in places:
        if place.level is not Level.CAREFUL:
            try:
                owners[locate(place.path).status.st_uid] += 1
            except OSError:
                continue
    mine = os.geteuid()
    if not owners:
        return mine
    # Of as many files of two users, this process's own or root's count.
    return max(owners, key=lambda uid: (owners[uid], uid == mine, uid == 0))


def _places(config_file: Path, config: Config, mig: MigBroker) -> Iterator[Place]:
    folder = config_file.parent
    if has_secrets(config):
        yield Place("the configuration, with passwords in it", config_file, Level.SECRET)
    else:
        yield Place("the configuration", config_file, Level.CAREFUL)
    database = _sqlite_file(mig.resolved_database_url(), mig.resolved_directory())
    if database is not None:
        for ending, what in _PARTS.items():
            path = database.with_name(database.name + ending)
            yield Place(f"{what} of leases", path, Level.SECRET)
        for copy in _copies(database):
            yield Place("a copy of a database", copy, Level.SECRET)
    for copy in _copies(config_file) if database is None else ():
        yield Place("a copy of a database", copy, Level.SECRET)
    if mig.service:
        yield Place("the hub's key", mig.key_file_of_hub().path, Level.SECRET)
    for lock in sorted(mig.resolved_directory().glob(".migspawner-*.lock")):
        yield Place("the lock for cutting cards", lock, Level.PRIVATE)
    # The hub's relative paths start where it was started, which is not written down anywhere.
    for base in dict.fromkeys((folder, Path.cwd())):
        yield from _hub_places(config, base)
    if os.path.exists(folder / RECORD):
        yield Place("the demo's folder", folder, Level.PRIVATE)
        yield Place("the demo's log", folder / LOG, Level.PRIVATE)


_PARTS = {
    "": "the database",
    "-wal": "the write-ahead log",
    "-shm": "the index of the write-ahead log",
    "-journal": "the journal",
}


def _hub_places(config: Config, base: Path) -> Iterator[Place]:
    hub, proxy = config.JupyterHub, config.ConfigurableHTTPProxy
    database = _sqlite_file(_text(hub, "db_url", "sqlite:///jupyterhub.sqlite"), base)
    if database is not None:
        for ending, what in _PARTS.items():
            path = database.with_name(database.name + ending)
            yield Place(f"{what} of JupyterHub", path, Level.PRIVATE)
    secret = _text(hub, "cookie_secret_file", "jupyterhub_cookie_secret")
    yield Place("the hub's cookie secret", _below(base, secret), Level.SECRET)
    pid = _text(proxy, "pid_file", "jupyterhub-proxy.pid")
    yield Place("the proxy's pid file", _below(base, pid), Level.GUARDED)
    for section, name, what, level in (
        (hub, "pid_file", "the hub's pid file", Level.GUARDED),
        (hub, "ssl_key", "the private key of the hub's address", Level.SECRET),
    ):
        if _text(section, name, ""):
            yield Place(what, _below(base, _text(section, name, "")), level)
    certificates = _below(base, _text(hub, "internal_certs_location", "internal-ssl"))
    yield Place("the folder of internal certificates", certificates, Level.GUARDED)
    for key in sorted(islice(certificates.glob("**/*.key"), MOST_ENTRIES)):
        yield Place("a private key of internal_ssl", key, Level.SECRET)


def has_secrets(config: Config) -> bool:
    """Return whether a configuration holds what looks like a password, a token or a key."""
    for section in config.values():
        if isinstance(section, Config):
            for name, value in section.items():
                if is_secret(name, value):
                    return True
    return bool(config.MigBroker.get("notices"))


def _copies(database: Path) -> Iterator[Path]:
    """Yield copies of a database, beside it or in backup folders, by their name or first bytes."""
    own = {f"{database.name}{ending}" for ending in _PARTS}
    for folder in (database.parent, *database.parent.glob("backup*/")):
        for path in sorted(_files(folder)):
            live = folder == database.parent and path.name in own
            # A file of SQLite's that may be in use is not opened: closing it drops locks.
            if live or path.name.endswith(("-wal", "-shm", "-journal")):
                continue
            stem = database.stem if database.suffix == ".sqlite" else "migspawner"
            named = path.name.startswith(f"{stem}.sqlite") or path.name.endswith(_DUMP_NAMES)
            if named or _begins_like_a_database(path):
                yield path


def _begins_like_a_database(path: Path) -> bool:
    # JupyterHub's own is looked at by its name.
    if path.name.startswith("jupyterhub.sqlite"):
        return False
    try:
        with path.open("rb") as file:
            begin = file.read(len(_SQLITE))
    except OSError:
        return False
    return begin == _SQLITE or begin.startswith(_DUMP)


def _files(folder: Path) -> list[Path]:
    """Return the files in a folder; none where this user may not look."""
    found: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in islice(entries, MOST_ENTRIES):
                if entry.is_file():
                    found.append(Path(entry.path))
    except OSError:
        return found
    return found


def _sqlite_file(url: str, base: Path) -> Path | None:
    prefix = "sqlite:///"
    if not url.startswith(prefix) or ":memory:" in url:
        return None
    return _below(base, url[len(prefix) :].partition("?")[0])


def _below(base: Path, path: str) -> Path:
    return base / os.path.expanduser(path)


def _text(section: Config, name: str, default: str) -> str:
    value = section.get(name, default)
    return value if isinstance(value, str) and value else default
