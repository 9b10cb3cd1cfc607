"""Who a demo's people are, and the users that their servers run as when root has started it.

Relies on root. Promises that no user id is one that the machine gives to anybody, that each person
of the demo keeps theirs, and that their homes can be reached by them and read by nobody else.
"""

from __future__ import annotations

import json
import os
import pwd
import random
import stat
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jupyterhub_migspawner import files
from jupyterhub_migspawner.errors import MigspawnerError

ACCOUNTS = "accounts.json"

#: The people of a demo, the one who may approve first.
USERS = ("admin", "ada", "grace", "linus")

#: User ids that no distribution and no part of systemd hands out
#: (https://systemd.io/UIDS-GIDS/, "Summary").
_UIDS = range(60706, 61184)

#: Homes are not below the demo's folder, which is closed to everybody else, as may be those above
#: it. /var/tmp outlives a restart of the machine.
_PLACES = ("/var/tmp", "/tmp")  # noqa: S108  # a folder with a random name is made there
_PREFIX = "migspawner-demo-"

_PROFILE = "PS1='{name}@demo:\\w\\$ '\n"

#: Rights of root without which servers of others cannot be started, seen and ended
#: (capabilities(7)); a container may lack some.
_CAPABILITIES = {0: "CHOWN", 5: "KILL", 6: "SETGID", 7: "SETUID", 19: "SYS_PTRACE"}


@dataclass(frozen=True)
class Account:
    """A user id that is nobody's account, and the home it works in."""

    uid: int
    home: Path


@dataclass
class _Kept:
    """What the file holds: the folder of the homes, and who has which user id."""

    homes: str = ""
    uids: dict[str, int] = field(default_factory=dict)


class Accounts:
    """The accounts of the demo in ``directory``, kept in a file of its own."""

    def __init__(
        self, directory: Path, *, in_use: Callable[[], set[int]] = lambda: _uids_in_use()
    ) -> None:
        self._directory = directory
        self._file = directory / ACCOUNTS
        self._in_use = in_use

    def account(self, name: str) -> Account:
        """Return the account of this person, a new one when they have none.

        Raises :exc:`MigspawnerError` when there is no free user id, or no place for a home.
        """
        kept = self._read()
        homes = self._homes(kept)
        if name not in kept.uids:
            kept.uids[name] = self._free_uid(set(kept.uids.values()))
        uid = kept.uids[name]
        try:
            owner = pwd.getpwuid(uid).pw_name
        except KeyError:
            owner = None
        if owner is not None:
            raise MigspawnerError(
                f"User id {uid}, which {name} had in this demo, now belongs to the account "
                f"{owner}; remove the folder {self._directory} to start over."
            )
        home = homes / str(uid)
        if not home.exists():
            # The parent is root's: nobody can put anything in the way.
            home.mkdir(mode=0o700)
            for file in (".bashrc", ".profile"):
                (home / file).write_text(_PROFILE.format(name=name), encoding="utf-8")
                os.chown(home / file, uid, uid)
            os.chown(home, uid, uid)
        self._write(kept)
        return Account(uid, home)

    @property
    def homes(self) -> Path:
        """The folder of the homes."""
        kept = self._read()
        homes = self._homes(kept)
        self._write(kept)
        return homes

    def _homes(self, kept: _Kept) -> Path:
        """Return the folder of the homes, created again when it is gone or not root's alone."""
        if kept.homes and _is_ours(Path(kept.homes)):
            return Path(kept.homes)
        for place in _PLACES:
            if os.path.isdir(place) and os.stat(place).st_mode & stat.S_ISVTX:
                made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
                # Passed by everybody, listed by root alone.
                made.chmod(0o711)
                kept.homes = str(made)
                return made
        raise MigspawnerError(
            "There is no folder for the homes of the demo's servers: neither "
            f"{' nor '.join(_PLACES)} exists with mode 1777."
        )

    def _free_uid(self, taken: set[int]) -> int:
        busy = taken | self._in_use()
        free = [uid for uid in _UIDS if uid not in busy and not _has_account(uid)]
        if not free:
            raise MigspawnerError(
                f"All user ids from {_UIDS[0]} to {_UIDS[-1]} are in use; start the demo as a user "
                "other than root."
            )
        # By chance, so that two demos do not choose the same at the same time.
        return random.choice(free)

    def _read(self) -> _Kept:
        try:
            found = _Kept(**json.loads(self._file.read_text(encoding="utf-8")))
            found.uids = {str(name): int(uid) for name, uid in found.uids.items()}
            return found
        except FileNotFoundError:
            return _Kept()
        except (ValueError, TypeError, AttributeError) as error:
            raise MigspawnerError(
                f"{self._file} is damaged ({error}); remove {self._directory} to start over."
            ) from error

    def _write(self, kept: _Kept) -> None:
        files.replace(self._file, json.dumps(asdict(kept)) + "\n")


def missing_capabilities(status: Path = Path("/proc/self/status")) -> list[str]:
    """Return the capabilities that root lacks here for a demo whose servers run as others."""
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("CapEff:")]
    held = int(line.split()[1], 16)
    return [f"CAP_{name}" for bit, name in _CAPABILITIES.items() if not held >> bit & 1]


def program_folders(tools: Sequence[str]) -> list[Path]:
    """Return the folders that a server reads: Python, what is installed, the tools."""
    import jupyterhub_migspawner

    found = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).parent]
    found += [Path(sysconfig.get_path("stdlib")), Path(jupyterhub_migspawner.__file__).parent]
    # A virtual environment's Python is a link, which may lead over further ones.
    link = Path(sys.executable)
    while link.is_symlink():
        link = link.parent / link.readlink()
        found.append(link.parent)
    found += [_installed(Path(tool)) for tool in tools]
    folders = {Path(os.path.abspath(folder)) for folder in found if folder.is_dir()}
    folders |= {folder.resolve() for folder in folders}
    # What lies below another one is there with it.
    return sorted(f for f in folders if not any(other in f.parents for other in folders))


def _installed(tool: Path) -> Path:
    """Return the folder that holds all that a program of ``tool`` reads."""
    # A folder of programs holds links into a folder beside it, or into the one above it.
    return tool.parent if tool.name in ("bin", ".bin") else tool


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _uids_in_use() -> set[int]:
    """Return the user ids that have a process."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found.add(entry.stat().st_uid)
            except OSError:
                continue  # it has ended
    return found
