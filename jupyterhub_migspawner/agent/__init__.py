"""The node's loop: reads the cards, proves slices empty, cuts cards."""

from jupyterhub_migspawner.agent.factory import make_agent, make_cutter, make_hooks
from jupyterhub_migspawner.agent.loop import Agent

__all__ = ["Agent", "make_agent", "make_cutter", "make_hooks"]
