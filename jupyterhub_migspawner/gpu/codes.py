"""What each of NVML's return codes means for an admin."""

from __future__ import annotations

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.model.codes import Code

_WAY_OUT: dict[int, tuple[str, str]] = {
    Code.UNINITIALIZED: (
        "the driver was restarted underneath",
        "Try again; if it happens again, restart this process.",
    ),
    Code.INVALID_ARGUMENT: (
        "the driver does not know that instance or placement",
        "Read the card again: it may have been re-cut in the meantime.",
    ),
    Code.NOT_SUPPORTED: (
        "the card or driver does not support it",
        "Check that MIG is on for this card (nvidia-smi -i CARD -mig 1) and that the driver is"
        " recent enough for it.",
    ),
    Code.NO_PERMISSION: (
        "this process is not permitted to do it",
        "Run it as root, or give it read access to /proc/driver/nvidia/capabilities/mig/config.",
    ),
    Code.NOT_FOUND: (
        "it no longer exists",
        "Read the card again: it may have been re-cut in the meantime.",
    ),
    Code.DRIVER_NOT_LOADED: (
        "the NVIDIA driver is not loaded",
        "Load it (nvidia-smi shows why it does not load).",
    ),
    Code.LIBRARY_NOT_FOUND: (
        "libnvidia-ml.so.1 was not found",
        "Install the NVIDIA driver, or set MIGSPAWNER_NVML=sim:FILE to use simulated cards.",
    ),
    Code.FUNCTION_NOT_FOUND: (
        "the installed driver is too old for it",
        "Update the NVIDIA driver (R450 for A100, R460 for A30, R525 for H100, or later).",
    ),
    Code.GPU_IS_LOST: (
        "the card has fallen off the bus",
        "Reboot the node; if the card is lost again, have it checked.",
    ),
    Code.RESET_REQUIRED: (
        "the card must be reset first",
        "Reboot the node, or reset the card with nvidia-smi --gpu-reset when nothing uses it.",
    ),
    Code.LIB_RM_VERSION_MISMATCH: (
        "its library and its kernel module are of different versions, as after an upgrade of the"
        " driver",
        "Reboot the node, or reload the nvidia kernel modules when nothing uses the cards. If only"
        " this process is older than the upgrade, restarting it is enough.",
    ),
    Code.IN_USE: (
        "a process still uses it",
        "End the processes on it (also monitors such as dcgm), then try again.",
    ),
    Code.INSUFFICIENT_RESOURCES: (
        "the slots it needs are taken",
        "Destroy the instances on them first, or choose another placement.",
    ),
    Code.ARGUMENT_VERSION_MISMATCH: (
        "the installed nvidia-ml-py and the driver disagree about a structure",
        "Install an nvidia-ml-py release that matches the driver.",
    ),
}


def gpu_error(code: int, subject: str, action: str) -> GpuError:
    """Return the error for NVML's answer ``code`` when ``action`` was tried on ``subject``.

    ``subject`` names the card ("card 0 (GPU-…)" or "the driver"); ``action`` completes "cannot …".
    """
    why, way_out = _WAY_OUT.get(
        code,
        (f"NVML answered {code}", "Look into the kernel log (dmesg) for messages of the driver."),
    )
    return GpuError(f"{_sentence_case(subject)}: cannot {action}: {why}. {way_out}", code=code)


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
