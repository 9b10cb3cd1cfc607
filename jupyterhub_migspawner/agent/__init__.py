"""The node's loop: reads the cards, proves slices empty, cuts cards."""

from jupyterhub_migspawner.agent.loop import Agent

__all__ = ["Agent"]
