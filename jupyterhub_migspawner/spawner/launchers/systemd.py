"""Servers as units of systemd on this machine, each as a system user and with a slice.

``MigSystemdSpawner`` takes the traits of jupyterhub-systemdspawner, and starts, finds and stops the
units itself. Each server of a user has a unit of its own, whose name follows from hub, user and
server; its device rules are those of its slice, made for each start; and a systemd that does
not answer is not taken for a server that has ended. It needs a hub that runs as root.

A unit ends with all processes in it. What it does not keep out: a process of the same user that was
started elsewhere (by ssh, cron, or ``at``). The sockets of the user's own systemd and D-Bus, which
would start some, are hidden.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jupyterhub.utils import random_port
from traitlets import Dict, Enum, TraitError, validate

from jupyterhub_migspawner.agent.processes import PROC, Process, Unreadable, start_time
from jupyterhub_migspawner.errors import UnitError
from jupyterhub_migspawner.policy.isolation import NONE, SYSTEMD
from jupyterhub_migspawner.policy.units import unit_name
from jupyterhub_migspawner.spawner import MigSpawnerMixin
from jupyterhub_migspawner.spawner.launchers.units import (
    MEND,
    Unit,
    credentials_folder,
    device_rules,
    problem,
    rules_problem,
)
from jupyterhub_migspawner.spawner.refusals import spawn_exception

try:
    from systemdspawner import SystemdSpawner
except ImportError as error:
    raise ImportError(
        "MigSystemdSpawner needs the package jupyterhub-systemdspawner, which this package's extra "
        "'systemd' installs."
    ) from error

#: Properties that keep a server on its slice, or find its end: no configuration changes them.
OWN = ("DevicePolicy", "EnvironmentFile", "KillMode", "PrivateDevices", "SendSIGKILL", "Type")

#: Properties to which a configuration adds.
ADDED = ("DeviceAllow", "InaccessiblePaths", "LoadCredential")

# Stops in the background, by unit: the hub may make another spawner for a server's next start.
_stops: dict[str, asyncio.Task[None]] = {}


class MigSystemdSpawner(MigSpawnerMixin, SystemdSpawner):  # type: ignore[misc]
    """Servers in systemd units of their own on this machine, a slice each."""

    mig_starts_here = True

    isolation = Enum(
        ["auto", SYSTEMD, NONE],
        "auto",
        help="""
        What keeps servers off slices that are not theirs. ``systemd``: a server's unit can open
        the device files of its own slice only, and does not start where such rules have no effect.
        ``none``: any server can open any slice. ``auto``: systemd where it works, otherwise none,
        with a warning in the log for each server.
        """,
    ).tag(config=True)
    unit_extra_properties = Dict(
        help="""
        Further properties of the servers' units: names, and strings or lists of strings in which
        ``{USERNAME}`` and ``{USERID}`` are expanded. Values of ``DeviceAllow`` and
        ``InaccessiblePaths`` are added to the spawner's own; ``DeviceAllow`` cannot name any of
        NVIDIA's devices, or a whole class of devices. ``DevicePolicy``, ``EnvironmentFile``,
        ``KillMode``, ``PrivateDevices``, ``SendSIGKILL`` and ``Type`` cannot be changed.
        """,
    ).tag(config=True)

    # Started with the unit, to be known when its environment is not.
    _main: Process | None = None
    # The files of the server's certificate, where the hub uses ``internal_ssl``.
    _certificates: Mapping[str, str] = MappingProxyType({})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.unit_name = self._mig_unit_name()

    @validate("unit_extra_properties")
    def _keep_isolation(self, proposal: dict[str, Any]) -> dict[str, Any]:
        for name, value in proposal["value"].items():
            if name in OWN:
                raise TraitError(f"unit_extra_properties cannot change {name}.")
            for each in _values(value) if name == "DeviceAllow" else ():
                path = os.path.normpath(each.split()[0]) if each.split() else ""
                if not path.startswith("/dev/") or path.startswith(("/dev/nvidia", "/dev/char")):
                    raise TraitError(
                        f"unit_extra_properties cannot allow the device {each!r}: expected a path "
                        "below /dev that is none of NVIDIA's."
                    )
        return dict(proposal["value"])

    # -- names and state -------------------------------------------------------------------------

    def _mig_unit_name(self) -> str:
        """Return the name of this server's unit; ``unit_name_template`` is not used."""
        return unit_name(self.mig_config.hub, self.user.name, self.name)

    def _mig_unit(self) -> Unit:
        return Unit(self.unit_name)

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state: the unit keeps its name when its user or hub is renamed."""
        super().load_state(state)
        self.unit_name = state.get("unit_name") or self._mig_unit_name()

    def clear_state(self) -> None:
        """Forget the unit that was started last."""
        super().clear_state()
        self.unit_name = self._mig_unit_name()
        self._main = None
        self._certificates = {}

    # -- start -----------------------------------------------------------------------------------

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Return where the server will find its certificate: systemd puts it there, for it alone.

        The hub calls this before each start where it uses ``internal_ssl``.
        """
        self._certificates = dict(paths)
        folder = credentials_folder(self._mig_unit_name())
        return {name: f"{folder}/{name}" for name in paths}

    def _mig_server_uid(self) -> int | None:
        if self.dynamic_users:
            return None
        try:
            return pwd.getpwnam(self._expand_user_vars(self.username_template)).pw_uid
        except (KeyError, OSError):
            return None

    def _mig_server_process(self) -> Process | None:
        return self._main

    def _mig_choose_isolation(self) -> str:
        if self.isolation == NONE:
            return self._mig_isolation_off()
        why = problem()
        if why:
            raise UnitError(f"{why} {MEND}")
        why = rules_problem()
        if not why:
            return SYSTEMD
        return self._mig_isolation_missing(self.isolation, why, MEND)

    async def _mig_launch(self) -> Any:
        """Start the server's unit, in place of one that may have been left under its name."""
        self.unit_name = self._mig_unit_name()
        unit = self._mig_unit()
        self.port = random_port()
        try:
            await self._end_remnant(unit)
            environment, options = self._environment(), self._options()
            command = [self._expand_user_vars(each) for each in (*self.cmd, *self.get_args())]
            command[0] = _program(command[0], environment)
            await unit.start(command, environment, self._properties(), *options)
            self._main = await self._main_process(unit)
        except UnitError as error:
            raise spawn_exception(self.log, error) from None
        except asyncio.CancelledError:
            # systemd may have been asked already, and the hub does not stop what is not there yet.
            self._stop_later(unit)
            raise
        return (self.ip or "127.0.0.1", self.port)

    async def _end_remnant(self, unit: Unit) -> None:
        """Stop what has this server's unit although the hub does not know of it.

        Raises :exc:`.UnitError` when it cannot be stopped, or systemd does not answer.
        """
        stop = _stops.get(unit.name)
        if stop is not None:
            # It would stop the new one.
            await asyncio.shield(stop)
        state = await unit.state()
        if state.running:
            self.log.warning("The unit %s of an earlier start still runs: stopped.", unit.name)
        if state.running or state.active == "failed":
            await unit.stop()

    def _environment(self) -> dict[str, str]:
        environment: dict[str, str] = self.get_env()
        if self.dynamic_users:
            environment["HOME"] = self._working_folder()
        if self.extra_paths:
            own = [self._expand_user_vars(path) for path in self.extra_paths]
            environment["PATH"] = ":".join([*own, environment.get("PATH", os.defpath)])
        environment["SHELL"] = self.default_shell
        return environment

    def _options(self) -> list[str]:
        """Return the options of ``systemd-run`` beside the unit's properties."""
        options = [f"--description=Server {self.name!r} of {self.user.name!r} at JupyterHub"]
        if not self.dynamic_users:
            found = self._account()
            options += [f"--uid={found.pw_uid}", f"--gid={found.pw_gid}"]
        if self.slice:
            options.append(f"--slice={self.slice}")
        return options

    def _account(self) -> pwd.struct_passwd:
        name = self._expand_user_vars(self.username_template)
        try:
            return pwd.getpwnam(name)
        except KeyError:
            raise UnitError(f"This machine has no user {name!r} to run a server as.") from None

    def _working_folder(self) -> str:
        if self.dynamic_users:
            return str(self._expand_user_vars("/var/lib/{USERNAME}"))
        if self.user_workingdir is not None:
            return str(self._expand_user_vars(self.user_workingdir))
        return self._account().pw_dir

    def _properties(self) -> dict[str, str | Sequence[str]]:
        """Return the properties of the unit for this start; nothing of an earlier one is in it."""
        found: dict[str, str | Sequence[str]] = {
            # The start has failed when the program cannot be executed.
            "Type": "exec",
            "KillMode": "control-group",
            "TimeoutStopSec": "30",
            # A kernel that is killed for its memory does not end the server.
            "OOMPolicy": "continue",
            "WorkingDirectory": self._working_folder(),
            # Programs that a user's own systemd or D-Bus starts are in other units.
            "InaccessiblePaths": ["-/run/user"],
        }
        if self.dynamic_users:
            found["DynamicUser"] = "yes"
            found["StateDirectory"] = self._expand_user_vars("{USERNAME}")
        if self.isolate_tmp:
            found["PrivateTmp"] = "yes"
        if self.disable_user_sudo:
            found["NoNewPrivileges"] = "yes"
        if self.mem_limit is not None:
            found.update(MemoryAccounting="yes", MemoryMax=str(self.mem_limit))
        if self.cpu_limit is not None:
            percent = max(1, round(self.cpu_limit * 100))
            found.update(CPUAccounting="yes", CPUQuota=f"{percent}%")
        for name, paths in (
            ("ReadOnlyPaths", self.readonly_paths),
            ("ReadWritePaths", self.readwrite_paths),
        ):
            if paths is not None:
                found[name] = [self._expand_user_vars(path) for path in paths]
        if self._certificates:
            files = self._certificates.items()
            found["LoadCredential"] = [f"{name}:{path}" for name, path in files]
        if self._mig_isolation != NONE:
            found.update(device_rules(self._mig_nodes))
        if self.isolate_devices and not self._mig_nodes:
            # It has a /dev without any card's devices.
            found["PrivateDevices"] = "yes"
        for name, value in self.unit_extra_properties.items():
            more = [self._expand_user_vars(each) for each in _values(value)]
            before = _values(found.get(name, ())) if name in ADDED else []
            if name != "DeviceAllow" or self._mig_isolation != NONE:
                found[name] = [*before, *more]
        return found

    async def _main_process(self, unit: Unit) -> Process | None:
        """Return the first process of the server's unit.

        Raises :exc:`.UnitError` if it has ended already, or systemd does not say.
        """
        state = await unit.state()
        if not state.running:
            raise UnitError(
                f"The unit {unit.name} ended as soon as it had started, with status "
                f"{state.status}; 'journalctl -u' with its name shows what it wrote."
            )
        try:
            started = start_time(PROC / str(state.pid)) if state.pid else None
        except Unreadable:
            started = None
        return None if started is None else Process(state.pid, started)

    # -- end -------------------------------------------------------------------------------------

    def _stop_later(self, unit: Unit) -> None:
        """Stop a unit without anybody who waits for it."""

        async def stop() -> None:
            try:
                await unit.stop()
            except UnitError as error:
                self.log.error("%s", error)

        task = _stops[unit.name] = asyncio.create_task(stop())
        task.add_done_callback(lambda _: _stops.pop(unit.name, None))

    async def poll(self) -> int | None:
        """Return None while the unit runs or its state is unknown; otherwise its exit status."""
        unit = self._mig_unit()
        try:
            state = await unit.state()
        except UnitError as error:
            # An answer that does not come says nothing about the server.
            self.log.warning("%s It counts as running.", error)
            return None
        if state.running:
            return None
        unit.forget()
        return state.status or int(state.active == "failed")

    async def stop(self, now: bool = False) -> None:
        """End all processes of the server's unit."""
        try:
            await self._mig_unit().stop(now=now)
        except UnitError as error:
            # The lease stays until the node's agent has proven its slice empty.
            self.log.error("%s", error)


def _values(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _program(name: str, environment: Mapping[str, str]) -> str:
    """Return the path of a program; systemd does not search the server's own ``PATH`` for it.

    Raises :exc:`.UnitError`.
    """
    path = environment.get("PATH", os.environ.get("PATH", os.defpath))
    found = name if os.path.isabs(name) else shutil.which(name, path=path)
    if found is None:
        raise UnitError(f"The server's program {name!r} is not on its PATH, {path}.")
    return found
