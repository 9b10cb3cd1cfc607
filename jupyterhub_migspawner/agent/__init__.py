"""The node's loop: reads the cards, proves slices empty, cuts cards."""

from jupyterhub_migspawner.agent.loop import Agent
from jupyterhub_migspawner.agent.making import make_agent, make_cutter, make_hooks

__all__ = ["Agent", "make_agent", "make_cutter", "make_hooks"]
