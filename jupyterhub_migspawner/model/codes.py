"""NVML's return codes.

The numbers are ``nvmlReturn_t`` of ``nvml.h``. They are repeated here with types because NVIDIA's
Python binding has none, and because code without the binding needs them as well: the simulator
below it, and the rules that decide what a card's error means.
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """The ``nvmlReturn_t`` values that matter to cutting cards."""

    SUCCESS = 0
    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    INSUFFICIENT_SIZE = 7
    DRIVER_NOT_LOADED = 9
    TIMEOUT = 10
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    OPERATING_SYSTEM = 17
    LIB_RM_VERSION_MISMATCH = 18
    IN_USE = 19
    MEMORY = 20
    INSUFFICIENT_RESOURCES = 23
    ARGUMENT_VERSION_MISMATCH = 25
    UNKNOWN = 999
