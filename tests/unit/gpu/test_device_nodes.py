"""Which device nodes a slice needs, by formula and as the driver's files tell them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.gpu.devices import (
    capabilities_major,
    card_nodes,
    compute_instance_minor,
    creation_command,
    gpu_instance_minor,
    missing_nodes,
    slice_nodes,
)


def test_minors_are_those_of_the_drivers_table() -> None:
    # The last two compute instances are read off real machines' tables.
    assert gpu_instance_minor(0, 0) == 3
    assert gpu_instance_minor(0, 1) == 12
    assert [compute_instance_minor(0, 1, ci) for ci in range(3)] == [13, 14, 15]
    assert compute_instance_minor(3, 3, 3) == 439
    assert compute_instance_minor(31, 14, 7) == 4322


@pytest.mark.parametrize(
    ("card", "gi", "ci"), [(32, 0, 0), (-1, 0, 0), (0, 15, 0), (0, -1, 0), (0, 0, 8), (0, 0, -1)]
)
def test_numbers_the_driver_has_no_node_for_are_refused(card: int, gi: int, ci: int) -> None:
    with pytest.raises(GpuError, match="no capability node"):
        compute_instance_minor(card, gi, ci)


def test_a_slice_gets_its_two_nodes_and_nobody_elses(tmp_path: Path) -> None:
    nodes = slice_nodes(2, 9, 0, root=tmp_path)
    assert [(each.path, each.access) for each in nodes] == [
        ("/dev/nvidiactl", "rw"),
        ("/dev/nvidia-uvm", "rw"),
        ("/dev/nvidia-uvm-tools", "rw"),
        ("/dev/nvidia2", "rw"),
        ("/dev/nvidia-caps/nvidia-cap354", "r"),
        ("/dev/nvidia-caps/nvidia-cap355", "r"),
    ]


def test_the_formula_agrees_with_the_drivers_files_for_every_slice(
    make_machine, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    machine = make_machine(cards=3, layouts=[["1g.5gb"] * 7, ["4g.20gb", "3g.20gb"]], tree=tree)
    for card in machine.nvml.inventory().cards:
        for each in card.instances:
            nodes = slice_nodes(card.minor, each.gi_id, each.ci_id, root=tree)
            assert missing_nodes(nodes, root=tree) == ()
            for node in nodes[-2:]:
                text = (tree / node.capability.lstrip("/")).read_text()
                minor = int(re.search(r"cap(\d+)$", node.path)[1])
                assert (
                    text == f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
                )
    assert capabilities_major(root=tree) == 508


def test_the_drivers_files_come_and_go_with_the_instances(make_machine, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    machine = make_machine(layouts=[["3g.20gb"]], tree=tree)
    nodes = slice_nodes(0, 2, 0, root=tree)
    before = sorted(tree.rglob("*"))
    made = machine.nvml.create_instance(machine.cards[0], "1g.5gb", 0)
    assert missing_nodes(slice_nodes(0, made.gi_id, 0, root=tree), root=tree) == ()
    machine.nvml.destroy_instance(machine.cards[0], made.gi_id)
    assert sorted(tree.rglob("*")) == before
    simulator.reboot(machine.path)
    assert missing_nodes(nodes, root=tree) == nodes[-2:]
    assert not (tree / "proc/driver/nvidia/capabilities/gpu0").exists()


@pytest.mark.parametrize(
    "file",
    ["proc/driver/nvidia-caps/mig-minors", "proc/driver/nvidia/capabilities/gpu0/mig/gi2/access"],
)
def test_a_driver_that_numbers_otherwise_gets_no_node_handed_out(
    make_machine, tmp_path: Path, file: str
) -> None:
    tree = tmp_path / "tree"
    make_machine(layouts=[["3g.20gb"]], tree=tree)
    assert slice_nodes(0, 2, 0, root=tree)
    path = tree / file
    changed = path.read_text().replace("gpu0/gi2/access 21", "gpu0/gi2/access 22")
    path.write_text(changed.replace("DeviceFileMinor: 21", "DeviceFileMinor: 22"))
    with pytest.raises(GpuError, match="number 22, and not 21"):
        slice_nodes(0, 2, 0, root=tree)


@pytest.mark.parametrize(
    "file",
    [
        "proc/driver/nvidia-caps/mig-minors",
        "proc/driver/nvidia/capabilities/gpu0/mig/gi2/access",
        "proc/devices",
    ],
)
def test_what_the_driver_says_and_nobody_may_read_is_not_taken_for_nothing(
    make_machine, tmp_path: Path, file: str
) -> None:
    tree = tmp_path / "tree"
    make_machine(layouts=[["3g.20gb"]], tree=tree)
    path = tree / file
    path.unlink(missing_ok=True)
    path.symlink_to(path)
    with pytest.raises(GpuError, match="cannot be read"):
        capabilities_major(root=tree) if "devices" in file else slice_nodes(0, 2, 0, root=tree)


def test_a_missing_node_is_made_by_nvidias_tool(tmp_path: Path) -> None:
    nodes = slice_nodes(1, 0, 0, root=tmp_path)
    assert [creation_command(each) for each in missing_nodes(nodes, root=tmp_path)] == [
        ("nvidia-modprobe", "-c", "0"),
        ("nvidia-modprobe", "-u", "-c", "0"),
        ("nvidia-modprobe", "-c", "1"),
        ("nvidia-modprobe", "-f", "/proc/driver/nvidia/capabilities/gpu1/mig/gi0/access"),
        ("nvidia-modprobe", "-f", "/proc/driver/nvidia/capabilities/gpu1/mig/gi0/ci0/access"),
    ]


def test_without_the_driver_there_is_no_major_and_a_card_needs_no_capability(
    tmp_path: Path,
) -> None:
    assert capabilities_major(root=tmp_path) is None
    assert all(each.capability is None for each in card_nodes(0))
