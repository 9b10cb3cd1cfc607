"""A slice broker for research teams: JupyterHub notebooks on NVIDIA MIG slices."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def setup(c: Any) -> None:
    """Wire spawner, service and roles into ``jupyterhub_config.py``: :func:`.hub.setup.setup`."""
    # Imported here so that the command line can ask for the version without loading JupyterHub.
    from jupyterhub_migspawner.hub.setup import setup as wire

    wire(c)
