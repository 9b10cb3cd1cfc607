"""The loopback address that the service listens on, from its URL in the hub's configuration."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from jupyterhub_migspawner.errors import ConfigError


@dataclass(frozen=True)
class Address:
    """Where to listen: a loopback address of this machine."""

    host: str
    port: int


def listening_address(url: str) -> Address:
    """Return the loopback address and port of the service's URL. Raises :exc:`.ConfigError`."""
    try:
        parsed = urlsplit(url)
        host, port, scheme = parsed.hostname, parsed.port, parsed.scheme
    except ValueError:
        host, port, scheme = None, None, ""
    if not host or not port or scheme != "http":
        raise ConfigError(
            f"The service's 'url' in JupyterHub.services is {url!r}, expected an http "
            "address with a port, such as 'http://127.0.0.1:10101'."
        )
    if not _is_loopback(host):
        raise ConfigError(
            f"The service's 'url' in JupyterHub.services is {url!r}: it is reached through the "
            "hub's proxy only and listens on the loopback address, such as 'http://127.0.0.1:10101'."
        )
    return Address(host, port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
