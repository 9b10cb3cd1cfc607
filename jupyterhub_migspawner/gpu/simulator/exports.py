"""The list of functions the simulated library exports."""

from __future__ import annotations

from collections.abc import Callable

Function = Callable[..., object]
EXPORTS: dict[str, Function] = {}


def symbol(function: Function) -> Function:
    """Export a function under its own name; it gets the session and then the C arguments."""
    EXPORTS[function.__name__] = function
    return function
