"""A stand-in for ``libnvidia-ml.so.1``: NVML's functions by their C names, over a state file.

It is set as the library object below the unmodified Python binding, which looks its functions up
by name and calls them with ctypes arguments. So whatever runs above the binding runs the very code
that runs on real cards. A function the stand-in lacks is missing as in an old driver.
"""

from __future__ import annotations

import ctypes
import time

from jupyterhub_migspawner.errors import GpuError

# The modules of calls are imported for what they export.
from jupyterhub_migspawner.gpu.simulator import (
    card_calls,
    event_calls,
    gpm_calls,
    instance_calls,
    slice_calls,
)
from jupyterhub_migspawner.gpu.simulator.cutting import Fault
from jupyterhub_migspawner.gpu.simulator.exports import EXPORTS, Function
from jupyterhub_migspawner.gpu.simulator.handles import find_card_of
from jupyterhub_migspawner.gpu.simulator.memory import address
from jupyterhub_migspawner.gpu.simulator.session import Session
from jupyterhub_migspawner.gpu.simulator.state import StateFile
from jupyterhub_migspawner.model.codes import Code

CALLS = (card_calls, slice_calls, instance_calls, event_calls, gpm_calls)


class Symbol:
    """One exported function; the binding sets ``restype`` on it as on one of a real library."""

    def __init__(self, session: Session, name: str, function: Function) -> None:
        self.restype: object = None
        self._session = session
        self._name = name
        self._function = function

    def __call__(self, *arguments: object) -> object:
        """Run the function; return an NVML return code, or what the few without one return."""
        try:
            self._suffer(arguments)
            result = self._function(self._session, *arguments)
        except Fault as fault:
            return int(fault.code)
        except GpuError:
            return int(Code.DRIVER_NOT_LOADED)
        return int(Code.SUCCESS) if result is None else result

    def _suffer(self, arguments: tuple[object, ...]) -> None:
        """Apply injected latency and failures."""
        if self._name == "nvmlErrorString":
            return
        switches = self._session.file.read()["switches"]
        seconds = switches["latency"].get(self._name, switches["latency"].get("*", 0.0))
        if seconds > 0:
            time.sleep(seconds)
        if not any(each["symbol"] == self._name for each in switches["faults"]):
            return
        card = self._card_uuid(arguments)
        with self._session.file.change() as state:
            faults = state["switches"]["faults"]
            for each in faults:
                if each["symbol"] == self._name and each["card_uuid"] in (None, card):
                    each["times"] -= 1
                    code = each["code"]
                    break
            else:
                return
            state["switches"]["faults"] = [each for each in faults if each["times"] > 0]
        raise Fault(Code(code))

    def _card_uuid(self, arguments: tuple[object, ...]) -> str | None:
        for each in arguments:
            if not isinstance(each, ctypes._Pointer):
                continue
            try:
                return find_card_of(self._session.file.read(), address(each))["uuid"]
            except Fault:
                continue
        return None


class SimulatedLibrary:
    """The library object: one attribute for each exported function."""

    def __init__(self, file: StateFile) -> None:
        self.session = Session(file)
        for name, function in EXPORTS.items():
            setattr(self, name, Symbol(self.session, name, function))
