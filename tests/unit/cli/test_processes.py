"""Ending everything that a demo started, however hard it tries to stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_migspawner.cli.demo.processes import TAG, Signals, processes, tagged

# What runs in a process of its own, because it adopts and collects children of all kinds.
PROGRAM = """
import os, subprocess, sys, time
from pathlib import Path
from jupyterhub_migspawner.cli.demo.processes import TAG, adopt_orphans, descendants, end, tagged
directory = Path(sys.argv[1])
adopt_orphans()
hub = subprocess.Popen(["bash", "-c", sys.argv[2]], start_new_session=True,
                       env={**os.environ, TAG: str(directory)})
while len(descendants()) < int(sys.argv[3]):
    time.sleep(0.02)
left = end(directory, hub)
print(len(left), len(tagged(directory)), len(descendants()), hub.returncode)
"""


@pytest.mark.parametrize(
    ("script", "number"),
    [
        # A hub that just runs.
        ("exec sleep 600", 1),
        # One that ends on SIGTERM and leaves a child in a session of its own.
        ("setsid sleep 600 & exec sleep 600", 2),
        # A child that has forgotten its environment, and whose parent has ended.
        ("(setsid env -i sleep 600 &) ; exec sleep 600", 2),
        # Some that do not listen to SIGTERM.
        ("trap '' TERM; sleep 600 & while true; do sleep 600; done", 3),
    ],
)
def test_nothing_is_left(tmp_path: Path, script: str, number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), script, str(number)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    left, still_tagged, below, status = done.stdout.split()
    assert (left, still_tagged, below) == ("0", "0", "0")
    assert int(status) in (-signal.SIGTERM, -signal.SIGKILL)


def test_only_the_tag_of_this_very_folder_counts(tmp_path: Path) -> None:
    children = [
        subprocess.Popen(["sleep", "600"], env={TAG: str(folder)})
        for folder in (tmp_path / "one", tmp_path / "one-more")
    ]
    try:
        assert [process.pid for process in tagged(tmp_path / "one")] == [children[0].pid]
        assert "sleep 600" in tagged(tmp_path / "one")[0].command
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert tagged(tmp_path / "one") == []


def test_a_process_that_has_ended_is_not_listed() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    # It is a zombie until its parent asks how it ended.
    assert child.pid not in processes()
    child.wait()


@pytest.mark.parametrize("number", Signals.ENDING)
def test_a_signal_ends_the_wait_and_the_handlers_come_back(number: signal.Signals) -> None:
    def before(*_: object) -> None:
        raise AssertionError("the demo's own handler is in its place")

    # The process that started the tests may have had this one ignored, as nohup does, and then so
    # do they.
    inherited = signal.signal(number, before)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), number)
            assert signals.wait(60)
            assert not signals.wait(0)
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, inherited)


def test_the_end_of_a_child_ends_the_wait_but_not_the_demo() -> None:
    with Signals() as signals:
        child = subprocess.Popen(["true"])
        assert not signals.wait(60)
        child.wait()
