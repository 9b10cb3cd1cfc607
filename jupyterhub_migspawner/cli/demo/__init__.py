"""``migspawner demo``, in parts: its cards, its folder, its processes, its hub, the command."""

from __future__ import annotations

from jupyterhub_migspawner.cli.demo.command import Demo

__all__ = ["Demo"]
