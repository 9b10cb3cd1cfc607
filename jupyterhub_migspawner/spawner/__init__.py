"""The mixin that binds a server to a slice, over any JupyterHub spawner, and ready classes."""

from jupyterhub_migspawner.spawner.mixin import MigSpawnerMixin

__all__ = ["MigSpawnerMixin"]
