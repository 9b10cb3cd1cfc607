"""CDI specifications: the device that is exactly a slice, files that are outdated, and junk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import LaunchError
from jupyterhub_migspawner.gpu import cdi
from jupyterhub_migspawner.gpu.cdi import device_of, read_specifications
from jupyterhub_migspawner.gpu.devices import card_nodes, slice_nodes

UUID = "MIG-11111111-2222-5333-8444-555555555555"
COMMON = ["/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl"]


def own(card: int, gi: int) -> list[str]:
    """A slice's nodes as nvidia-ctk writes them."""
    return [node.path for node in slice_nodes(card, gi, 0) if node.path not in COMMON]


def device(name: str, nodes: list[str], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "containerEdits": {"deviceNodes": [{"path": path, **more} for path in nodes]},
    }


def specification(*devices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": list(devices),
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [{"path": path} for path in COMMON],
        },
        **more,
    }


def write(folder: Path, content: Any, name: str = "nvidia.yaml") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def found(*folders: Path, card: int = 0, gi: int = 9, uuid: str = UUID) -> str:
    folders_ = [str(folder) for folder in folders]
    return device_of(read_specifications(folders_), slice_nodes(card, gi, 0), uuid).qualified


def refused(*folders: Path, card: int = 0, gi: int = 9, uuid: str = UUID) -> str:
    with pytest.raises(LaunchError) as caught:
        found(*folders, card=card, gi=gi, uuid=uuid)
    return str(caught.value)


def test_a_slice_is_found_by_its_nodes_under_the_name_of_an_index(tmp_path: Path) -> None:
    write(tmp_path, specification(device("0:0", own(0, 9)), device("0:1", own(0, 10))))
    assert found(tmp_path) == "nvidia.com/gpu=0:0"
    # The index of a MIG device moves when one of a lower id is made; the nodes do not.
    write(tmp_path, specification(device("0:0", own(0, 7)), device("0:1", own(0, 9))))
    assert found(tmp_path) == "nvidia.com/gpu=0:1"


def test_the_name_of_the_uuid_is_preferred(tmp_path: Path) -> None:
    write(tmp_path, specification(device("0:0", own(0, 9)), device(UUID, own(0, 9))))
    assert found(tmp_path) == f"nvidia.com/gpu={UUID}"


def test_a_specification_in_json_is_read(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(specification(device("0:0", own(0, 9)))), "nvidia.json")
    assert found(tmp_path) == "nvidia.com/gpu=0:0"


def test_a_specification_from_before_the_cut_is_named_with_what_it_lists(tmp_path: Path) -> None:
    file = write(tmp_path, specification(device("0:0", own(0, 1)), device("1:0", own(1, 9))))
    said = refused(tmp_path)
    assert f"{file} lists nvidia.com/gpu=0:0 with /dev/nvidia-caps/nvidia-cap12" in said
    assert "exactly /dev/nvidia-caps/nvidia-cap84, /dev/nvidia-caps/nvidia-cap85" in said
    assert "1:0" not in said
    assert f"nvidia-ctk cdi generate --output={file}" in said


def test_a_uuid_with_the_nodes_of_another_slice_is_outdated(tmp_path: Path) -> None:
    write(tmp_path, specification(device("0:0", own(0, 9)), device(UUID, own(0, 10))))
    assert f"nvidia.com/gpu={UUID} with" in refused(tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        ["/dev/nvidia-caps/nvidia-cap2"],  # the monitor's, which shows all tenants
        ["/dev/nvidia-caps/nvidia-cap1"],
        ["/dev/nvidia1"],
        own(0, 10)[1:],
    ],
)
def test_a_device_with_more_than_the_slice_is_not_used(tmp_path: Path, more: list[str]) -> None:
    write(tmp_path, specification(device("0:0", own(0, 9) + more)))
    assert more[0] in refused(tmp_path)
    # The same where the file gives it to every device.
    every = specification(device("0:0", own(0, 9)))
    every["containerEdits"]["deviceNodes"] += [{"path": path} for path in more]
    write(tmp_path, every)
    assert more[0] in refused(tmp_path)


def test_a_device_is_judged_by_the_nodes_of_the_host(tmp_path: Path) -> None:
    wrong = device("0:0", own(0, 9))
    wrong["containerEdits"]["deviceNodes"][0]["hostPath"] = "/dev/nvidia1"
    write(tmp_path, specification(wrong))
    assert "/dev/nvidia1" in refused(tmp_path)


def test_a_device_of_everything_is_not_used_though_it_is_this_slice_alone(tmp_path: Path) -> None:
    write(tmp_path, specification(device("all", own(0, 9))))
    refused(tmp_path)


