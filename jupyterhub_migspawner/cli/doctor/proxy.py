"""What ``migspawner doctor`` says about the hub's proxy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jupyterhub_migspawner.cli.demo.tools import proxy_folder
from jupyterhub_migspawner.cli.doctor.findings import OK, WRONG, Finding
from jupyterhub_migspawner.errors import MigspawnerError


def check(hub: Mapping[str, Any]) -> Iterator[Finding]:
    """Check whether the hub finds its proxy; ``hub`` is its configuration, empty if unknown."""
    if "proxy_class" in hub.get("JupyterHub", {}):
        yield Finding("proxy", OK, "The configuration names a custom proxy; it is not checked.")
        return
    if "command" in hub.get("ConfigurableHTTPProxy", {}):
        yield Finding(
            "proxy", OK, "The configuration names the proxy's command; it is not checked."
        )
        return
    try:
        folder = proxy_folder()
    except MigspawnerError as error:
        yield Finding(
            "proxy",
            WRONG,
            str(error),
            "Install it, or set c.ConfigurableHTTPProxy.command to its path.",
        )
    else:
        yield Finding("proxy", OK, f"configurable-http-proxy is in {folder}.")
