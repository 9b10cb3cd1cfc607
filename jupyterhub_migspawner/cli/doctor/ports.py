"""Whether another local user can take the way between proxy, hub and service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from traitlets.config import Config

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, Finding
from jupyterhub_migspawner.hub.ports import safe_places
from jupyterhub_migspawner.hub.wiring import socket_places, starts_own_proxy


def check(config: Config, config_file: Path) -> Iterator[Finding]:
    """Check how the proxy reaches the service; ``config`` is the hub's whole configuration."""
    if not starts_own_proxy(config) or "proxy_class" in config.get("JupyterHub", {}):
        yield Finding(
            "ports",
            WARNING,
            "The hub does not start this proxy with its own settings, so the proxy reaches the "
            "service at a TCP port. The hub holds that port while it runs; while the hub is "
            "down, a local user can take it, and the hub's own port, and receive what people "
            "send.",
            "On a machine with other local users, let the hub start configurable-http-proxy "
            "itself, or stop the proxy together with the hub; set c.JupyterHub.internal_ssl = "
            "True, and c.JupyterHub.hub_bind_url to a unix socket.",
        )
    elif not any(safe_places(socket_places(config_file))):
        yield Finding(
            "ports",
            WARNING,
            "There is no folder for the service's unix socket in which only the hub's user and "
            "root can write: RUNTIME_DIRECTORY, XDG_RUNTIME_DIR, the hub's working folder and "
            f"{config_file.parent} were checked. The proxy reaches the service at a TCP port, "
            "which a local user can take while the hub is down.",
            "Remove write access for group and others from the folder the hub starts in, or "
            "set RuntimeDirectory=jupyterhub in the hub's systemd unit.",
        )
    else:
        yield Finding(
            "ports",
            OK,
            "The proxy reaches the service at a unix socket that no other user can take.",
        )
