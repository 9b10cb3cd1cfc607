"""What differs between releases of NVIDIA's Python binding."""

from __future__ import annotations


def plain_text(value: str | bytes) -> str:
    """Return a string of the binding, which some of its releases leave as bytes, as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
