"""What ``migspawner doctor`` says about servers in containers: engine, image, CDI."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import TraitError
from traitlets.config import Config

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding
from jupyterhub_migspawner.cli.doctor.isolation import spawner_class
from jupyterhub_migspawner.config import MigBroker
from jupyterhub_migspawner.errors import GpuError, LaunchError
from jupyterhub_migspawner.gpu.cdi import device_of, read_specifications
from jupyterhub_migspawner.gpu.devices import DeviceNode, slice_nodes
from jupyterhub_migspawner.policy.wording import listed, plural

if TYPE_CHECKING:
    from jupyterhub_migspawner.spawner.launchers.docker import MigDockerSpawner

ENGINE_SECONDS = 10
"""Seconds that the engine may take for one answer."""

_INSTALL = (
    "Install the package docker.io or docker-ce (or podman, with podman.socket) on this machine "
    "and start it; the hub's user must be allowed to use its socket. Another address is given by "
    "c.MigDockerSpawner.client_kwargs or DOCKER_HOST, for example "
    '{"base_url": "unix:///run/podman/podman.sock"}.'
)
_REFRESH = (
    "Run `nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml` after each cut; "
    "c.MigBroker.after_cut can do that."
)

_CLASS = "MigDockerSpawner"


def check(hub: Config, mig: MigBroker) -> Iterator[Finding]:
    """Check the container engine, where the hub starts its servers in containers."""
    given = hub.JupyterHub.get("spawner_class", "")
    if find_spec("dockerspawner") is None or find_spec("docker") is None:
        if isinstance(given, str) and given.lower() == "mig-docker":
            yield Finding(
                "containers",
                WRONG,
                "The hub's spawner is mig-docker, and dockerspawner is not installed.",
                "Install it into the hub's environment: pip install 'dockerspawner>=14'.",
            )
        return
    kind = spawner_class(hub)
    # By its name: importing it takes the engine's client, which other hubs have no use for.
    if not isinstance(kind, type) or _CLASS not in [each.__name__ for each in kind.__mro__]:
        return
    try:
        spawner = kind(config=hub)
    except TraitError as error:
        yield Finding("containers", WRONG, str(error), "Correct it, then run this again.")
        return
    yield from _settings(spawner)
    yield from _engine(spawner, mig)


def _settings(spawner: MigDockerSpawner) -> Iterator[Finding]:
    """Check what the settings alone show."""
    from jupyterhub_migspawner.spawner.launchers.containers import engine_address

    address = engine_address(spawner.client_kwargs)
    if not address.startswith("unix://"):
        yield Finding(
            "containers",
            WARNING,
            f"The engine's address is {address}. It has to run on this machine: the processes of "
            "its containers are looked for here.",
            "Use its unix socket, which shows that it does.",
        )
    if spawner.network_name == "host":
        yield Finding(
            "containers",
            WARNING,
            "Servers use the machine's own network (network_name = 'host'): they reach each "
            "other's ports, and those that services of this machine have on the loopback address.",
            "Use a network of the engine's, such as the default 'bridge'.",
        )
    if os.geteuid() != 0:
        yield Finding(
            "containers",
            WARNING,
            "This does not run as root. A hub without root cannot recognise the processes of "
            "containers, and starts none with a GPU.",
            "Run the hub, and this command, as root.",
        )


def _engine(spawner: MigDockerSpawner, mig: MigBroker) -> Iterator[Finding]:
    """Check what the engine answers."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    from jupyterhub_migspawner.spawner.launchers.containers import engine_address

    address = engine_address(spawner.client_kwargs)
    spawner.client_kwargs = {"timeout": ENGINE_SECONDS, **spawner.client_kwargs}
    try:
        version, info = spawner.client.version(), spawner.client.info()
    except (DockerException, RequestException) as error:
        yield Finding(
            "containers",
            WRONG,
            f"The container engine at {address} does not answer: {str(error)[:300]}",
            _INSTALL,
        )
        return
    names = [str(part.get("Name")) for part in version.get("Components") or () if part.get("Name")]
    name = "Podman" if any("podman" in each.lower() for each in names) else "Docker"
    yield Finding(
        "containers",
        OK,
        f"{name} {version.get('Version')} answers at {address} (API {version.get('ApiVersion')}).",
    )
    try:
        yield from _image(spawner)
        yield from _options(spawner, address)
    except (DockerException, RequestException) as error:
        yield Finding("containers", WRONG, f"The engine failed: {str(error)[:300]}", _INSTALL)
    yield from _specifications(spawner, info, mig)


