"""How much a slice is used, where NVML can tell.

Relies on GPM for a slice (Hopper and newer; NVML's API reference, "GPM Functions"): two samples of
a GPU instance say what happened between them. A card with MIG off has its utilisation rate. A slice
of an Ampere card has neither, on any driver: there DCGM knows (:mod:`.dcgm`).
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pynvml

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.model.codes import Code

UNMEASURED = frozenset({Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND, Code.NO_PERMISSION})
"""Answers that say that utilisation cannot be had here, by this process: nothing has failed."""

_MOST_KEPT = 512  # samples, some KiB each; a node has 56 slices at the most


class Meter:
    """A meter from call to call; used while the library is open and its lock held."""

    def __init__(self) -> None:
        self._samples: dict[str, Any] = {}

    def forget(self) -> None:
        """Free what was sampled in a session that goes."""
        for sample in self._samples.values():
            _free(sample)
        self._samples.clear()

    def percent(self, uuid: str) -> float | None:
        """Return the per cent of the time since the last call in which the slice's engine worked.

        None when there was no last call. Of a card with MIG off: as NVML has it of the last
        moments. Raises NVML's errors, :data:`UNMEASURED` among them, and :exc:`.GpuError` when what
        NVML says is no figure.
        """
        device = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        if not pynvml.nvmlDeviceIsMigDeviceHandle(device):
            return float(pynvml.nvmlDeviceGetUtilizationRates(device).gpu)
        card = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)
        if not pynvml.nvmlGpmQueryDeviceSupport(card).isSupportedDevice:
            raise pynvml.NVMLError(Code.NOT_SUPPORTED)
        sample = pynvml.nvmlGpmSampleAlloc()
        try:
            pynvml.nvmlGpmMigSampleGet(card, pynvml.nvmlDeviceGetGpuInstanceId(device), sample)
        except pynvml.NVMLError:
            _free(sample)
            raise
        before = self._samples.pop(uuid, None)
        self._samples[uuid] = sample
        if len(self._samples) > _MOST_KEPT:
            _free(self._samples.pop(next(iter(self._samples))))
        if before is None:
            return None
        try:
            return _between(before, sample)
        finally:
            _free(before)


def _between(before: Any, after: Any) -> float:
    asked = pynvml.c_nvmlGpmMetricsGet_t()
    asked.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    asked.numMetrics = 1
    asked.sample1, asked.sample2 = before, after
    asked.metrics[0].metricId = pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL
    pynvml.nvmlGpmMetricsGet(asked)
    found = asked.metrics[0]
    if found.nvmlReturn != Code.SUCCESS:
        raise pynvml.NVMLError(found.nvmlReturn)
    percent = float(found.value)
    if not math.isfinite(percent):
        raise GpuError("NVML gives no figure of its use.", code=Code.UNKNOWN)
    return percent


def _free(sample: Any) -> None:
    with suppress(pynvml.NVMLError):
        pynvml.nvmlGpmSampleFree(sample)
