"""The wall around a local server: a mount namespace of its own, made by bubblewrap.

In it ``/dev`` holds the usual nodes, those of the server's slice, and no others; device files
anywhere else cannot be opened. Home, ``/proc``, ``/sys``, the network and all other files are as
outside. The sockets through which the user's systemd and D-Bus would start programs outside are
hidden. The server has a user namespace of its own, too, so that it cannot enter other processes,
or look at their files through ``/proc``, even where they belong to the same user.

bubblewrap leaves a process of its own behind, which waits for the server and ends with its status.
Here it is the server that is known by its pid and is signalled: it must not outlive its hub's
patience because a signal ended the other one.

What this does not keep out: a process of the same user that was started elsewhere (by ssh, cron, or
``at``); a server that runs as root; and a descriptor of another slice that a server is handed.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from traitlets import Enum, List, TraitError, Unicode, validate

from jupyterhub_migspawner.agent.processes import PROC, Process, Unreadable, parent_of
from jupyterhub_migspawner.errors import LaunchError
from jupyterhub_migspawner.gpu.devices import DeviceNode
from jupyterhub_migspawner.policy.isolation import BUBBLEWRAP, NONE
from jupyterhub_migspawner.spawner import MigSpawnerMixin
from jupyterhub_migspawner.spawner.launchers.process import SameProcess
from jupyterhub_migspawner.spawner.refusals import spawn_exception

PROGRAM = "bwrap"

#: Devices of the machine that servers keep, where they exist. None of them leads to a card.
KEPT = ("/dev/shm", "/dev/fuse", "/dev/infiniband", "/dev/hugepages", "/dev/mqueue")  # noqa: S108

#: Folders that are empty inside. By the system bus a user can have their own systemd started
#: outside (logind's linger). OpenSSH refuses files in the other one, as root's files look like
#: those of nobody in a user namespace.
HIDDEN = ("/run/dbus", "/etc/ssh/ssh_config.d")

# logind's other socket.
_LOGIND = "/run/systemd/io.systemd.Login"

MEND = (
    "Install the package 'bubblewrap' and let users create user namespaces (sysctl "
    "user.max_user_namespaces above 0, kernel.unprivileged_userns_clone = 1 where it exists, and "
    "on Ubuntu kernel.apparmor_restrict_unprivileged_userns = 0 or an AppArmor profile for bwrap)."
)
"""What an admin does where bubblewrap is not there, or does not work."""

_NO_SERVER = (
    "bubblewrap could not start the server; its own message is above this one in the hub's log."
)

#: Seconds that bubblewrap may take to build the namespace.
_PATIENCE = 30.0

#: Bytes that bubblewrap's report of the server has at most; it has some 80.
_MOST_TEXT = 4096

#: Seconds between two checks whether bubblewrap has become the server.
_LOOK_SECONDS = 0.01

#: Seconds that bubblewrap's own process is given to end after the server.
_END_SECONDS = 1.0

#: Seconds for which bubblewrap is taken to work after it did. A launch that fails ends them.
_PROVEN_SECONDS = 300.0


def wall(program: str, nodes: Sequence[DeviceNode], kept: Sequence[str], uid: int) -> list[str]:
    """Return the command line that runs what follows it behind the wall.

    ``program`` is bubblewrap's path, ``nodes`` are those of the slice, ``kept`` other devices or
    folders of devices, and ``uid`` is the user's, whose runtime folder is hidden.
    """
    command = [program, "--unshare-user", "--cap-drop", "ALL", "--bind", "/", "/"]
    # A plain bind would be without devices: opening a node in it is refused.
    command += ["--dev", "/dev"]
    for path in kept:
        if not _is_of_a_card(path):
            command += ["--dev-bind-try", path, path]
    for node in nodes:
        command += ["--dev-bind", node.path, node.path]
    for folder in HIDDEN:
        if os.path.isdir(folder):
            command += ["--tmpfs", folder]
    if os.path.isdir("/run/user"):
        command += ["--tmpfs", "/run/user", "--dir", f"/run/user/{uid}"]
    if os.path.exists(_LOGIND):
        command += ["--ro-bind", "/dev/null", _LOGIND]
    return [*command, "--unsetenv", "DBUS_SESSION_BUS_ADDRESS", "--"]


def _program() -> str:
    """Return bubblewrap's path, followed through links."""
    return os.path.realpath(shutil.which(PROGRAM) or PROGRAM)


