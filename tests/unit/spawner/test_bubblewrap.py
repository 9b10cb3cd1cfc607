"""The wall's command line, and what is reported where it cannot be built."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from traitlets import TraitError

from jupyterhub_migspawner.errors import LaunchError
from jupyterhub_migspawner.gpu.devices import slice_nodes
from jupyterhub_migspawner.spawner.launchers.bubblewrap import KEPT, _child, problem, wall
from jupyterhub_migspawner.spawner.launchers.local import MigLocalSpawner


def test_only_the_devices_of_the_slice_are_bound(tmp_path: Path) -> None:
    nodes = slice_nodes(0, 1, 0, root=tmp_path)
    words = wall("bwrap", nodes, ("/dev/fuse",), 1000)
    bound = [words[at + 1] for at, word in enumerate(words) if word == "--dev-bind"]
    assert bound == [node.path for node in nodes]
    assert [words[at + 1] for at, word in enumerate(words) if word == "--dev-bind-try"] == [
        "/dev/fuse"
    ]
    # The folder of devices is new, and lies over the one that came with the root.
    assert words.index("--bind") < words.index("--dev") < words.index("--dev-bind")
    assert words[-1] == "--"


def test_files_and_processes_are_as_outside(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    program = ["sh", "-c", f"cat {tmp_path}/notes; test -d /proc/{os.getpid()} && ls /sys"]
    words = wall("bwrap", (), KEPT, os.geteuid())
    done = subprocess.run([*words, *program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mine")
    assert "kernel" in done.stdout


def test_a_machine_without_bubblewrap_is_told(tmp_path: Path) -> None:
    assert problem(path=str(tmp_path)) == "bubblewrap is not installed."


def test_a_bubblewrap_that_works_has_no_problem() -> None:
    assert problem() == ""


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions"),
        ("exit 3", "bubblewrap does not work: status 3."),
    ],
)
def test_a_bubblewrap_that_fails_is_quoted(tmp_path: Path, script: str, says: str) -> None:
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bwrap").chmod(0o755)
    assert says in problem(path=str(tmp_path))


def test_a_user_that_cannot_be_become_is_a_problem() -> None:
    def refuse() -> None:
        raise PermissionError("no such user")

    assert problem(refuse).startswith("bubblewrap cannot be run:")


@pytest.mark.parametrize(
    "path", ["/dev/nvidia0", "/dev/nvidia-caps", "/dev", "/dev/../dev/nvidia1", "/home", "fuse"]
)
def test_devices_of_cards_cannot_be_kept(path: str) -> None:
    with pytest.raises(TraitError, match="none of NVIDIA's"):
        MigLocalSpawner(kept_devices=["/dev/fuse", path])


def test_a_link_to_a_card_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "realpath", lambda path: path.replace("/dev/link", "/dev/nvidia7"))
    assert "/dev/link" not in wall("bwrap", (), ("/dev/link",), 1000)
    assert "/dev/fuse" in wall("bwrap", (), ("/dev/fuse",), 1000)


async def reported(text: bytes, monitor: int) -> int:
    reader, writer = os.pipe()
    try:
        os.write(writer, text)
        os.close(writer)
        return await _child(reader, monitor)
    finally:
        os.close(reader)


async def test_the_server_is_a_child_of_bubblewraps_process() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        text = b'{\n    "child-pid": %d,\n    "mnt-namespace": 1\n}\n' % child.pid
        assert await reported(text, os.getpid()) == child.pid
        # A user who can write to the pipe may name any process.
        with pytest.raises(LaunchError, match="not its own"):
            await reported(text, os.getppid())
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    "text",
    [
        b'{"child-pid": 1}',
        b'{"child-pid": -1}',
        b'{"child-pid": "x"}',
        b'{"child-pid": null}',
        b"[}",
        b"{}",
        b"",
        b"[" * 8192,
        b"[" * 3000 + b"}",
    ],
)
async def test_what_is_no_child_is_no_server(text: bytes) -> None:
    with pytest.raises(LaunchError):
        await reported(text, os.getpid())
