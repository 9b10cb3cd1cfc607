"""What the driver's XID errors mean for a slice.

Names and meanings follow NVIDIA's "XID Errors" document. Most XIDs are the fault of the program
that ran; only those after which the hardware cannot be trusted before a reset matter to others.
"""

from __future__ import annotations

_NAMES = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "the GPU stopped processing",
    45: "preemptive cleanup",
    48: "double bit ECC error",
    63: "row remapping pending",
    64: "row remapping failed",
    74: "NVLink error",
    79: "the GPU has fallen off the bus",
    92: "many single bit ECC errors",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "GSP timeout",
    120: "GSP error",
    140: "unrecovered ECC error",
}

# Not 79: a card that fell off the bus is lost, and well again once a restart brings it back.
_UNTRUSTED = frozenset({48, 64, 74, 95, 119, 120, 140})


def xid_name(xid: int) -> str:
    """The error in words, or an empty string for one that is not listed here."""
    return _NAMES.get(xid, "")


def is_uncontained(xid: int) -> bool:
    """Whether the hardware that reported it must not be lent again before somebody has looked."""
    return xid in _UNTRUSTED
