"""From a slice to the device nodes a process needs to use it, and to no others.

The nodes are what isolates slices: the files themselves are readable by everybody, so a launcher
must let a server open exactly these. The numbers of the capability nodes are a fixed table of the
driver (``nv-caps.c`` of NVIDIA's open kernel modules): for each card by its device minor, 15
GPU instances of one node each and eight compute instances' after it. Where the driver's files in
``/proc`` exist they are compared with it, and a difference is an error: a wrong number would open
another tenant's slice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner.errors import GpuError

_GPU_INSTANCES = 15
_COMPUTE_INSTANCES = 8
_CARDS = 32
_FIRST_MINOR = 3  # after the nodes that configure and monitor, which no tenant gets
_PER_INSTANCE = 1 + _COMPUTE_INSTANCES

MOST_TEXT = 4 << 20
"""Characters of a file of the driver; that with the minors of 32 cards has some 200,000."""


@dataclass(frozen=True)
class DeviceNode:
    """A device node and how it is opened (``rw`` or ``r``).

    ``capability`` is the driver's file about a capability node (what ``nvidia-modprobe -f`` takes
    to make the node), None for other nodes. ``optional`` nodes are absent on some machines.
    """

    path: str
    access: str
    capability: str | None = None
    optional: bool = False


def gpu_instance_minor(card_minor: int, gi_id: int) -> int:
    """Return the minor of a GPU instance's capability node.

    Raises :exc:`.GpuError` when the driver has no such card minor or instance id.
    """
    if not 0 <= card_minor < _CARDS:
        raise GpuError(
            f"A card with device minor {card_minor} has no capability nodes: 0 to 31 have."
        )
    if not 0 <= gi_id < _GPU_INSTANCES:
        raise GpuError(f"GPU instance {gi_id} has no capability node: 0 to 14 have.")
    return _FIRST_MINOR + _PER_INSTANCE * (_GPU_INSTANCES * card_minor + gi_id)


def compute_instance_minor(card_minor: int, gi_id: int, ci_id: int) -> int:
    """Return the minor of a compute instance's capability node.

    Raises :exc:`.GpuError` when the driver has no such card minor or instance id.
    """
    if not 0 <= ci_id < _COMPUTE_INSTANCES:
        raise GpuError(f"Compute instance {ci_id} has no capability node: 0 to 7 have.")
    return gpu_instance_minor(card_minor, gi_id) + 1 + ci_id


def card_nodes(card_minor: int) -> tuple[DeviceNode, ...]:
    """Return the nodes for a whole card with MIG off; with MIG on they alone open no slice."""
    return (
        DeviceNode("/dev/nvidiactl", "rw"),
        DeviceNode("/dev/nvidia-uvm", "rw"),
        DeviceNode("/dev/nvidia-uvm-tools", "rw", optional=True),
        DeviceNode(f"/dev/nvidia{card_minor}", "rw"),
    )


def slice_nodes(
    card_minor: int, gi_id: int, ci_id: int, *, root: Path = Path("/")
) -> tuple[DeviceNode, ...]:
    """Return the nodes for one slice: the driver's, the card's, and the slice's own two.

    ``card_minor`` is the card's device minor (not its NVML index), ``gi_id`` the id of the GPU
    instance, ``ci_id`` the id of its compute instance. ``root`` is where ``proc`` and ``dev`` lie;
    the paths returned do not contain it.

    Raises :exc:`.GpuError` when there can be no such slice, or the driver's own files give other
    numbers.
    """
    here = f"gpu{card_minor}/gi{gi_id}"
    in_proc = f"/proc/driver/nvidia/capabilities/gpu{card_minor}/mig/gi{gi_id}"
    wanted = (
        (gpu_instance_minor(card_minor, gi_id), f"{here}/access", f"{in_proc}/access"),
        (
            compute_instance_minor(card_minor, gi_id, ci_id),
            f"{here}/ci{ci_id}/access",
            f"{in_proc}/ci{ci_id}/access",
        ),
    )
    table = _minors_table(root)
    nodes = []
    for minor, name, capability in wanted:
        numbers = {
            "/proc/driver/nvidia-caps/mig-minors": table.get(name, minor),
            capability: _told_minor(root, capability, minor),
        }
        for source, number in numbers.items():
            if number != minor:
                raise GpuError(
                    f"{source} gives {name} the number {number}, and not {minor} as this program"
                    " knows it; no process is given a node of that slice. Report your driver's"
                    " version to the developers of this program."
                )
        nodes.append(DeviceNode(f"/dev/nvidia-caps/nvidia-cap{minor}", "r", capability))
    return (*card_nodes(card_minor), *nodes)


def missing_nodes(
    nodes: tuple[DeviceNode, ...], *, root: Path = Path("/")
) -> tuple[DeviceNode, ...]:
    """Return the nodes that must exist before a launcher can hand them out, and do not."""
    return tuple(
        each for each in nodes if not each.optional and not (root / each.path.lstrip("/")).exists()
    )


def creation_command(node: DeviceNode) -> tuple[str, ...]:
    """Return the command that makes a missing node: NVIDIA's tool, as the driver cannot do it."""
    if node.capability is not None:
        return ("nvidia-modprobe", "-f", node.capability)
    if node.path.startswith("/dev/nvidia-uvm"):
        return ("nvidia-modprobe", "-u", "-c", "0")
    minor = node.path.removeprefix("/dev/nvidia")
    return ("nvidia-modprobe", "-c", minor if minor.isdigit() else "0")


def capabilities_major(*, root: Path = Path("/")) -> int | None:
    """Return the major number of the capability nodes, which the kernel chooses at each boot.

    None where the driver is not loaded or knows no capabilities. Raises :exc:`.GpuError` when the
    list of devices is there and cannot be read.
    """
    found = re.search(r"^\s*(\d+)\s+nvidia-caps$", _text(root, "/proc/devices"), re.MULTILINE)
    return int(found[1]) if found else None


def _minors_table(root: Path) -> dict[str, int]:
    """Return the driver's table of minors by name; empty where there is none."""
    text = _text(root, "/proc/driver/nvidia-caps/mig-minors")
    return {name: int(minor) for name, minor in re.findall(r"^(\S+) +(\d+)$", text, re.MULTILINE)}


def _told_minor(root: Path, capability: str, otherwise: int) -> int:
    found = re.search(r"^DeviceFileMinor: *(\d+)$", _text(root, capability), re.MULTILINE)
    return int(found[1]) if found else otherwise


def _text(root: Path, path: str) -> str:
    """Return a file of the driver; empty where there is none.

    Raises :exc:`.GpuError`.
    """
    try:
        with (root / path.lstrip("/")).open() as file:
            text = file.read(MOST_TEXT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        # What the driver says cannot be compared: a number taken on trust may be another tenant's.
        raise GpuError(
            f"{path} cannot be read ({error.strerror}); no process is given a node of a slice. "
            "Give the user that runs this read access to it."
        ) from error
    if len(text) > MOST_TEXT:
        raise GpuError(
            f"{path} is longer than {MOST_TEXT} characters; it is not a file of the driver."
        )
    return text
