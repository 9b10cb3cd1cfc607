"""The driver's files in ``/proc`` and ``/dev``, kept under a folder that stands for the root.

A real driver shows an instance's capability files as long as the instance exists, and its minors by
a fixed table whether or not it exists. Device nodes are plain files here, as making real ones needs
privilege; their names and the text of the other files are a real driver's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from jupyterhub_migspawner.gpu.simulator.schema import CardState, State

CAPS_MAJOR = 508
_GPUS, _GPU_INSTANCES, _COMPUTE_INSTANCES = 32, 15, 8
_FOR_ALL, _FOR_ROOT = 0o444, 0o400


def mirror(state: State, root: Path) -> None:
    """Bring the files under ``root`` in line with the machine; what is no more is removed."""
    proc = root / "proc/driver"
    _write(root / "proc/devices", f"Character devices:\n195 nvidia\n{CAPS_MAJOR} nvidia-caps\n")
    if not (proc / "nvidia-caps/mig-minors").exists():
        _write(proc / "nvidia-caps/mig-minors", _minors())
    wanted = {
        proc / "nvidia/capabilities/mig/config": (1, _FOR_ROOT),
        proc / "nvidia/capabilities/mig/monitor": (2, _FOR_ALL),
    }
    for card in state["cards"]:
        _write(proc / f"nvidia/gpus/0000:{card['bus']:02x}:00.0/information", _information(card))
        wanted.update(_capabilities(card, proc / "nvidia/capabilities"))
    for path, (minor, mode) in wanted.items():
        _write(
            path,
            f"DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n",
        )
    _remove_others(proc / "nvidia/capabilities", set(wanted))
    devices = {root / "dev" / name for name in ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")}
    devices |= {root / f"dev/nvidia{card['minor']}" for card in state["cards"]}
    devices |= {root / f"dev/nvidia-caps/nvidia-cap{minor}" for minor, _ in wanted.values()}
    for path in devices:
        _write(path, "")
    _remove_others(root / "dev", devices)


def _capabilities(card: CardState, folder: Path) -> dict[Path, tuple[int, int]]:
    found = {}
    for instance in card["instances"]:
        here = folder / f"gpu{card['minor']}/mig/gi{instance['id']}"
        minor = _gpu_instance_minor(card["minor"], instance["id"])
        found[here / "access"] = (minor, _FOR_ALL)
        for compute in instance["computes"]:
            found[here / f"ci{compute['id']}/access"] = (minor + 1 + compute["id"], _FOR_ALL)
    return found


def _minors() -> str:
    """Return the driver's whole table: it numbers all instances that could ever be."""
    lines, minor = ["config 1", "monitor 2"], 3
    for gpu in range(_GPUS):
        for instance in range(_GPU_INSTANCES):
            lines.append(f"gpu{gpu}/gi{instance}/access {minor}")
            for compute in range(_COMPUTE_INSTANCES):
                lines.append(f"gpu{gpu}/gi{instance}/ci{compute}/access {minor + 1 + compute}")
            minor += 1 + _COMPUTE_INSTANCES
    return "\n".join(lines) + "\n"


def _gpu_instance_minor(gpu: int, instance: int) -> int:
    per_instance = 1 + _COMPUTE_INSTANCES
    return 3 + per_instance * (_GPU_INSTANCES * gpu + instance)


def _information(card: CardState) -> str:
    return (
        f"Model: \t\t {card['model']}\n"
        f"GPU UUID: \t {card['uuid']}\n"
        f"Bus Location: \t 0000:{card['bus']:02x}:00.0\n"
        f"Device Minor: \t {card['minor']}\n"
    )


def _write(path: Path, content: str) -> None:
    if path.exists() and path.read_text() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    kept = {parent for path in wanted for parent in path.parents} | wanted
    for path in sorted(folder.rglob("*"), reverse=True):
        if path in kept or not path.exists():
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
