"""What a caller of the C library passes, and the memory it points at.

The Python binding calls with ctypes values: numbers and ``c_uint``, pointers, arrays, and
``byref()`` of a structure of its own. The simulator knows the structures' fields by NVML's names
and takes their layout from the object it is given.
"""

from __future__ import annotations

import ctypes
from typing import Any, cast

from jupyterhub_migspawner.gpu.simulator.cutting import Fault
from jupyterhub_migspawner.model.codes import Code


def number(value: object) -> int:
    """Return a number that came as an int or as a ctypes number."""
    plain = getattr(value, "value", value)
    if not isinstance(plain, int):
        raise Fault(Code.INVALID_ARGUMENT)
    return plain


def text(value: object) -> str:
    """Return a string that came as bytes or ``char *``."""
    plain = getattr(value, "value", value)
    if not isinstance(plain, bytes):
        raise Fault(Code.INVALID_ARGUMENT)
    return plain.decode("utf-8", errors="replace")


def address(value: object) -> int:
    """Return the address an opaque handle holds, 0 for a null handle."""
    if value is None:
        return 0
    return ctypes.cast(cast(Any, value), ctypes.c_void_p).value or 0


def pointed(reference: object) -> Any:
    """Return what ``byref(x)``, a pointer or an array leads to.

    A null pointer is an invalid argument.
    """
    if reference is None:
        raise Fault(Code.INVALID_ARGUMENT)
    behind = getattr(reference, "_obj", None)
    if behind is not None:
        return behind
    if isinstance(reference, ctypes.Array):
        return reference
    try:
        return cast(Any, reference).contents
    except (AttributeError, ValueError):
        raise Fault(Code.INVALID_ARGUMENT) from None


def write_number(reference: object, value: int) -> None:
    """Write into the number that ``reference`` points at."""
    pointed(reference).value = value


def read_number(reference: object) -> int:
    """Read the number that ``reference`` points at."""
    return number(pointed(reference))


def write_text(buffer: object, length: object, value: str) -> None:
    """Write a string with its final zero into a caller's buffer of ``length`` bytes."""
    encoded = value.encode()
    if number(length) <= len(encoded):
        raise Fault(Code.INSUFFICIENT_SIZE)
    pointed(buffer).value = encoded


def write_handle(reference: object, handle: int) -> None:
    """Write an opaque handle into the pointer that ``reference`` points at."""
    ctypes.c_void_p.from_buffer(pointed(reference)).value = handle


def write_handle_field(structure: Any, field: str, handle: int) -> None:
    """Write an opaque handle into a pointer field of a structure."""
    offset = getattr(type(structure), field).offset
    ctypes.c_void_p.from_buffer(structure, offset).value = handle


def write_handles(array: object, count: object, handles: list[int]) -> None:
    """Write handles and their number; a caller with a null array asks for the number only."""
    if array is not None and handles:
        target = pointed(array)
        if len(target) < len(handles):
            raise Fault(Code.INSUFFICIENT_SIZE)
        pointers = (ctypes.c_void_p * len(handles)).from_buffer(target)
        for index, handle in enumerate(handles):
            pointers[index] = handle
    write_number(count, len(handles))


def fill(structure: Any, **fields: int | bytes) -> None:
    """Write several fields by name."""
    for name, value in fields.items():
        setattr(structure, name, value)


def check_version(structure: Any) -> None:
    """Refuse a versioned structure of another version, as the library does.

    The version word holds the structure's number in its top byte and its size below.
    """
    version = number(structure.version)
    if version >> 24 != 2 or version & 0xFFFFFF != ctypes.sizeof(structure):
        raise Fault(Code.ARGUMENT_VERSION_MISMATCH)
