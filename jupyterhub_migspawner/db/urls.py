"""Database URLs: which are understood, and how they are shown.

``sqlite:///FILE``, ``postgresql://…`` and ``postgresql+psycopg://…`` (both through psycopg 3).
Promises that neither a password nor a URL parameter ever appears in what :func:`shown` returns.
"""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

from jupyterhub_migspawner.errors import DatabaseError
from jupyterhub_migspawner.policy.wording import quoted

EXPECTED = (
    "expected sqlite:///FILE (one machine) or postgresql://USER:PASSWORD@HOST:PORT/NAME "
    "(several nodes)"
)

_FILE = re.compile(r"[\w./~ -]*")

_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:(?:///(?P<path>.*)|.*)", re.DOTALL)


def parse(url: object) -> sa.URL:
    """Return the URL with its driver made explicit.

    Raises :class:`~jupyterhub_migspawner.errors.DatabaseError` for anything else than the two kinds
    of database this project is tested on.
    """
    if not isinstance(url, str) or not url.strip():
        raise DatabaseError(f"The database URL is {quoted(url)}; {EXPECTED}.")
    if (file := _SQLITE.fullmatch(url)) is not None:
        return _sqlite(url, file["path"])
    try:
        parsed = sa.engine.make_url(url)
    except Exception:
        # The parser's own message repeats the URL, password included.
        raise DatabaseError(f"The database URL {_masked(url)} is no URL; {EXPECTED}.") from None
    if "@" in (parsed.host or "") or (parsed.password and "@" in (parsed.username or "")):
        # Where the password ends is a guess then, and its rest would be shown as the host.
        raise DatabaseError(
            f"The database URL {_masked(url)} has more than one @; write an @ in the user's name "
            "or password as %40."
        )
    kind, _, driver = parsed.drivername.partition("+")
    if kind == "postgres":
        raise DatabaseError(
            f"The database URL {shown(parsed)} begins with postgres://; write postgresql://."
        )
    if kind == "postgresql" and driver in ("", "psycopg"):
        if not parsed.database:
            raise DatabaseError(f"The database URL {shown(parsed)} names no database; {EXPECTED}.")
        return parsed.set(drivername="postgresql+psycopg")
    raise DatabaseError(
        f"The database URL {shown(parsed)} has the unknown driver {quoted(parsed.drivername)}; "
        f"{EXPECTED}."
    )


def _sqlite(url: str, path: str | None) -> sa.URL:
    # Read here and not by SQLAlchemy, whose versions differ in whether they decode %20 in a path.
    if not path or path == ":memory:" or "?" in path:
        raise DatabaseError(
            f"The database URL {_masked(url)} names no file; expected sqlite:///FILE, with three "
            "slashes before a relative and four before an absolute path, and no parameters. A "
            "database in memory cannot be shared by the hub, the service and the command line."
        )
    return sa.URL.create("sqlite", database=path)


def shown(url: sa.URL) -> str:
    """Return the URL as errors and logs may show it."""
    if url.drivername == "sqlite":
        return f"sqlite:///{url.database}"
    drivername = "postgresql" if url.drivername == "postgresql+psycopg" else url.drivername
    bare = url.set(drivername=drivername, query={})
    return bare.render_as_string(hide_password=True)


def file_of(url: sa.URL) -> Path | None:
    """Return the file of a SQLite URL, None for a server."""
    return Path(url.database or "").absolute() if url.drivername == "sqlite" else None


def is_missing(file: Path) -> bool:
    """Tell whether a database's file does not exist.

    Raises :class:`~jupyterhub_migspawner.errors.DatabaseError` where this user may not look: what
    cannot be seen is not missing.
    """
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise DatabaseError(
            f"The lease database sqlite:///{file} cannot be checked ({error.strerror}); run this "
            "as root or as the user who runs the hub."
        ) from error
    return False


def _masked(text: str) -> str:
    """Return a text that is no URL, with all that could be a password left out."""
    text = re.sub(r"^.*@", "***@", text, flags=re.DOTALL)
    text = re.sub(r"\?.*", "?…", text, flags=re.DOTALL)
    if not text.startswith(("***@", "sqlite")) and not _FILE.fullmatch(text):
        # Without an @ everything behind the first colon or sign of equality may be one.
        text = re.sub(r"[:=].*", r"…", text, flags=re.DOTALL)
    return quoted(text)
