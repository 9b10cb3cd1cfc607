"""What differs between releases of NVIDIA's Python binding."""

from __future__ import annotations


def plain_text(value: str | bytes) -> str:
    """A string of the binding, which some of its releases leave as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