def _image(spawner: MigDockerSpawner) -> Iterator[Finding]:
    from docker.errors import NotFound

    image = spawner.image
    try:
        spawner.client.inspect_image(image)
    except NotFound:
        pulled = spawner.pull_policy.lower() in ("always", "ifnotpresent")
        yield Finding(
            "containers",
            WARNING if pulled else WRONG,
            f"The image {image} is not on this machine"
            + ("; the first start pulls it, and may take too long." if pulled else "."),
            f"Pull it: docker pull {image}",
        )
    else:
        yield Finding("containers", OK, f"The image {image} is on this machine.")


def _options(spawner: MigDockerSpawner, address: str) -> Iterator[Finding]:
    """Check options for all containers, unless a function makes them for each."""
    from jupyterhub_migspawner.spawner.launchers.host_config import problems

    extra = spawner.extra_host_config
    try:
        host = spawner.client.create_host_config(**extra) if isinstance(extra, dict) else {}
    except (TypeError, ValueError) as error:
        yield Finding(
            "containers",
            WRONG,
            f"extra_host_config is not what the engine takes: {str(error)[:300]}",
            "See the keyword arguments of docker.APIClient.create_host_config.",
        )
        return
    for what, why in problems(host, address.removeprefix("unix://")):
        yield Finding(
            "containers",
            WRONG,
            f"extra_host_config has {what}: {why}. No server starts with it.",
            "Remove it.",
        )


def _specifications(
    spawner: MigDockerSpawner, info: Mapping[str, Any], mig: MigBroker
) -> Iterator[Finding]:
    """Check whether CDI, where it is used, has the slices as they are now."""
    if spawner.devices == "nodes":
        return
    only = spawner.devices == "cdi"
    folders = list(spawner.cdi_spec_dirs or info.get("CDISpecDirs") or ())
    if not info.get("CDISpecDirs"):
        yield Finding(
            "cdi",
            WRONG if only else OK,
            "The container engine does not support CDI, or it is not enabled. "
            + ("No server can start." if only else "Containers get device files by their path."),
            'Docker supports it from version 25 on; set "features": {"cdi": true} in '
            "/etc/docker/daemon.json, or c.MigDockerSpawner.devices = 'nodes'."
            if only
            else "",
        )
        return
    wrong = list(_outdated(folders, mig))
    if wrong:
        yield Finding(
            "cdi",
            WRONG if only else WARNING,
            f"{wrong[0]} The same holds for {plural(len(wrong) - 1, 'other slice')}."
            if len(wrong) > 1
            else wrong[0],
            _REFRESH,
        )
    else:
        yield Finding("cdi", OK, f"The specifications in {listed(folders)} have every slice.")


def _outdated(folders: Sequence[str], mig: MigBroker) -> Iterator[str]:
    """Yield what is wrong with the specifications, a sentence for each slice of this machine."""
    try:
        cards = mig.open_nvml().inventory().cards
    except GpuError:
        return  # the check of the cards reports it
    specifications = read_specifications(folders)
    for card in cards:
        for instance in card.instances:
            if instance.uuid is None or instance.ci_id is None:
                continue
            try:
                nodes = slice_nodes(card.minor, instance.gi_id, instance.ci_id)
                device_of(specifications, _existing(nodes, mig.simulated), instance.uuid)
            except (GpuError, LaunchError) as error:
                yield str(error)


def _existing(nodes: Sequence[DeviceNode], simulated: bool) -> list[DeviceNode]:
    """Return the nodes; of simulated cards those that there are, as the spawner does."""
    return [node for node in nodes if not simulated or Path(node.path).exists()]
