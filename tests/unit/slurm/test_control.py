"""What a running Slurm says, by programs that answer, fail and hang."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jupyterhub_migspawner.slurm import control
from jupyterhub_migspawner.slurm.control import Node, SlurmError

#: As scontrol 22.05 prints it, shortened.
ONE = (
    "NodeName=gpu1 Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 Gres=gpu:nvidia_a100_1g.5gb:7(S:0)  "
    "NodeAddr=gpu1 NodeHostName=gpu1.example.org Version=22.05.8 OS=Linux 6.1 #1 SMP  "
    "State=IDLE+DRAIN ThreadsPerCore=1 Reason=the card is being cut [root@2026-11-30T18:00:00]"
)
TWO = "NodeName=cpu1 Gres=(null) NodeAddr=cpu1 NodeHostName=cpu1 State=IDLE Partitions=p"


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "scontrol"


def answer(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_nodes_are_read_with_their_gpus_and_states(scontrol: Path) -> None:
    answer(scontrol, f"cat <<'END'\n{ONE}\n{TWO}\nEND")
    found = control.nodes()
    assert found["gpu1"] == Node(
        "gpu1",
        "gpu1.example.org",
        "gpu:nvidia_a100_1g.5gb:7(S:0)",
        "IDLE+DRAIN",
        "the card is being cut [root@2026-11-30T18:00:00]",
    )
    assert found["cpu1"].gres == ""


@pytest.mark.parametrize("name", ["gpu1", "gpu1.example.org", "gpu1.lab"])
def test_a_node_is_known_by_its_names(scontrol: Path, name: str) -> None:
    answer(scontrol, f"cat <<'END'\n{ONE}\n{TWO}\nEND")
    found = control.node_of(name, control.nodes())
    assert found is not None
    assert found.name == "gpu1"
    assert control.node_of("gpu2", control.nodes()) is None


def test_an_error_is_quoted(scontrol: Path) -> None:
    answer(scontrol, "echo 'slurm_load_node error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"show nodes failed: .*Unable to contact"):
        control.nodes()


def test_a_controller_that_hangs_is_not_waited_for(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(scontrol, "exec sleep 600")
    monkeypatch.setattr(control, "PATIENCE", 0.2)
    with pytest.raises(SlurmError, match="has not answered"):
        control.nodes()


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="scontrol is not installed here"):
        control.nodes()
