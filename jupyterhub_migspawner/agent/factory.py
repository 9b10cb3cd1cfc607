"""Agents and cutters as the admin's file wants them."""

from __future__ import annotations

from pathlib import Path

from jupyterhub_migspawner.agent.hooks import Hooks
from jupyterhub_migspawner.agent.layouts import Cutter
from jupyterhub_migspawner.agent.lock import CuttingLock
from jupyterhub_migspawner.agent.loop import Agent
from jupyterhub_migspawner.agent.returns import hold_back
from jupyterhub_migspawner.config import MigBroker


def make_agent(options: MigBroker) -> Agent:
    """Make the agent of this machine.

    Raises :exc:`.ConfigError` and :exc:`.DatabaseError`.
    """
    return Agent(
        options.open_broker(),
        options.open_nvml(),
        node=options.node,
        lock=_lock(options),
        hooks=make_hooks(options),
    )


def make_cutter(options: MigBroker, actor: str) -> Cutter:
    """Make a cutter of this machine's cards beside its agent; ``actor`` is named in the events.

    It runs no commands around a cut: a caller that cuts several cards runs them once around all.
    """
    broker = options.open_broker()
    return Cutter(
        broker,
        options.open_nvml(),
        node=options.node,
        lock=_lock(options),
        actor=actor,
        check=lambda found: hold_back(broker, options.node, found, Path("/proc")),
    )


def make_hooks(options: MigBroker) -> Hooks:
    """Return the commands to run before and after a cut.

    Raises :exc:`.ConfigError`.
    """
    before, after = options.hook_commands()
    return Hooks(before, after, options.hook_seconds)


def _lock(options: MigBroker) -> CuttingLock:
    return CuttingLock(options.resolved_directory(), options.node)
