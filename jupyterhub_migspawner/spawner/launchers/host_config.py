"""What a container of a server may be given beside its slice: rules about Docker's host config.

Relies on the engine's own names (Docker Engine API, ``ContainerCreate``, ``HostConfig``), because
every way to set an option ends there, whichever of dockerspawner's traits it came from. Promises
that a container which gets past :func:`demand_confined` can open no device but those it is given,
cannot reach the engine, and is not started again by the engine behind the broker's back.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from jupyterhub_migspawner.errors import LaunchError
from jupyterhub_migspawner.policy.wording import listed

RUNTIMES = ("runc", "crun", "io.containerd.runc.v2")
"""Runtimes that give a container what it is created with and nothing else."""

CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "IPC_LOCK",
        "KILL",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
        "SYS_NICE",
    }
)
"""Capabilities that an admin may add: Docker's default without MKNOD, and two that open nothing."""

_MEND = "Remove it from extra_host_config, extra_create_kwargs or the volumes."

_DEVICES = (
    "a server gets the devices of its slice and no others; the setting 'devices' says how they are "
    "given"
)
_REFUSED = {
    "Privileged": "a privileged container can open the slices of all others",
    "Devices": _DEVICES,
    "DeviceRequests": _DEVICES,
    "DeviceCgroupRules": _DEVICES,
    "VolumesFrom": "what other containers have mounted may lead to the engine or to devices",
}
_NO_RESTART = ("", "no")

#: Folders of the machine through which a container reaches its devices, or the engine.
_MACHINE = ("/dev", "/proc", "/sys", "/run", "/var/run")
#: What lies there and leads to neither.
_HARMLESS = ("/dev/shm", "/dev/hugepages", "/dev/mqueue")  # noqa: S108


def demand_confined(host_config: Mapping[str, Any], engine: str = "", runtime: str = "") -> None:
    """Raise :exc:`.LaunchError` where a host config would let its container out of its slice.

    ``host_config`` is what the admin's settings have made, before the slice's devices are added;
    ``engine`` is the path of the engine's socket, and ``runtime`` what was given beside the host
    config.
    """
    for what, why in problems(host_config, engine, runtime):
        raise LaunchError(f"The container is configured with {what}: {why}. {_MEND}")


def problems(
    host_config: Mapping[str, Any], engine: str = "", runtime: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield each setting that lets a container out of its slice, and why it does."""
    for name, why in _REFUSED.items():
        if host_config.get(name):
            yield f"{name} = {_short(host_config[name])}", why
    for name in ("MaskedPaths", "ReadonlyPaths"):
        if host_config.get(name) is not None:
            yield (
                f"{name} = {_short(host_config[name])}",
                "root of the container could change the machine's kernel through /proc/sys",
            )
    pid = host_config.get("PidMode")
    if pid:
        yield (
            f"PidMode = {_short(pid)}",
            "it would see, and could stop, processes of the machine or of other containers",
        )
    restart = host_config.get("RestartPolicy") or {}
    policy = restart.get("Name", "") if isinstance(restart, Mapping) else restart
    if policy not in _NO_RESTART:
        yield (
            f"RestartPolicy = {_short(policy)}",
            "the engine would start it again on a slice that is another person's by then",
        )
    given = host_config.get("Runtime") or runtime
    if given and given not in RUNTIMES:
        yield (
            f"Runtime = {_short(given)}",
            "it may add devices that an image asks for, such as all cards; expected is "
            f"{listed([repr(each) for each in RUNTIMES], 'or')}",
        )
    added = host_config.get("CapAdd") or ()
    bad = [each for each in map(str, added) if _bare(each) not in CAPABILITIES]
    if bad:
        yield (
            f"CapAdd = {_short(bad)}",
            f"only {listed(sorted(CAPABILITIES))} can be added without opening other slices",
        )
    yield from _bad_mounts(host_config, engine)


def _bad_mounts(host_config: Mapping[str, Any], engine: str) -> Iterator[tuple[str, str]]:
    sources = [("Binds", str(bind).partition(":")[0]) for bind in host_config.get("Binds") or ()]
    for mount in host_config.get("Mounts") or ():
        if isinstance(mount, Mapping) and mount.get("Type", "bind") == "bind":
            sources.append(("Mounts", str(mount.get("Source") or "")))
    for name, source in sources:
        if not source.startswith("/"):
            continue  # the name of a volume
        paths = {os.path.normpath(source), os.path.realpath(source)}
        if engine and any(_holds(path, os.path.realpath(engine)) for path in paths):
            yield (
                f"{source} in {name}",
                "a program that reaches the engine's socket can start containers with any device",
            )
        elif any(_leads_to_machine(path) for path in paths):
            yield (
                f"{source} in {name}",
                "it shows the machine's devices, or sockets of its services",
            )


def _leads_to_machine(path: str) -> bool:
    if any(_holds(each, path) for each in _HARMLESS):
        return False
    return path == "/" or any(_holds(each, path) or _holds(path, each) for each in _MACHINE)


def _holds(folder: str, path: str) -> bool:
    """Return whether a path is a folder, or lies in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def without(capability: str, dropped: Collection[Any] | None) -> list[str]:
    """Return the capabilities to drop, one more among them."""
    every = [str(each) for each in dropped or ()]
    if {"ALL", capability} & {_bare(each) for each in every}:
        return every
    return [*every, capability]


def _bare(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
