"""What the driver lists and its files say is read up to a bound."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jupyterhub_migspawner import sockets
from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu import devices, reading, simulator
from jupyterhub_migspawner.gpu.nvml import Nvml


@pytest.mark.parametrize(("number", "told"), [(4096, True), (4097, False), (1_000_000, False)])
def test_a_list_of_processes_without_end_is_an_error_and_no_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: bool
) -> None:
    path = tmp_path / "machine.json"
    simulator.create_state(path, cards=1, layouts=[("1g.5gb",)], seed="tests")
    (uuid, *_) = simulator.slice_uuids(path)

    class Listed(list[Any]):
        def __getitem__(self, which: Any) -> Any:
            return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in range(number)[which]]

        def __iadd__(self, other: Any) -> Listed:
            return self

    monkeypatch.setattr(reading, "list", lambda found: Listed(), raising=False)
    nvml = Nvml(f"sim:{path}")
    try:
        if told:
            assert len(nvml.processes(uuid)) == number
        else:
            with pytest.raises(GpuError, match="more than 4096 processes"):
                nvml.processes(uuid)
        (card,) = nvml.inventory().cards
        assert not card.problem
        assert all(len(each.processes) <= 4097 for each in card.instances)
    finally:
        nvml.close()


def test_a_file_of_the_driver_without_end_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    with (tmp_path / "proc" / "devices").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(GpuError, match="/proc/devices is longer than"):
        devices.capabilities_major(root=tmp_path)


def test_a_list_of_sockets_is_read_line_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_PROC", tmp_path)
    (tmp_path / "net").mkdir()
    line = "0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 1000 0 4711\n"
    with (tmp_path / "net" / "tcp").open("w") as file:
        file.write("head\n" + line)
    lines = sockets._lines(tmp_path / "net" / "tcp")
    assert next(lines) == line
    assert not list(sockets._lines(tmp_path / "net" / "tcp6"))