def _is_of_a_card(path: str) -> bool:
    """Tell whether a path, followed through links, is one of NVIDIA's devices."""
    return os.path.realpath(path).startswith("/dev/nvidia")


def problem(prepare: Callable[[], None] | None = None, path: str | None = None) -> str:
    """Return why bubblewrap does not work here, in a sentence; empty when it does.

    ``prepare`` runs in the new process first, as when it becomes the user that servers run as;
    ``path`` is where programs are searched.
    """
    program = shutil.which(PROGRAM, path=path)
    if program is None:
        return "bubblewrap is not installed."
    try:
        done = subprocess.run(
            [*wall(program, (), (), os.geteuid()), "/bin/true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=prepare,  # as the hub starts its servers
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap cannot be run: {error}."
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return f"bubblewrap does not work: {said[-1][:300] if said else f'status {done.returncode}'}."


class Bubblewrapped(MigSpawnerMixin, SameProcess):
    """Puts a spawner's local servers on a slice each, and behind bubblewrap."""

    mig_starts_here = True

    isolation = Enum(
        ["auto", BUBBLEWRAP, NONE],
        "auto",
        help="""
        What keeps servers off slices that are not theirs. ``bubblewrap``: each server sees the
        device files of its own slice only, and does not start where that cannot be done. ``none``:
        any server can open any slice. ``auto``: bubblewrap where it works, otherwise none, with a
        warning in the log for each server.
        """,
    ).tag(config=True)
    kept_devices = List(
        Unicode(),
        list(KEPT),
        help="""
        Other device files, and folders of device files, that servers behind bubblewrap see, where
        they exist. Do not add any of NVIDIA's: a server gets those of its slice.
        """,
    ).tag(config=True)

    # A namespace limits no resources, and a limit of the address space would break CUDA.
    _mig_enforces_limits = False

    # Whether the server of this start is put behind bubblewrap. Root's servers are as well, so that
    # they behave like those of others; that does not isolate them.
    _mig_walled = False

    cmd: Any
    shell_cmd: Any
    popen_kwargs: Any
    make_preexec_fn: Any

    @validate("kept_devices")
    def _keep_no_card(self, proposal: dict[str, Any]) -> list[str]:
        for path in proposal["value"]:
            where = os.path.normpath(path)
            if (
                not where.startswith("/dev/")
                or where.startswith("/dev/nvidia")
                or _is_of_a_card(path)
            ):
                raise TraitError(
                    f"{path!r} cannot be kept: expected a path below /dev that is none of NVIDIA's."
                )
        return list(proposal["value"])

    def _mig_server_process(self) -> Process | None:
        return self._process()

    def _mig_choose_isolation(self) -> str:
        if self.isolation == NONE:
            self._mig_walled = False
            return self._mig_isolation_off()
        as_root = self._mig_server_uid() == 0
        why = self._mig_problem()
        self._mig_walled = not why
        if as_root:
            why = "It runs as root, which a mount namespace does not confine."
        if not why:
            return BUBBLEWRAP
        mend = "Let servers run as other users." if as_root else MEND
        return self._mig_isolation_missing(self.isolation, why, mend)

    def _mig_problem(self) -> str:
        """Return why bubblewrap does not work on this machine; empty when it does.

        Raises :exc:`.LaunchError` when it works here, but not for the server's user: that a user
        can bring about, who must not get a server without a wall for it.
        """
        proven = self.mig_hub.proven
        # A look costs each start as much as the wall itself.
        if shutil.which(PROGRAM) and proven.get(BUBBLEWRAP, 0.0) > time.monotonic():
            return ""
        why = problem(self.make_preexec_fn(self.user.name))
        if not why:
            proven[BUBBLEWRAP] = time.monotonic() + _PROVEN_SECONDS
        elif not problem(as_nobody()):
            raise LaunchError(
                f"bubblewrap works on this machine, but not for the server of {self._log_name}: "
                f"{why} The user's processes may hold as many namespaces as a user may have: end "
                "them."
            )
        return why

    async def _mig_launch(self) -> Any:
        """Launch the server, behind the wall if there is one for it."""
        if not self._mig_walled:
            return await super()._mig_launch()
        try:
            return await self._mig_launch_walled()
        except (LaunchError, OSError) as error:
            self.mig_hub.proven.pop(BUBBLEWRAP, None)
            if self.proc is not None:
                self.proc.kill()
            if isinstance(error, OSError):
                error = LaunchError(f"bubblewrap cannot be run: {error}.")
            raise spawn_exception(self.log, error) from None

    async def _mig_launch_walled(self) -> Any:
        reader, writer = os.pipe()
        try:
            with self._wrapped(writer):
                url = await super()._mig_launch()
            os.close(writer)
            writer = -1
            child = await _child(reader, self.proc.pid)
        finally:
            os.close(reader)
            if writer >= 0:
                os.close(writer)
        await self._mig_become_server(child)
        self.pid = child
        self._note_process()
        return url

    async def _mig_become_server(self, child: int) -> None:
        """Wait until bubblewrap has built the wall and the process is the server.

        Raises :exc:`.LaunchError` when it has ended instead.
        """
        program = _program()
        give_up = time.monotonic() + _PATIENCE
        while time.monotonic() < give_up:
            try:
                if os.readlink(PROC / str(child) / "exe") != program:
                    return
            except FileNotFoundError:
                break
            except OSError:
                return  # it cannot be seen, and its end will be
            await asyncio.sleep(_LOOK_SECONDS)
        raise LaunchError(_NO_SERVER)

    @contextmanager
    def _wrapped(self, info: int) -> Iterator[None]:
        """Have the base spawner start bubblewrap, which starts the server.

        ``info`` is the descriptor to which bubblewrap writes the server's pid.
        """
        program = shutil.which(PROGRAM) or PROGRAM
        uid = self._mig_server_uid()
        uid = os.geteuid() if uid is None else uid
        before = wall(program, self._mig_nodes, self.kept_devices, uid)
        before[-1:-1] = ["--info-fd", str(info)]
        # The wall goes around the user's shell as well, where the admin has one start the server.
        outermost = "shell_cmd" if self.shell_cmd else "cmd"
        command, kwargs = getattr(self, outermost), self.popen_kwargs
        fds = (*kwargs.get("pass_fds", ()), info)
        setattr(self, outermost, [*before, *command])
        self.popen_kwargs = {**kwargs, "pass_fds": fds}
        try:
            yield
        finally:
            setattr(self, outermost, command)
            self.popen_kwargs = kwargs

    async def poll(self) -> int | None:
        """Return the base spawner's answer; the server runs as long as its own process does."""
        if self.proc is not None and self.pid not in (0, self.proc.pid) and self._process():
            await self._mig_follow_server()
        return await super().poll()

    async def _mig_follow_server(self) -> None:
        """Bring what is known of bubblewrap's own process in line with the server."""
        if not self._is_gone():
            if self.proc.poll() is not None:
                # Only bubblewrap's own process was killed; the server runs.
                self.proc = None
            return
        give_up = time.monotonic() + _END_SECONDS
        # Nothing wakes the hub when a process ends.
        while self.proc.poll() is None and time.monotonic() < give_up:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)
        if self.proc.poll() is None:
            # It was stopped, or does not know of the end.
            self.proc.kill()
            await asyncio.sleep(_LOOK_SECONDS)


def as_nobody() -> Callable[[], None] | None:
    """Return what makes a new process of root one of an ordinary user; None for other users.

    Root may do what the users of servers may not.
    """
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return None

    def become() -> None:
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)

    return become


