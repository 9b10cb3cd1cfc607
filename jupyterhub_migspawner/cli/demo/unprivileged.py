"""Run a program as a user without rights, which root starts: ``unprivileged.py UID HOME … -- CMD``.

Servers call :func:`enter` between fork and exec. As a program of its own it tries beforehand
whether that works, and says why not; it needs the standard library only. Relies on root. Promises
that the program runs with this uid alone: no group, no capability, and no way to gain any by a
set-uid program.

Where the folders that the program needs lie below one that is closed to others (a virtual
environment under ``/root``), the program gets a mount namespace (mount_namespaces(7)) in which they
are there, read-only, and nothing else of the closed folder is.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4  # linux/mount.h
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h

#: Exit status of a program that was found but could not be started, as shells have it.
_CANNOT = 126

_libc = ctypes.CDLL(None, use_errno=True)


def closed_ancestor(path: Path) -> Path | None:
    """Return the first folder on the way to ``path`` that other users cannot pass, or None."""
    for folder in reversed([path, *path.parents]):
        if not folder.stat().st_mode & 0o001:
            return folder
    return None


def expose(needed: list[Path]) -> None:
    """Make folders reachable for other users, to this process and its children alone.

    Raises ``OSError`` where mounts are not allowed, as in most containers.
    """
    closed = [path for path in needed if closed_ancestor(path) is not None]
    if not closed:
        return
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    # What is mounted here must not appear outside.
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    # Opened before anything is covered.
    opened = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in sorted(closed)}
    covered: list[Path] = []
    for path in opened:
        while (folder := closed_ancestor(path)) is not None:
            if folder == path:
                raise PermissionError(13, "The folder itself is closed to other users", str(path))
            _mount("tmpfs", str(folder), "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=1m")
            covered.append(folder)
            for other, place in opened.items():
                if folder in other.parents:
                    _bind(place, other)
    for descriptor in opened.values():
        os.close(descriptor)
    for folder in covered:
        flags = _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
        _mount("tmpfs", str(folder), "tmpfs", flags, "mode=0755,size=1m")


def _bind(descriptor: int, target: Path) -> None:
    target.mkdir(mode=0o755, parents=True, exist_ok=True)
    _mount(f"/proc/self/fd/{descriptor}", str(target), "", _MS_BIND | _MS_REC)
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _mount("none", str(target), "", flags)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    words = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags))
    _check(_libc.mount(*words, data.encode()), f"mount on {target}")


def _check(status: int, what: str) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{os.strerror(number)} ({what})")


def become(uid: int) -> None:
    """Give up every right but those of ``uid``, for good."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def enter(uid: int, home: Path, needed: list[Path]) -> None:
    """Become ``uid`` in the folder ``home``, with the folders it needs. Raises ``OSError``."""
    expose(needed)
    become(uid)
    os.umask(0o077)
    os.chdir(home)


def main(argv: list[str]) -> int:
    """Start the program in place of this one; return only when that fails."""
    parser = argparse.ArgumentParser(description="Run a program as an unprivileged user.")
    parser.add_argument("uid", type=int, help="its user and group id; need not be an account")
    parser.add_argument("home", type=Path, help="folder it starts in")
    parser.add_argument("--need", type=Path, action="append", default=[], help="folder it reads")
    split = argv.index("--")
    given = parser.parse_args(argv[:split])
    command = argv[split + 1 :]
    if given.uid <= 0:
        parser.error("the user must not be root")
    try:
        enter(given.uid, given.home, given.need)
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]} cannot be started as user {given.uid}: {error}", file=sys.stderr)
        return _CANNOT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
