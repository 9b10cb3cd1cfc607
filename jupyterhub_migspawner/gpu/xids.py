"""What the driver's XID errors and its recovery action mean for a slice or card.

Names and meanings follow NVIDIA's "XID Errors" document and its catalogue, and ``nverror.h`` of
driver R595. Most XIDs are the fault of the program that ran; only those after which the hardware
cannot be trusted before a reset matter to others.
"""

from __future__ import annotations

_NAMES = {
    13: "graphics engine exception",
    31: "memory page fault",
    43: "the GPU stopped processing",
    45: "preemptive cleanup",
    46: "the GPU stopped processing",
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
    143: "GPU initialization error",
    144: "NVLink SAW error",
    145: "NVLink RLW error",
    146: "NVLink TLW error",
    147: "NVLink TREX error",
    148: "NVLink NVLPW_CTRL error",
    149: "NVLink NETIR error",
    150: "NVLink MSE error",
    154: "GPU recovery action changed",
    155: "NVLink software-defined error",
    156: "resource retirement",
    157: "resource retirement failed",
    158: "GPU fatal timeout",
    160: "channel retirement",
    161: "channel retirement failed",
    167: "PCIe fatal timeout",
    171: "uncorrectable DRAM error",
    172: "uncorrectable SRAM error",
}

# Not 79: a card that fell off the bus is lost, and well again once a restart brings it back.
_UNTRUSTED = frozenset({46, 48, 64, 74, 95, 119, 120, 140, 143, 156, 158, 167, 171, 172, 173, 175})

# Serious or harmless by their details; a driver that reports a recovery action knows which.
_BY_RECOVERY_ACTION = frozenset({*range(144, 151), 154, 155, 157, 160, 161})

RECOVERY_ACTIONS = {
    0: "",
    1: "reset the card",
    2: "restart the node",
    3: "stop peer-to-peer work on the card",
    4: "drain and reset the card",
    5: "recover the IMEX domain",
    6: "reset the card's bus",
    7: "restart the node",
}
"""What ``nvmlDeviceGpuRecoveryAction_t`` of nvml.h asks for, by its number."""


def xid_name(xid: int) -> str:
    """Return the error in words, or an empty string for one that is not listed here."""
    return _NAMES.get(xid, "")


def is_uncontained(xid: int, recovery_action: int | None = None) -> bool:
    """Tell whether the hardware that reported this XID is not to be lent before an admin looked.

    ``recovery_action`` is what the driver wants done with the card now, None where it does not say.
    """
    if xid in _BY_RECOVERY_ACTION:
        return recovery_action != 0
    return xid in _UNTRUSTED


def recovery_advice(recovery_action: int | None) -> str:
    """Return what the driver wants an admin to do with the card; an empty string for nothing."""
    if not recovery_action:
        return ""
    return RECOVERY_ACTIONS.get(recovery_action, f"recovery action {recovery_action}")
