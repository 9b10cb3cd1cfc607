"""Files of backups: made in private, put on the disk, named only when they are whole.

Relies on Linux' ``/proc`` for which processes have a database open.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from jupyterhub_migspawner import files
from jupyterhub_migspawner.db import urls
from jupyterhub_migspawner.errors import DatabaseError

SIDES = ("-wal", "-shm", "-journal")
"""What SQLite appends to a database's name for the files beside it."""


def with_open(file: Path) -> list[int]:
    """Return the processes that have the file open, or one that had its name.

    See proc(5), ``/proc/PID/fd``. Raises :class:`~jupyterhub_migspawner.errors.DatabaseError` where
    that cannot be checked.
    """
    wanted = {
        f"{file.resolve()}{side}{gone}" for side in ("", *SIDES) for gone in ("", " (deleted)")
    }
    try:
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        return [pid for pid in pids if pid != os.getpid() and wanted & _opened_by(pid)]
    except OSError as error:
        raise DatabaseError(
            f"It cannot be checked which processes have {file} open ({error}). Try again."
        ) from error


def was_lost(url: str) -> bool:
    """Tell whether the lease database is missing although it is in use: a file that was deleted.

    Others have it open still. Making an empty one would only hide that.
    """
    try:
        file = urls.file_of(urls.parse(url))
        if file is None or not urls.is_missing(file):
            return False
    except DatabaseError:
        return False  # the process that opens it gets the error
    try:
        return bool(with_open(file))
    except DatabaseError:
        return True  # nobody can tell


def _opened_by(pid: int) -> set[str]:
    """Return the files that a process has open; none for another user's process.

    Another user cannot own this database. Raises :class:`OSError` where that cannot be determined.
    """
    folder = Path(f"/proc/{pid}/fd")
    found = set()
    try:
        for name in os.listdir(folder):
            # A busy process closes some of them meanwhile.
            with suppress(FileNotFoundError):
                found.add(os.readlink(folder / name))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return found


@contextmanager
def new_file(file: Path) -> Iterator[Path]:
    """Make a file that gets its name at the end of the block, unless there is one by then.

    Raises :class:`~jupyterhub_migspawner.errors.DatabaseError` when there is one.
    """
    if file.exists():
        raise DatabaseError(f"{file} exists already; name a new file.")
    with private_file(file.parent, file.name) as made:
        yield made
        try:
            os.link(made, file)
        except FileExistsError:
            raise DatabaseError(f"{file} exists already; name a new file.") from None
        sync(file.parent)


@contextmanager
def private_file(folder: Path, name: str) -> Iterator[Path]:
    """Make an empty file on the disk of ``folder``, in a folder that only this user can enter.

    Both go at the end of the block. Raises :class:`~jupyterhub_migspawner.errors.DatabaseError`
    where the folder cannot be made.
    """
    try:
        private = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
    except OSError as error:
        raise DatabaseError(f"{folder / name} cannot be written: {error.strerror}.") from error
    made = private / name
    try:
        os.close(files.open_file(made, os.O_WRONLY))
        yield made
    finally:
        shutil.rmtree(private, ignore_errors=True)


def read_only(file: Path) -> str:
    """Return the URI with which SQLite opens a file for reading only."""
    return f"{file.as_uri()}?mode=ro"


def finish(made: Path) -> None:
    """Make a database one file without a log beside it, for its owner only, and on the disk."""
    with closing(sqlite3.connect(made)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    made.chmod(0o600)
    sync(made)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
