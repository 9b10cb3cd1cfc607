"""A machine that systemd has booted: a container beside this machine, with its programs and files.

``systemd-nspawn`` boots systemd on this machine's own root folder, with all changes in memory, so
that nothing has to be installed or downloaded. Network and users' names for processes are shared
with this machine: what listens on 127.0.0.1 there is reached from here.

nspawn leaves a container's systemd without the controllers of older kernels. It gets them here, in
control groups below those of the test's own process, so that the kernel enforces its units' device
rules and limits of memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("devices", "memory", "cpu")

#: A person with an account, and another one.
USERS = ("ada", "eve")

#: Python that any user can run; the one of the tests may be in a private folder.
PYTHON = "/usr/bin/python3"

#: Seconds. The limit only ends a test that has failed.
LIMIT = 120

BOOT = """
for group in {groups}; do mkdir "$group" && echo $$ > "$group/cgroup.procs" || exit 1; done
mount --make-rprivate / && mount --bind / {root} || exit 1
exec systemd-nspawn --quiet --directory={root} --volatile=overlay --boot --machine={name} \
    --register=no --keep-unit --link-journal=no --console=pipe {binds} systemd.unit=basic.target
"""


class Inside(subprocess.Popen[bytes]):
    """A program in the machine; signals reach itself, and not what brought it there."""

    def inner(self) -> int | None:
        """Its pid, as this machine sees it; None once it has ended."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def send_signal(self, sig: int) -> None:
        """Send a signal to the program."""
        inner = self.inner()
        if inner is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(inner, sig)

    def kill(self) -> None:
        """End the program at once."""
        self.send_signal(signal.SIGKILL)


class Machine:
    """The container. ``pid`` is its systemd's, as this machine sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def entered(self, *command: str, cwd: Path | str = "/") -> list[str]:
        """The command line that runs a command in the machine, as root and in no unit."""
        enter = ["nsenter", f"--target={self.pid}", "--all", "--"]
        return [*enter, "/bin/sh", "-c", 'cd "$0" && exec "$@"', str(cwd), *command]

    def start(self, *command: str, cwd: Path | str = "/", **options: Any) -> Inside:
        """Start a program in the machine."""
        return Inside(self.entered(*command, cwd=cwd), **options)

    def run(self, *command: str, check: bool = True, cwd: Path | str = "/") -> str:
        """Run a program in the machine to its end; return what it has printed."""
        done = subprocess.run(
            self.entered(*command, cwd=cwd),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert not check or done.returncode == 0, (command, done.stdout)
        return done.stdout

    def python(self, program: str, *arguments: str) -> Any:
        """Run a program for the tests' Python; return what it has printed as JSON."""
        said = self.run(sys.executable, "-c", program, *arguments, cwd=REPOSITORY)
        return json.loads(said.splitlines()[-1])

    def show(self, unit: str, *names: str) -> dict[str, list[str]]:
        """Properties of a unit, each with all its values."""
        said = self.run("systemctl", "show", f"--property={','.join(names)}", "--", unit)
        found: dict[str, list[str]] = {name: [] for name in names}
        for line in said.splitlines():
            name, _, value = line.partition("=")
            found[name].append(value)
        return found

    def units(self) -> list[str]:
        """The units of servers that are loaded."""
        said = self.run(
            "systemctl", "list-units", "--all", "--plain", "--no-legend", "migspawner-*"
        )
        return [line.split()[0] for line in said.splitlines()]

    def make_nodes(self) -> None:
        """Make the device nodes of two cards and of all slices on them, without a driver."""
        self.python(NODES)


NODES = """
import json, os
from jupyterhub_migspawner.gpu.devices import slice_nodes
os.umask(0)
os.makedirs("/dev/nvidia-caps", exist_ok=True)
paths = {node.path for card in (0, 1) for gi in range(15) for node in slice_nodes(card, gi, 0)}
for minor, path in enumerate(sorted(paths)):
    os.mknod(path, 0o20666, os.makedev(195, 60 + minor))
print(json.dumps(len(paths)))
"""


def _own_groups(name: str) -> list[Path]:
    """Control groups to make for the machine, below those of this process."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, kinds, path = line.split(":", 2)
        for kind in kinds.removeprefix("name=").split(","):
            place = CGROUPS / (kind or "unified")
            if kind and kind not in (*CONTROLLERS, "systemd"):
                continue
            if not kind and not place.is_dir():
                place = CGROUPS
            found.append(place / path.lstrip("/") / name)
    return found


def _remove(groups: Sequence[Path]) -> None:
    for group in groups:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(folder)


def _child(pid: int) -> int | None:
    """The only child of a process."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else None
    return None


def _until(what: Any, says: Any) -> Any:
    give_up = time.monotonic() + LIMIT
    while not (found := what()):
        assert time.monotonic() < give_up, says()
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def booted(shared: Path) -> Iterator[Machine]:
    """A machine, with the folder ``shared`` in it at the same path, until the end of the block."""
    name = f"migspawner-tests-{os.getpid()}"
    groups = _own_groups(name)
    ports = Path(tempfile.gettempdir()) / f"migspawner-test-ports-{os.geteuid()}"
    ports.mkdir(mode=0o700, exist_ok=True)
    readable = {REPOSITORY, Path(sys.prefix), Path(sys.base_prefix)}
    binds = [*(f"--bind-ro={each}" for each in sorted(readable)), f"--bind={shared}"]
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryFile() as log:

        def says() -> str:
            log.seek(0)
            return log.read().decode(errors="replace")[-4000:]

        script = BOOT.format(
            groups=" ".join(map(str, groups)),
            root=root,
            name=name,
            binds=" ".join([*binds, f"--bind={ports}"]),
        )
        nspawn = subprocess.Popen(
            ["unshare", "--mount", "/bin/sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _until(lambda: nspawn.poll() is not None or _systemd(nspawn.pid), says)
            pid = _systemd(nspawn.pid)
            assert pid is not None, says()
            machine = Machine(pid)
            _prepare(machine, says)
            yield machine
        finally:
            if nspawn.poll() is None:
                nspawn.terminate()
                try:
                    nspawn.wait(LIMIT)
                except subprocess.TimeoutExpired:
                    nspawn.kill()
                    nspawn.wait(LIMIT)
            _remove(groups)


def _systemd(nspawn: int) -> int | None:
    """The pid of the container's systemd, once it is that."""
    pid = _child(nspawn)
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        return pid if pid is not None and name == "systemd" else None
    return None


def _prepare(machine: Machine, says: Any) -> None:
    def is_up() -> bool:
        said = machine.run("systemctl", "is-system-running", check=False).strip()
        return said in ("running", "degraded")

    _until(is_up, says)
    for controller in CONTROLLERS:
        place = CGROUPS / controller
        if place.is_dir():
            machine.run("mount", "-o", "remount,bind,rw", str(place))
    # It looks for the controllers that it can use only when it begins.
    machine.run("systemctl", "daemon-reexec")
    _until(is_up, says)
    # It is there as soon as a person has logged in.
    machine.run("mkdir", "--parents", "/run/user/1000")
    for user in USERS:
        machine.run("useradd", "--create-home", "--shell", "/bin/bash", user)
    machine.run(
        "cp", str(Path(__file__).with_name("systemd_opener.py")), "/usr/local/lib/opener.py"
    )
    machine.make_nodes()
