"""Device nodes before a launch: made where they are missing, or the start is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jupyterhub_migspawner.errors import LaunchError, Refusal
from jupyterhub_migspawner.gpu.devices import DeviceNode
from jupyterhub_migspawner.model.slices import SliceDevice
from jupyterhub_migspawner.spawner.isolation import is_device, nodes_of

SLICE = SliceDevice(card_minor=1, gi_id=2, ci_id=0)
NODES = [
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia1",
    "/dev/nvidia-caps/nvidia-cap156",
    "/dev/nvidia-caps/nvidia-cap157",
]
WHOLE = SliceDevice(card_minor=1, gi_id=None, ci_id=None)


def make(root: Path, *paths: str) -> None:
    for path in paths:
        node = root / path.lstrip("/")
        node.parent.mkdir(parents=True, exist_ok=True)
        node.touch()


def test_the_nodes_of_a_slice_are_those_that_it_needs_and_no_others(tmp_path: Path) -> None:
    make(tmp_path, *NODES, "/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1")
    assert [node.path for node in nodes_of(SLICE, root=tmp_path)] == NODES
    make(tmp_path, "/dev/nvidia-uvm-tools")
    assert "/dev/nvidia-uvm-tools" in [node.path for node in nodes_of(SLICE, root=tmp_path)]


def test_a_card_with_mig_off_has_no_capability_nodes(tmp_path: Path) -> None:
    make(tmp_path, *NODES)
    assert [node.path for node in nodes_of(WHOLE, root=tmp_path)] == NODES[:3]


def test_missing_nodes_are_made_by_the_drivers_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    make(root, *NODES[:3])
    tool = tmp_path / "nvidia-modprobe"
    # What it is asked for, and the node that it makes.
    tool.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        f"case $2 in */ci0/access) minor=157;; *) minor=156;; esac\n"
        f"mkdir -p {root}/dev/nvidia-caps && touch {root}/dev/nvidia-caps/nvidia-cap$minor\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert [node.path for node in nodes_of(SLICE, root=root)] == NODES
    capabilities = "-f /proc/driver/nvidia/capabilities/gpu1/mig/gi2"
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"{capabilities}/access",
        f"{capabilities}/ci0/access",
    ]


@pytest.mark.parametrize("missing", NODES)
def test_a_node_that_cannot_be_made_stops_the_start(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, *(path for path in NODES if path != missing))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=f"{missing} does not exist") as caught:
        nodes_of(SLICE, root=tmp_path)
    assert "Run 'nvidia-modprobe -" in str(caught.value)


def test_simulated_cards_have_the_nodes_that_there_are(tmp_path: Path) -> None:
    make(tmp_path, NODES[0])
    assert [node.path for node in nodes_of(SLICE, simulated=True, root=tmp_path)] == NODES[:1]


def test_numbers_that_are_not_known_yet_refuse_the_start() -> None:
    with pytest.raises(Refusal, match="not known yet") as caught:
        nodes_of(None)
    assert caught.value.reason == "conflict"


CARD = DeviceNode("/dev/nvidia3", "rw")
CAPABILITY = DeviceNode("/dev/nvidia-caps/nvidia-cap12", "r", "/proc/driver/…")


@pytest.mark.parametrize(
    ("node", "major", "minor", "right"),
    [
        (CARD, 195, 3, True),
        (CARD, 195, 2, False),
        (CARD, 1, 3, False),
        (CAPABILITY, 508, 12, True),
        # The driver was loaded again, and has another major number since.
        (CAPABILITY, 507, 12, False),
        (CAPABILITY, 508, 21, False),
        (DeviceNode("/dev/nvidia-uvm", "rw"), 511, 0, True),
    ],
)
def test_a_node_is_the_device_that_it_is_named_for(
    node: DeviceNode, major: int, minor: int, right: bool
) -> None:
    device = os.makedev(major, minor)
    assert is_device(node, stat.S_IFCHR | 0o666, device, 508) is right
    assert not is_device(node, stat.S_IFREG | 0o666, device, 508)


def test_without_the_drivers_list_the_minor_decides() -> None:
    assert is_device(CAPABILITY, stat.S_IFCHR, os.makedev(507, 12), None)
    assert not is_device(CAPABILITY, stat.S_IFCHR, os.makedev(507, 13), None)
