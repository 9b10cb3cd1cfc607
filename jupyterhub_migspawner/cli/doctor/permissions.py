"""Who else can read, change or replace a file: modes and owners, along the whole way to it.

Relies on POSIX modes; of a file with an access control list the group's bits are its mask, the most
that any of its entries gives. Follows symbolic links as the kernel does, and looks at every folder
on the way: who may write to one can replace what is in it. Opens nothing: a process that closes a
file of SQLite's would lose its locks on it.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jupyterhub_migspawner.cli.doctor.findings import WARNING, WRONG, Finding

CHECK = "files"

MOST_LINKS = 40
"""Symbolic links on one way; the kernel follows no more."""


class Level(Enum):
    """What a file may be to anybody but its owner."""

    SECRET = "secret"  # noqa: S105
    """Nothing, whatever folder it is in."""
    PRIVATE = "private"
    """Not readable; where its folder keeps others out, a warning is enough."""
    CAREFUL = "careful"
    """Better not readable, though nothing secret was found in it."""
    GUARDED = "guarded"
    """Not writable."""


@dataclass(frozen=True)
class Place:
    """A file or folder to look at, and what it is called in a sentence."""

    what: str
    path: Path
    level: Level


@dataclass(frozen=True)
class Found:
    """A file or folder that is there, with the real folders on the way to it, from the root on."""

    real: Path
    status: os.stat_result
    folders: tuple[tuple[Path, os.stat_result], ...]

    @property
    def reachable(self) -> bool:
        """Whether everybody may go through all folders on the way."""
        return all(status.st_mode & stat.S_IXOTH for _, status in self.folders)


def locate(path: Path) -> Found:
    """Go to a file as the kernel does. Raises :exc:`OSError`."""
    here = Path("/")
    status = os.lstat(here)
    folders: list[tuple[Path, os.stat_result]] = []
    parts = deque(Path(os.path.abspath(path)).parts[1:])
    links = 0
    while parts:
        name = parts.popleft()
        if name == "..":
            here, status = folders.pop() if folders else (here, status)
            continue
        found = os.lstat(here / name)
        if stat.S_ISLNK(found.st_mode):
            links += 1
            if links > MOST_LINKS:
                raise OSError(f"{path}: too many symbolic links")
            # The folder that holds the link counts, too: who can write there can replace the link.
            target = Path(os.readlink(here / name))
            parts.extendleft(reversed([part for part in target.parts if part != "/"]))
            if target.is_absolute():
                folders.append((here, status))
                here, status = Path("/"), os.lstat("/")
            continue
        folders.append((here, status))
        here, status = here / name, found
    return Found(here, status, tuple(folders))


class Permissions:
    """Looks at places, and says of each folder only once what is wrong with it.

    ``owners`` are the users to whom the hub's files may belong: root, and who runs the hub.
    """

    def __init__(self, owners: Collection[int]) -> None:
        self._owners = frozenset(owners) | {0}
        self._said: set[Path] = set()
        self._closed: set[Path] = set()
        self.looked_at = 0

    def check(self, place: Place) -> Iterator[Finding]:
        """Check a file or folder and the way to it; find nothing if it is not there."""
        try:
            found = locate(place.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if place.path.parent in self._closed:
                return
            self._closed.add(place.path.parent)
            yield Finding(
                CHECK,
                WARNING,
                f"{place.path}, {place.what}, cannot be checked ({error.strerror or error}).",
                "Run this as root or as the user who runs the hub.",
            )
            return
        self.looked_at += 1
        for folder, status in found.folders:
            yield from self._folder(folder, status, place)
        if found.real not in self._said:
            self._said.add(found.real)
            yield from self._owner(found.real, found.status, place.what)
            yield from self._mode(place, found)

    def _folder(self, folder: Path, status: os.stat_result, place: Place) -> Iterator[Finding]:
        if folder in self._said:
            return
        self._said.add(folder)
        yield from self._owner(folder, status, f"on the way to {place.what}")
        # Where the sticky bit is set, only its owner may replace a file.
        if status.st_mode & stat.S_ISVTX:
            return
        if status.st_mode & stat.S_IWOTH:
            who, mend = "everybody", "go-w"
        elif status.st_mode & stat.S_IWGRP and not _is_private_group(folder, status):
            who, mend = _group(status), "g-w"
        else:
            return
        yield Finding(
            CHECK,
            WRONG,
            f"{folder} can be written to by {who} (mode {_mode(status)}): its files, such as "
            f"{place.what}, can be replaced.",
            f"chmod {mend} {_quoted(folder)}",
        )

    def _owner(self, path: Path, status: os.stat_result, what: str) -> Iterator[Finding]:
        if status.st_uid in self._owners:
            return
        hub = next((uid for uid in sorted(self._owners) if uid != 0), 0)
        yield Finding(
            CHECK,
            WRONG,
            f"{path} ({what}) belongs to {_user(status.st_uid)}, not to root or to the user who "
            "runs the hub.",
            f"chown {_user(hub)} {_quoted(path)}",
        )

    def _mode(self, place: Place, found: Found) -> Iterator[Finding]:
        mode = found.status.st_mode
        is_folder = stat.S_ISDIR(mode)
        if mode & stat.S_IWOTH:
            state, how = WRONG, "changed by everybody"
        elif mode & stat.S_IWGRP and not (
            is_folder and _is_private_group(found.real, found.status)
        ):
            state, how = WRONG, f"changed by {_group(found.status)}"
        elif place.level is Level.GUARDED:
            return
        elif mode & stat.S_IROTH:
            state, how = WRONG, "read by everybody"
            if place.level is Level.PRIVATE and not found.reachable:
                state, how = WARNING, "read by everybody who gets into its folder"
            elif place.level is Level.CAREFUL:
                state = WARNING
        elif mode & stat.S_IRGRP and place.level is not Level.CAREFUL:
            state = WRONG if place.level is Level.SECRET else WARNING
            how = f"read by {_group(found.status)}"
        else:
            return
        wanted = "go-w" if place.level is Level.GUARDED else "700" if is_folder else "600"
        yield Finding(
            CHECK,
            state,
            f"{found.real}, {place.what}, can be {how} (mode {_mode(found.status)}).",
            f"chmod {wanted} {_quoted(found.real)}",
        )


def _is_private_group(path: Path, status: os.stat_result) -> bool:
    """Return whether a folder's group is its owner alone, and no list gives it to more."""
    try:
        if "system.posix_acl_access" in os.listxattr(path):
            return False
    except OSError:
        pass
    try:
        group, owner = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid)
    except KeyError:
        return False
    return group.gr_name == owner.pw_name and set(group.gr_mem) <= {owner.pw_name}


def _group(status: os.stat_result) -> str:
    try:
        return f"group {grp.getgrgid(status.st_gid).gr_name}"
    except KeyError:
        return f"group {status.st_gid}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
