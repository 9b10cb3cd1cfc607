"""Private files: what this package writes can be read and changed by its owner alone.

Relies on POSIX file modes. Promises mode 0600 for files and 0700 for folders whatever the umask
says, from the first moment on: a file never exists with a wider mode, and a reader finds either the
old content or the new one.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def open_file(path: Path | str, flags: int = os.O_RDWR) -> int:
    """Open a file, creating a private one if there is none; the mode of an existing one stays.

    ``flags`` are those of :func:`os.open`; ``O_CREAT`` and ``O_CLOEXEC`` are implied. Returns a
    descriptor. Raises :exc:`OSError`.
    """
    try:
        made = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    # A umask can only take away from the mode: it was never wider than this.
    os.fchmod(made, FILE_MODE)
    return made


def replace(path: Path | str, content: bytes | str) -> None:
    """Write a private file in one step, in place of the one that may be there.

    Text is written as UTF-8. Raises :exc:`OSError`; the file is then as it was.
    """
    target = Path(path)
    beside = _written_beside(target, content)
    try:
        beside.replace(target)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def create(path: Path | str, content: bytes | str) -> bool:
    """Write a new private file in one step; if there is one, change nothing and return False.

    Text is written as UTF-8. Raises :exc:`OSError`.
    """
    target = Path(path)
    beside = _written_beside(target, content)
    try:
        # Unlike a rename, a link fails where there is a file; so of two creators one wins.
        os.link(beside, target)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(target.parent)
    return True


def make_folder(path: Path | str) -> None:
    """Make a private folder, and those above it that are missing; the mode of others stays.

    Raises :exc:`OSError`.
    """
    folder = Path(path)
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    try:
        os.mkdir(folder, FOLDER_MODE)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    os.chmod(folder, FOLDER_MODE)


def _written_beside(target: Path, content: bytes | str) -> Path:
    """Return a private file next to ``target`` that holds ``content``, on the disk."""
    # mkstemp: a name that cannot be guessed, mode 0600, never through a link that was there.
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    return Path(name)


def _sync_folder(folder: Path) -> None:
    """Make the new name of a file survive a power cut, where the file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
