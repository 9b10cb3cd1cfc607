"""Servers in containers of Docker, or of Podman's service, a slice each.

The container gets the device nodes of its slice and nothing else: by path, or by asking the engine
for the device of a CDI specification that gives exactly these. It is created for each start,
because it is bound to the slice that it was created with, and is looked at from outside once it
runs: its processes must be visible here, or nobody could prove that its slice is empty.

Relies on an engine on the hub's own machine and on dockerspawner for the rest. Promises that what
an admin adds to the containers opens no other slice (see :mod:`.host_config`), that two servers
never have one name, and that an engine which does not answer makes no server count as ended.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from jupyterhub.utils import random_port
from traitlets import Bool, Enum, List, TraitError, Unicode, validate

from jupyterhub_migspawner.agent.processes import PROC, Process, Unreadable, uids_of
from jupyterhub_migspawner.errors import EngineError, LaunchError, MigspawnerError
from jupyterhub_migspawner.gpu.cdi import Device, device_of, read_specifications
from jupyterhub_migspawner.policy.isolation import CONTAINER
from jupyterhub_migspawner.policy.wording import listed
from jupyterhub_migspawner.spawner import MigSpawnerMixin
from jupyterhub_migspawner.spawner.environment import slice_environment
from jupyterhub_migspawner.spawner.launchers.container_view import (
    foreign_nodes,
    is_marked,
    process_of,
)
from jupyterhub_migspawner.spawner.launchers.containers import (
    ENGINE_ERRORS,
    LABELS,
    NOT_THERE,
    PATIENCE,
    OwnContainer,
    engine_address,
    environment_of,
    labels_of,
)
from jupyterhub_migspawner.spawner.launchers.host_config import RUNTIMES, demand_confined, without
from jupyterhub_migspawner.spawner.refusals import spawn_exception

T = TypeVar("T")

AUTO, CDI, NODES = "auto", "cdi", "nodes"

#: Seconds for which what the engine says of itself is used.
_INFO_SECONDS = 30.0


class MigDockerSpawner(MigSpawnerMixin, OwnContainer):
    """Servers in containers on this machine, a slice each."""

    mig_starts_here = True

    devices = Enum(
        [AUTO, CDI, NODES],
        AUTO,
        help="""
        How a container is given its slice. ``nodes``: the slice's device files, each by its path;
        the driver's libraries have to be in the image, or mounted. ``cdi``: by its name in a CDI
        specification, which must have the slice as it is now; no server starts otherwise. ``auto``:
        CDI if the engine supports it and the specification is right, otherwise nodes; the log says
        why.
        """,
    ).tag(config=True)
    cdi_spec_dirs = List(
        Unicode(),
        help="""
        Folders with CDI specifications, the most important last. Default: those that the engine
        says it reads.
        """,
    ).tag(config=True)
    remove = Bool(
        True,
        help="""
        Whether a container is removed when its server stops. It always is: a container is bound to
        the slice that it was created with. Keep people's files in volumes.
        """,
    ).tag(config=True)

    # Of one start only: how the slice is given, the first process, and the engine's runtime.
    _mig_device: Device | None = None
    _mig_process: Process | None = None
    _mig_runtime = ""

    # Of the class, for all spawners of a hub: what the engine said of itself, and when.
    _mig_known: tuple[float, Mapping[str, Any]] | None = None

    @validate("remove")
    def _always_removed(self, proposal: dict[str, Any]) -> bool:
        if not proposal["value"]:
            raise TraitError(
                f"{type(self).__name__}.remove cannot be False: a container that is started again "
                "has the slice that it was created with, which may be another person's by then. "
                "Keep people's files in volumes."
            )
        return True

    def _mig_hub_id(self) -> tuple[str, str]:
        return self.mig_config.hub_home, self.mig_config.hub

    def _mig_labels(self) -> dict[str, str]:
        return {**super()._mig_labels(), LABELS["attempt"]: self._mig_attempt}

    # -- start -----------------------------------------------------------------------------------

    def _mig_choose_isolation(self) -> str:
        return CONTAINER

    def _mig_server_process(self) -> Process | None:
        return self._mig_process

    async def start(self) -> Any:
        """Start the server on a slice, after removing what an earlier start has left."""
        try:
            # Before the lease is taken, which may wait for what the old container still holds.
            await self._mig_asked("remove the last container", self._mig_remove_last())
        except MigspawnerError as error:
            raise spawn_exception(self.log, error) from None
        return await super().start()

    async def _mig_launch(self) -> Any:
        """Create and start the container, and look at what it really got."""
        try:
            await self._mig_asked("describe itself", self._mig_choose_devices())
            if self.network_name == "host":
                # All containers share the machine's ports.
                self.port = random_port()
                self.ip = self.host_ip
            url = await self._mig_asked("start a container", super()._mig_launch())
            await self._mig_asked("describe a container", self._mig_inspect())
        except MigspawnerError as error:
            raise spawn_exception(self.log, error) from None
        except asyncio.CancelledError:
            self._mig_call_off(self._mig_attempt)
            raise
        return url

    async def _mig_asked(self, what: str, answer: Any) -> Any:
        """Return what the engine answers; raise :exc:`.EngineError` where it does not."""
        try:
            return await answer
        except ENGINE_ERRORS as error:
            raise EngineError(
                f"The container engine at {engine_address(self.client_kwargs)} was asked to {what} "
                f"for {self._log_name}, and that failed: {str(error)[:500]}"
            ) from error

    async def _mig_remove_last(self) -> None:
        found = await self.get_object()
        if found is None:
            return
        attempt = labels_of(found).get(LABELS["attempt"], "")
        lease = await self._mig_call(lambda broker: broker.leases.of_attempt(attempt))
        if lease is not None and (lease.user, lease.server) != (self.user.name, self.name):
            # A user was renamed, and this one has the old name now.
            raise LaunchError(
                f"The container {self.object_name} has the name of this server's, and belongs to "
                f"the session of {lease.user} (lease {lease.id}). Wait until that has ended."
            )
        self.log.warning("Removing container %s, which an earlier start left.", self.object_name)
        with suppress(NOT_THERE):
            if found["State"].get("Running"):
                await self.docker("stop", found["Id"])
            await self.remove_object()
        await self._mig_wait_until_gone()

    async def _mig_choose_devices(self) -> None:
        """Decide how this start gives the container its slice."""
        self._mig_device = None
        self._mig_process = None
        info = await self._mig_info()
        runtimes = info.get("Runtimes") or {}
        usual = info.get("DefaultRuntime", "")
        # The engine's default may be NVIDIA's, which adds what an image asks for.
        self._mig_runtime = "runc" if usual not in RUNTIMES and "runc" in runtimes else ""
        lease = self._mig_lease
        if lease is None or lease.slice_uuid is None or self.devices == NODES:
            return
        folders = self.cdi_spec_dirs or info.get("CDISpecDirs") or []
        nodes, uuid = self._mig_nodes, lease.slice_uuid
        try:
            if not info.get("CDISpecDirs"):
                raise LaunchError(
                    "The container engine does not support CDI, or it is not enabled: Docker does "
                    'from version 25 on, with "features": {"cdi": true} in its daemon.json.'
                )
            self._mig_device = await self._mig_apart(
                lambda: device_of(read_specifications(folders), nodes, uuid)
            )
        except LaunchError as error:
            if self.devices == CDI:
                raise
            self.log.info("The container of %s gets device nodes. %s", self._log_name, error)

    async def _mig_info(self) -> Mapping[str, Any]:
        """Return what the engine says of itself, asked again after half a minute."""
        cls, now = MigDockerSpawner, time.monotonic()
        if cls._mig_known is None or now - cls._mig_known[0] > _INFO_SECONDS:
            cls._mig_known = now, await self.docker("info")
        return cls._mig_known[1]

    async def _mig_apart(self, work: Callable[[], T]) -> T:
        """Run what blocks in a thread."""
        return await asyncio.wrap_future(self.executor.submit(work))

    def docker(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call the engine in a thread; a container that is created is confined to its slice.

        All settings of the base spawner meet here, and later versions of it may have more of them.
        """
        if method == "create_container":
            kwargs = self._mig_confined(kwargs)
        return super().docker(method, *args, **kwargs)

    def _mig_confined(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments for a new container, with its slice and nothing that opens others.

        Raises :exc:`.LaunchError`.
        """
        host = dict(arguments.get("host_config") or {})
        demand_confined(
            host,
            engine_address(self.client_kwargs).removeprefix("unix://"),
            arguments.get("runtime") or "",
        )
        # What is in the kernel's device rules alone may still be made in a folder of the container.
        host["CapDrop"] = without("MKNOD", host.get("CapDrop"))
        if host.get("NetworkMode") == "host":
            # In the machine's network, root can ask the hub for its settings.
            host["SecurityOpt"] = [*(host.get("SecurityOpt") or ()), "no-new-privileges"]
        if self._mig_runtime and not (host.get("Runtime") or arguments.get("runtime")):
            host["Runtime"] = self._mig_runtime
        if self._mig_device is not None:
            host["DeviceRequests"] = [
                {"Driver": "cdi", "DeviceIDs": [self._mig_device.qualified]},
            ]
        else:
            host["Devices"] = [
                {
                    "PathOnHost": node.path,
                    "PathInContainer": node.path,
                    "CgroupPermissions": node.access,
                }
                for node in self._mig_nodes
            ]
        given = arguments.get("environment") or {}
        if not isinstance(given, Mapping):
            given = environment_of({"Config": {"Env": given}})
        ours = slice_environment(self._mig_tier, self._mig_lease, self._mig_database)
        return {
            **arguments,
            "host_config": host,
            "name": self.object_name,
            "labels": {**dict(arguments.get("labels") or {}), **self._mig_labels()},
            "environment": {**given, **ours, **NO_HOOK},
        }

    def get_env(self) -> dict[str, str]:
        """Return the environment with the slice in it, of which NVIDIA's runtime adds nothing."""
        return {**super().get_env(), **NO_HOOK}

    # -- the container that runs -----------------------------------------------------------------

    async def _mig_inspect(self) -> None:
        """Look at the container from this machine; end it when it is not as it has to be.

        Raises :exc:`.LaunchError`.
        """
        lease = self._mig_lease
        why = await self._mig_what_is_wrong("" if lease is None else lease.attempt)
        if why:
            with suppress(*ENGINE_ERRORS):
                await self.docker("remove_container", self.object_id, v=True, force=True)
            raise LaunchError(why)

    async def _mig_what_is_wrong(self, attempt: str) -> str:
        """Return why the container must not run, in a sentence; ``attempt`` is empty without a GPU.

        An empty text means that it may run.
        """
        give_up = time.monotonic() + PATIENCE
        while True:
            found = await self.get_object()
            if found is None or not found["State"].get("Running"):
                return ""  # it ended: that is for the hub to find out, and its slice is empty
            pid = int(found["State"].get("Pid") or 0)
            process = process_of(pid)
            if not attempt:
                return "" if process is None else self._mig_root_in_our_network(process)
            # Between its start and its program a container shows the runtime's environment.
            if process is not None and await self._mig_apart(partial(is_marked, process, attempt)):
                break
            if time.monotonic() > give_up:
                return (
                    f"The processes of container {self.object_name} cannot be recognised here, so "
                    "nobody could prove that its slice is empty. The engine must run on this "
                    "machine, the hub outside of containers, and both as root."
                )
            await asyncio.sleep(0.02)
        self._mig_process = process
        nodes = self._mig_nodes
        try:
            foreign = await self._mig_apart(lambda: foreign_nodes(process, nodes))
        except OSError as error:
            return f"The devices of container {self.object_name} cannot be read: {error.strerror}."
        if foreign:
            return (
                f"The container {self.object_name} was given {listed(foreign[:8])}, which its "
                "slice does not have, by something beside this hub: look for a hook of the "
                "engine's runtime, and use runc."
            )
        return self._mig_root_in_our_network(process)

    def _mig_root_in_our_network(self, process: Process) -> str:
        """Return why a container must not run as this user; empty when it may."""
        entry = PROC / str(process.pid)
        try:
            uids = uids_of(entry) or frozenset()
            shared = os.stat(entry / "ns" / "net").st_ino == os.stat(PROC / "self/ns/net").st_ino
        except (OSError, Unreadable) as error:
            return f"The user of container {self.object_name} cannot be read: {error}."
        if shared and uids & {0, os.geteuid()}:
            return (
                f"The container {self.object_name} runs as root, or as the hub's user, in the "
                "machine's network: there it can ask the hub for its settings. Use a network of "
                "the engine's own, or set 'user' in extra_create_kwargs."
            )
        return ""

    def clear_state(self) -> None:
        """Forget the container's slice."""
        super().clear_state()
        self._mig_device = None
        self._mig_process = None


NO_HOOK = {"NVIDIA_VISIBLE_DEVICES": "void"}
"""What makes NVIDIA's container runtime add nothing to a container."""
