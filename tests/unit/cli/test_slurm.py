"""``migspawner slurm gres``: what Slurm has to know, and what it knows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Install

RIGHT = "gpu:nvidia_a100_1g.5gb:9,gpu:nvidia_a100_3g.20gb:1,gpu:nvidia_a100_2g.10gb:1"


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cluster's answer."""
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ncat {tmp_path}/nodes\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return tmp_path / "nodes"


def test_all_of_the_output_is_a_gres_conf(install: Install, running: Path) -> None:
    install.report()
    running.write_text(f"NodeName=n1 Gres={RIGHT} NodeHostName=n1 State=IDLE\n")
    answer = install.run("slurm", "gres")
    assert answer.status == 0
    assert "migspawner:" not in answer.err
    first, *lines = answer.out.splitlines()
    assert first.startswith("# slurm.conf: NodeName=n1 Gres=gpu:nvidia_a100_1g.5gb:9,")
    assert len(lines) == 11
    assert all(line.startswith("NodeName=n1 Name=gpu Type=nvidia_a100_") for line in lines)
    assert all("MultipleFiles=/dev/nvidia" in line for line in lines)


def test_detection_by_slurm_needs_no_files(install: Install, running: Path) -> None:
    install.report()
    running.write_text(f"NodeName=n1 Gres={RIGHT} NodeHostName=n1 State=IDLE\n")
    answer = install.run("slurm", "gres", "--autodetect")
    assert answer.out.splitlines()[1:] == ["NodeName=n1 AutoDetect=nvml"]


def test_what_differs_from_the_running_cluster_is_named(install: Install, running: Path) -> None:
    install.report()
    running.write_text("NodeName=n1 Gres=gpu:nvidia_a100_1g.5gb:7 NodeHostName=n1 State=IDLE\n")
    answer = install.run("slurm", "gres", "--json")
    assert answer.status == 1
    (node,) = answer.json
    assert node["running"] == "gpu:nvidia_a100_1g.5gb:7"
    assert node["differences"] == [
        "Node n1: its cards have 9 gpu:nvidia_a100_1g.5gb, and Slurm has 7.",
        "Node n1: its cards have 1 gpu:nvidia_a100_2g.10gb, and Slurm has none.",
        "Node n1: its cards have 1 gpu:nvidia_a100_3g.20gb, and Slurm has none.",
    ]
    assert "and Slurm has 7" in answer.err


def test_a_node_that_slurm_does_not_know_is_named(install: Install, running: Path) -> None:
    install.report()
    running.write_text("NodeName=other Gres=(null) NodeHostName=other State=IDLE\n")
    answer = install.run("slurm", "gres")
    assert answer.status == 1
    assert "Node n1 is not in the running cluster." in answer.err


def test_a_cluster_that_does_not_answer_is_no_difference(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install.report()
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = install.run("slurm", "gres")
    assert answer.status == 0
    assert "The running cluster was not compared. scontrol is not installed" in answer.err
    assert len(answer.out.splitlines()) == 12


def test_a_node_that_does_not_exist_is_status_1(install: Install, running: Path) -> None:
    install.report()
    running.write_text("")
    answer = install.run("slurm", "gres", "--node", "n9")
    assert answer.status == 1
    assert "n9" in answer.err
