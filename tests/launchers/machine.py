"""A machine with cards, for one program: ``machine.py SPEC -- PROGRAM …``, started by root.

The program and what it starts see, in a mount namespace of their own, character devices for the
nodes of simulated cards, users with homes, and a folder ``/run/user``. Nothing of the real machine
is changed. No driver answers at the nodes: to open one that a process may open gives ENXIO, and
EPERM, EACCES or ENOENT otherwise.

Each user has a process that was started without any launcher, as by ssh. It listens where the
user's systemd and D-Bus would, and holds a file open that only root can open.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyterhub_migspawner.cli.demo.accounts import program_folders
from jupyterhub_migspawner.cli.demo.unprivileged import expose

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000  # linux/mount.h
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
CARDS_MAJOR, CAPS_MAJOR, UVM_MAJOR = 195, 508, 507
COMMON = ("null", "zero", "full", "random", "urandom", "tty")

_libc = ctypes.CDLL(None, use_errno=True)


def numbers(node: Path) -> tuple[int, int]:
    """Major and minor of a node by its name, as on a machine with NVIDIA's driver."""
    if node.name.startswith("nvidia-cap"):
        return CAPS_MAJOR, int(node.name.removeprefix("nvidia-cap"))
    if node.name.startswith("nvidia-uvm"):
        return UVM_MAJOR, int(node.name.endswith("tools"))
    return CARDS_MAJOR, 255 if node.name == "nvidiactl" else int(node.name.removeprefix("nvidia"))


def main(spec: dict[str, Any], command: list[str]) -> None:
    """Become the program."""
    _check(_libc.unshare(_CLONE_NEWNS))
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    expose(program_folders([str(Path(sys.prefix) / "proxy/node_modules/.bin")]))
    _devices(Path(spec["tree"]))
    elsewhere = Path(spec["elsewhere"])
    for name, number in spec["copies"].items():
        # A node outside /dev, as drivers that run in containers leave them.
        _node(elsewhere / name, *number)
    _users(spec["users"])
    for name, user in spec["users"].items():
        _resident(name, user, Path(spec["folder"]))
    os.execvp(command[0], command)


def _devices(tree: Path) -> None:
    new = Path(tempfile.mkdtemp(prefix="dev-"))
    _mount("tmpfs", str(new), "tmpfs", 0, "mode=0755")
    for name in COMMON:
        _node(new / name, *divmod_device(os.stat(f"/dev/{name}").st_rdev))
    for name in ("pts", "shm"):
        (new / name).mkdir()
        _mount(f"/dev/{name}", str(new / name), "", _MS_BIND | _MS_REC)
    for name, target in {
        "fd": "/proc/self/fd",
        "stdin": "/proc/self/fd/0",
        "stdout": "/proc/self/fd/1",
        "stderr": "/proc/self/fd/2",
        "ptmx": "pts/ptmx",
    }.items():
        (new / name).symlink_to(target)
    dev = tree / "dev"
    for node in sorted(dev.rglob("*")):
        if node.is_file():
            _node(new / node.relative_to(dev), *numbers(node))
    _mount(str(new), "/dev", "", _MS_MOVE)


def divmod_device(number: int) -> tuple[int, int]:
    """Major and minor of a device number."""
    return os.major(number), os.minor(number)


def _node(path: Path, major: int, minor: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    if not path.exists():
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        path.chmod(0o666)


def _users(users: dict[str, Any]) -> None:
    for file, line in (
        ("/etc/passwd", "{name}:x:{uid}:{uid}::{home}:/bin/sh\n"),
        ("/etc/group", "{name}:x:{uid}:\n"),
    ):
        with tempfile.NamedTemporaryFile("w", delete=False) as mine:
            mine.write(Path(file).read_text())
            mine.writelines(line.format(name=name, **user) for name, user in users.items())
        os.chmod(mine.name, 0o644)
        _mount(mine.name, file, "", _MS_BIND)
    _mount("tmpfs", "/run", "tmpfs", 0, "mode=0755")
    Path("/run/dbus").mkdir()
    for user in users.values():
        os.makedirs(user["home"], exist_ok=True)
        os.chown(user["home"], user["uid"], user["uid"])
        runtime = Path(f"/run/user/{user['uid']}")
        (runtime / "systemd").mkdir(parents=True)
        for folder in (runtime, runtime / "systemd"):
            os.chown(folder, user["uid"], user["uid"])
            folder.chmod(0o700)


def _resident(name: str, user: dict[str, Any], folder: Path) -> None:
    """Start the process of a user that no launcher has started."""
    secret = folder / "secret"
    secret.touch(mode=0o600)
    pid = os.fork()
    if pid:
        (folder / f"resident-{name}").write_text(str(pid))
        return
    system_bus = Path("/run/dbus/system_bus_socket")
    if not system_bus.exists():
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(system_bus))
        system_bus.chmod(0o666)
        listener.listen()
        listener.set_inheritable(True)
    held = os.open(secret, os.O_RDONLY)
    os.dup2(held, 77)
    os.setgroups([])
    os.setresgid(user["uid"], user["uid"], user["uid"])
    os.setresuid(user["uid"], user["uid"], user["uid"])
    # With the program, however that ends: it is this process's parent.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    listeners = []
    for path in (f"/run/user/{user['uid']}/bus", f"/run/user/{user['uid']}/systemd/private"):
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(path)
        listeners[-1].listen()
    # As another program: until then, a process that was root is closed to its user.
    os.set_inheritable(77, True)
    for each in listeners:
        each.set_inheritable(True)
    os.execv("/bin/sleep", ["sleep", "infinity"])


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    words = (source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags))
    _check(_libc.mount(*words, data.encode()))


def _check(status: int) -> None:
    if status != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), sys.argv[3:])
