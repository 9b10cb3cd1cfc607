"""Which boot of the kernel this is: slices do not outlive it, nor do processes."""

from __future__ import annotations

from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Created at each boot and the same until the next, in containers too (random(4))."""


def boot_id(path: Path = BOOT_ID) -> str:
    """Return the id of this boot, or an empty text where the kernel does not tell."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