async def _child(descriptor: int, monitor: int) -> int:
    """Return the pid of the process behind the wall, a child of bubblewrap's process ``monitor``.

    Raises :exc:`.LaunchError` when there is none. What is read may come from the server's user, who
    can write to the pipe: a process that is not bubblewrap's child would be taken for the server.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    said = b""
    give_up = loop.time() + _PATIENCE
    try:
        while b"}" not in said and len(said) < _MOST_TEXT:
            await asyncio.wait_for(readable.wait(), give_up - loop.time())
            readable.clear()
            more = os.read(descriptor, 4096)
            if not more:
                raise LaunchError(_NO_SERVER)
            said += more
    except asyncio.TimeoutError:
        raise LaunchError(
            f"bubblewrap has not started the server within {_PATIENCE:.0f} seconds."
        ) from None
    finally:
        loop.remove_reader(descriptor)
    try:
        pid = int(json.loads(said)["child-pid"])
        parent = parent_of(PROC / str(pid))
    except (ValueError, KeyError, TypeError, RecursionError, Unreadable):
        parent = -1
    if parent == monitor:
        return pid
    if parent == 0:
        raise LaunchError(_NO_SERVER)
    raise LaunchError(
        "bubblewrap reported a process that is not its own as the server; that server is not used."
    )
