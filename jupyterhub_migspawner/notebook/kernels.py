"""Which requests a server's kernels are at work on, by what they say of it themselves.

Relies on the messages that kernels publish (Jupyter's messaging protocol, IOPub): each request is
``busy`` when it begins and ``idle`` when it is done. Jupyter Server keeps one state for a kernel,
and any request that is done sets it to idle: one on the control channel, as panels send that show
what a kernel uses, or one on a subshell, as widgets do, while a cell computes on. Here each request
is kept apart, and what no person asked for does not count as use.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jupyter_client.session import Session

log = logging.getLogger("jupyterhub_migspawner.notebook")

UNASKED = frozenset(
    {
        "comm_info_request",
        "create_subshell_request",
        "debug_request",
        "delete_subshell_request",
        "interrupt_request",
        "kernel_info_request",
        "list_subshell_request",
        "shutdown_request",
        "usage_request",
    }
)
"""Requests that pages make by themselves, or that say nothing of work."""

_MOST_OPEN = 10_000


@dataclass
class Kernel:
    """One kernel: its open requests with the subshell that each is on, and how much was heard."""

    stream: Any = None
    open: dict[str, Any] = field(default_factory=dict)
    heard: int = 0
    unreadable: bool = False

    def hear(self, message: dict[str, Any]) -> None:
        """Note one message that it published."""
        parent = message.get("parent_header") or {}
        status = message["header"]["msg_type"] == "status"
        state = message["content"].get("execution_state") if status else None
        if state in ("starting", "restarting"):
            self.open.clear()
        if not parent.get("msg_id") or parent.get("msg_type") in UNASKED:
            return
        self.heard += 1
        if state == "busy":
            subshell = parent.get("subshell_id")
            if parent["msg_type"] == "execute_request":
                # One after the other on each: what was there before is done, heard of or not.
                for done in [key for key, on in self.open.items() if on == subshell]:
                    del self.open[done]
            self.open[parent["msg_id"]] = subshell
            if len(self.open) > _MOST_OPEN:
                self.open.pop(next(iter(self.open)))
        elif state == "idle":
            self.open.pop(parent["msg_id"], None)


class Kernels:
    """The kernels of a server from their start on; ``manager`` is Jupyter Server's."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager
        self._kernels: dict[str, Kernel] = {}
        start = getattr(manager, "start_watching_activity", None)
        stop = getattr(manager, "stop_watching_activity", None)
        if start is None or stop is None:
            log.info("This server's kernels cannot be watched.")
            return

        # Called for every kernel that starts, and again for one that is restarted by hand.
        def start_watching_activity(kernel_id: str) -> None:
            start(kernel_id)
            self._watch(kernel_id)

        def stop_watching_activity(kernel_id: str) -> None:
            self._forget(kernel_id)
            stop(kernel_id)

        manager.start_watching_activity = start_watching_activity
        manager.stop_watching_activity = stop_watching_activity

    def said(self) -> list[dict[str, Any]]:
        """Return, for each kernel that is watched, its number of open requests and what was heard.

        One that cannot be understood is left out: then the server's own word has to do.
        """
        there = set(self._manager.list_kernel_ids())
        return [
            {"id": kernel_id, "running": len(kernel.open), "heard": kernel.heard}
            for kernel_id, kernel in self._kernels.items()
            if kernel_id in there and not kernel.unreadable
        ]

    def _watch(self, kernel_id: str) -> None:
        """Listen to a kernel from now on. Whatever fails, the kernel starts all the same."""
        self._forget(kernel_id)
        try:
            manager = self._manager.get_kernel(kernel_id)
            session = Session(config=manager.session.config, key=manager.session.key)
            kernel = Kernel(manager.connect_iopub())
            kernel.stream.on_recv(partial(self._hear, kernel, session))
            self._kernels[kernel_id] = kernel
            # One that dies says nothing more of what it was at.
            self._manager.add_restart_callback(kernel_id, kernel.open.clear)
        except Exception:
            # Kernels that run elsewhere publish elsewhere: then the server's own word has to do.
            self._forget(kernel_id)
            log.info("Kernel %s cannot be watched.", kernel_id, exc_info=True)

    def _forget(self, kernel_id: str) -> None:
        kernel = self._kernels.pop(kernel_id, None)
        if kernel is not None:
            with suppress(Exception):  # it may be closed with the kernel's sockets already
                kernel.stream.close()

    def _hear(self, kernel: Kernel, session: Session, parts: list[Any]) -> None:
        try:
            _, rest = session.feed_identities(parts)
            kernel.hear(session.deserialize(rest))
        except Exception:
            kernel.unreadable = True
            log.debug("A kernel has published something that is no message.", exc_info=True)
