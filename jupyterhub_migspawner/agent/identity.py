"""This agent as the lease database knows it, and whether another one of this machine has ended."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from jupyterhub_migspawner.agent.processes import PROC, Unreadable, start_time
from jupyterhub_migspawner.gpu.boot import boot_id
from jupyterhub_migspawner.model.nodes import AgentProcess

MACHINE_ID = Path("/etc/machine-id")
"""Made when a system is installed, and the same after every boot (machine-id(5))."""


def this_process() -> AgentProcess:
    """Return the identity of this process among all agents."""
    return AgentProcess(
        host=socket.gethostname(),
        machine=_machine(),
        boot_id=boot_id(),
        namespace=_namespace(),
        pid=os.getpid(),
        started=start_time(PROC / str(os.getpid())) or 0,
    )


def is_gone(agent: AgentProcess) -> bool:
    """Tell whether an agent has provably ended: on this boot, and where pids mean the same."""
    here = this_process()
    if not agent.boot_id or (agent.boot_id, agent.namespace) != (here.boot_id, here.namespace):
        return False
    try:
        return start_time(PROC / str(agent.pid)) != agent.started
    except Unreadable:
        return False


def _machine() -> str:
    try:
        return MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _namespace() -> str:
    """Return what tells this pid namespace from others of this boot (pid_namespaces(7))."""
    try:
        return os.readlink(PROC / "self" / "ns" / "pid")
    except OSError:
        return ""
