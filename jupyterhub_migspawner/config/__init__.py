"""The configuration: the traits an admin sets, the file they are in, and what the hub read."""

from jupyterhub_migspawner.config.traits import MigBroker

__all__ = ["MigBroker"]
