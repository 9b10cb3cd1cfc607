"""Which NVML library lies below NVIDIA's Python binding: the driver's own, or simulated cards.

The binding keeps one library in a module global and never drops its cached functions, so the choice
is process-wide and made here, under the one lock that also serialises all calls: NVML's calls that
cut cards must not run beside each other. Relies on ``nvidia-ml-py`` (module ``pynvml``),
unmodified.
"""

from __future__ import annotations

import os
import threading
from typing import ClassVar

import pynvml

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.codes import gpu_error
from jupyterhub_migspawner.gpu.simulator.library import SimulatedLibrary
from jupyterhub_migspawner.gpu.simulator.state import StateFile
from jupyterhub_migspawner.model.codes import Code

ENVIRONMENT_VARIABLE = "MIGSPAWNER_NVML"
_SIMULATED = "sim:"

LOCK = threading.RLock()
"""Held during every NVML call of this process."""


class Library:
    """One choice of library, initialised when it is first needed.

    ``spec`` is ``sim:FILE`` for simulated cards, ``""`` for the driver's library; None takes the
    environment variable ``MIGSPAWNER_NVML``. Raises :exc:`.GpuError` when the choice is neither.
    """

    def __init__(self, spec: str | None = None) -> None:
        chosen = os.environ.get(ENVIRONMENT_VARIABLE, "") if spec is None else spec
        self.spec = chosen.strip()
        if self.spec and not self.spec.removeprefix(_SIMULATED):
            raise GpuError(f"{self.spec!r} names no file: write sim:FILE for simulated cards.")
        if self.spec and not self.spec.startswith(_SIMULATED):
            raise GpuError(
                f"{self.spec[:60]!r} is not an NVML library this program knows: write sim:FILE for"
                " simulated cards, or nothing for the driver's own."
            )
        self._simulated: SimulatedLibrary | None = None
        self._opened_by = 0  # the process that initialised it: a forked child must do so itself

    # The driver's library, once the binding has loaded it; simulated cards may replace it.
    _driver: ClassVar[object | None] = None

    @property
    def simulated(self) -> bool:
        """Whether the cards are simulated."""
        return bool(self.spec)

    def open(self) -> None:
        """Select and initialise the library; the caller holds :data:`LOCK`.

        Raises :exc:`.GpuError` when there is no driver, no such library, or no such state file.
        """
        self._select()
        if self._simulated is not None:
            # The binding would only say that no driver is loaded; this says what is wrong.
            self._simulated.session.file.read()
        if self._opened_by == os.getpid():
            return
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise gpu_error(error.value, "the NVIDIA driver", "be used") from error
        if not self.simulated:
            Library._driver = pynvml.nvmlLib
        self._opened_by = os.getpid()

    def close(self) -> None:
        """Let go of the driver, so that cards can be reset; :meth:`open` takes it again."""
        if self._opened_by != os.getpid():
            return
        self._opened_by = 0
        self._select()
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            # A driver that was restarted or unloaded has forgotten this process already.
            if error.value not in (Code.UNINITIALIZED, Code.DRIVER_NOT_LOADED):
                raise gpu_error(error.value, "the NVIDIA driver", "be let go") from error

    def _select(self) -> None:
        if self.simulated:
            if self._simulated is None:
                self._simulated = SimulatedLibrary(StateFile(self.spec.removeprefix(_SIMULATED)))
            wanted: object = self._simulated
        elif isinstance(pynvml.nvmlLib, SimulatedLibrary):
            wanted = Library._driver  # if None, the binding loads it when it is initialised
        else:
            wanted = Library._driver = pynvml.nvmlLib
        if pynvml.nvmlLib is not wanted:
            pynvml.nvmlLib = wanted
            pynvml._nvmlGetFunctionPointer_cache.clear()
