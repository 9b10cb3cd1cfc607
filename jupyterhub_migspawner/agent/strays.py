"""Processes on slices that nobody has.

A program that somebody started outside of any server, or one that hid from the proof of an empty
slice: whoever got the slice next would share it without knowing. Nothing is ended here, for nobody
knows whose it is; the slice is quarantined, shows who is on it, and comes back when they are gone.
"""

from __future__ import annotations

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.inventory import STRAY
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.nvml import Nvml


class Strays:
    """Looks at the slices of one node that are not leased."""

    def __init__(self, broker: Broker, nvml: Nvml, *, node: str) -> None:
        self._broker = broker
        self._nvml = nvml
        self._node = node

    def look(self) -> None:
        """Shut out slices that are used without a lease; let those in again that are not.

        Who is on a slice is asked after it was seen to be free: a process of an older reading may
        be that of a lease which has just ended. A slice that NVML tells nothing of stays as it is.
        """
        for status in self._broker.slices(node=self._node):
            row = status.row
            ours = row.quarantined.startswith(STRAY)
            if status.lease is not None or (row.quarantined and not ours):
                continue
            pids = []
            if row.uuid is not None:
                try:
                    pids = [process.pid for process in self._nvml.processes(row.uuid)]
                except GpuError:
                    continue
            if pids:
                self._broker.shut_out(row.id, pids)
            elif ours:
                self._broker.let_in_again(row.id)