def test_numbers_that_the_kernel_has_changed_are_outdated(tmp_path: Path) -> None:
    entry = device("0:0", own(0, 9))
    null = os.stat("/dev/null").st_rdev
    entry["containerEdits"]["deviceNodes"][0] |= {"path": "/dev/nvidia0", "major": 195, "minor": 0}
    specs = tmp_path / "specs"
    write(specs, specification(entry))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").symlink_to("/dev/null")
    with pytest.raises(LaunchError, match="195:0") as caught:
        device_of(read_specifications([str(specs)]), slice_nodes(0, 9, 0), UUID, root=tmp_path)
    assert f"{os.major(null)}:{os.minor(null)}" in str(caught.value)


def test_a_whole_card_may_have_its_render_nodes(tmp_path: Path) -> None:
    write(tmp_path, specification(device("0", ["/dev/nvidia0", "/dev/dri/renderD128"])))
    specifications = read_specifications([str(tmp_path)])
    assert device_of(specifications, card_nodes(0), "GPU-1").name == "0"
    with pytest.raises(LaunchError):
        device_of(specifications, slice_nodes(0, 9, 0), UUID)


def test_a_later_folder_wins(tmp_path: Path) -> None:
    write(tmp_path / "etc", specification(device("0:0", own(0, 9))))
    write(tmp_path / "run", specification(device("0:0", own(0, 10))))
    refused(tmp_path / "etc", tmp_path / "run")
    assert found(tmp_path / "run", tmp_path / "etc") == "nvidia.com/gpu=0:0"


def test_a_name_that_two_files_of_a_folder_give_is_none(tmp_path: Path) -> None:
    write(tmp_path, specification(device("0:0", own(0, 9))))
    write(tmp_path, specification(device("0:0", own(0, 9))), "other.yaml")
    assert "both have nvidia.com/gpu=0:0" in refused(tmp_path)


def test_without_any_file_the_folder_is_named(tmp_path: Path) -> None:
    said = refused(tmp_path / "etc", tmp_path / "run")
    assert f"no file of kind nvidia.com/gpu in {tmp_path}/etc and {tmp_path}/run" in said
    assert f"--output={tmp_path}/run/nvidia.yaml" in said


def test_other_vendors_and_broken_files_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, specification(device("0:0", own(0, 9))))
    write(tmp_path, {"kind": "intel.com/gpu", "devices": 7}, "intel.yaml")
    broken = write(tmp_path, "devices: ]", "broken.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.json").symlink_to("loop.json")
    assert found(tmp_path) == "nvidia.com/gpu=0:0"
    assert f"{broken} is no CDI specification, line 1" in refused(tmp_path, gi=10)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "&a [*a, *a]",
        "kind: nvidia.com/gpu\ndevices: &a [*a]",
        "kind: nvidia.com/gpu\ndevices: {}\n",
        "kind: nvidia.com/gpu\ndevices: [{name: {}}]",
        "kind: nvidia.com/gpu\ndevices: [{name: x, containerEdits: [1]}]",
        "kind: nvidia.com/gpu\ndevices: [{name: x, containerEdits: {deviceNodes: [7]}}]",
        "kind: nvidia.com/gpu\ndevices: [{name: x, containerEdits: {deviceNodes: [{path: ''}]}}]",
        "? [a]\n: b",
        "\ud800".encode("utf-8", "surrogatepass"),
        b"\xff\xfe",
        "a: b\n---\nc: d",
        "!!python/object/apply:os.system ['false']",
        "kind: nvidia.com/gpu\nx: &n [{path: /dev/a}, {path: /dev/b}]\ndevices:\n"
        + "- {name: x, containerEdits: {deviceNodes: *n}}\n" * (cdi.MOST_DEVICES + 1),
        b"#" * (cdi.MOST_BYTES + 1),
    ],
)
def test_junk_is_passed_over_with_a_sentence(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "nvidia.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    read = read_specifications([str(tmp_path)])
    assert read.devices == ()
    (problem,) = read.problems or (f"{file} has nothing",)
    assert problem.startswith(str(file))
    assert "\n" not in problem
    assert len(problem) < 300


leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
junk = st.recursive(
    leaf,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "kind",
                    "devices",
                    "name",
                    "containerEdits",
                    "deviceNodes",
                    "path",
                    "hostPath",
                    "major",
                ]
            )
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.text(max_size=200) | st.binary(max_size=200) | junk, as_json=st.booleans())
def test_whatever_a_file_holds_there_is_a_sentence_and_nothing_else(
    tmp_path: Path, content: Any, as_json: bool
) -> None:
    for old in tmp_path.iterdir():
        old.unlink()
    if not isinstance(content, bytes):
        if isinstance(content, dict):
            content = {**content, "kind": "nvidia.com/gpu"}
        text = content if isinstance(content, str) else json.dumps(content)
        content = text.encode("utf-8", "surrogatepass")
    (tmp_path / ("a.json" if as_json else "a.yaml")).write_bytes(content)
    said = refused(tmp_path)
    assert said.startswith("The CDI specification does not have the slice as it is now: ")
    assert "\n" not in said.replace("\\n", "")
