"""The same code over a library in C: structures are read and written as C lays them out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUB = Path(__file__).with_name("nvml_stub.c")

SCRIPT = """
import dataclasses, json
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.nvml import Nvml

nvml = Nvml("")
told = {}

def refused(function, *arguments):
    try:
        function(*arguments)
    except GpuError as error:
        return error.code

def plain(value):
    return dataclasses.asdict(value)

inventory = nvml.inventory()
told["versions"] = [inventory.driver_version, inventory.nvml_version]
told["card"] = plain(inventory.cards[0])
uuid = inventory.cards[0].uuid
told["busy"] = plain(nvml.create_instance(uuid, "1g.5gb", 0))
told["free"] = plain(nvml.create_instance(uuid, "3g.20gb", 4))
told["taken"] = refused(nvml.create_instance, uuid, "1g.5gb", 5)
told["misplaced"] = refused(nvml.create_instance, uuid, "3g.20gb", 1)
told["processes"] = [plain(each) for each in nvml.processes("MIG-stub-20")]
told["nobody"] = [plain(each) for each in nvml.processes("MIG-stub-24")]
told["gone"] = refused(nvml.processes, "MIG-stub-26")
told["events"] = [plain(each) for each in nvml.events()]
told["in use"] = refused(nvml.destroy_instance, uuid, 20)
told["mode in use"] = refused(nvml.set_mig_mode, uuid, False)
nvml.destroy_instance(uuid, 24)
told["left"] = [each.gi_id for each in nvml.card(uuid).instances]
nvml.close()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the script tells about the card of the C library."""
    compiler = shutil.which("gcc")
    if compiler is None:
        # Installed by `make test`: where everything is checked, a missing compiler is an error.
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("no C compiler on this machine; install gcc and libc6-dev")
    assert compiler is not None
    folder = tmp_path_factory.mktemp("nvml")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", library, STUB],
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "MIGSPAWNER_NVML": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_the_card_is_read_with_its_profiles(told) -> None:
    card = told["card"]
    assert told["versions"] == ["535.0-stub", "12.535-stub"]
    assert card["problem"] == ""
    assert {key: card[key] for key in ("index", "uuid", "model", "minor", "memory_mib")} == {
        "index": 0,
        "uuid": "GPU-stub",
        "model": "NVIDIA Stub",
        "minor": 5,
        "memory_mib": 40960,
    }
    assert card["pci_device_id"] == 0x20B010DE
    one, three, seven = card["profiles"]
    assert (one["name"], one["id"], one["memory_mib"], one["max_instances"]) == (
        "1g.5gb", 19, 4864, 7,
    )  # fmt: skip
    assert [each["start"] for each in one["placements"]] == list(range(7))
    assert three["placements"] == [{"start": 0, "size": 4}, {"start": 4, "size": 4}]
    assert (seven["whole"], three["whole"], seven["multiprocessors"]) == (True, False, 98)


def test_slices_are_cut_where_asked_and_read_back(told) -> None:
    free = told["free"]
    assert (free["profile"], free["start"], free["size"]) == ("3g.20gb", 4, 4)
    assert (free["gi_id"], free["ci_id"], free["uuid"]) == (24, 0, "MIG-stub-24")
    assert (free["memory_mib"], free["processes"]) == (19968, [])
    assert told["left"] == [20]


def test_processes_are_read_with_and_without_their_memory(told) -> None:
    both = [{"pid": 4242, "memory_mib": 1500}, {"pid": 4343, "memory_mib": None}]
    assert told["processes"] == both
    assert told["busy"]["processes"] == both
    assert told["nobody"] == []


def test_events_are_read_with_the_instance_they_hit(told) -> None:
    (event,) = told["events"]
    assert event == {
        "card_uuid": "GPU-stub",
        "kind": "xid",
        "xid": 43,
        "gi_id": 24,
        "ci_id": 0,
        "recovery_action": None,
    }


def test_refusals_carry_nvmls_codes(told) -> None:
    assert (told["taken"], told["misplaced"], told["gone"]) == (23, 2, 6)
    assert (told["in use"], told["mode in use"]) == (19, 19)
