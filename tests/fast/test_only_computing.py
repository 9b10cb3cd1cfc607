"""The folder keeps its promise: a test in it cannot start, connect to or wait for anything."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def bind() -> None:
    with socket.socket() as ours:
        ours.bind(("127.0.0.1", 0))


def connect() -> None:
    with socket.socket() as ours:
        ours.connect(("127.0.0.1", 9))


@pytest.mark.parametrize(
    "slow",
    [
        bind,
        connect,
        lambda: sqlite3.connect(":memory:"),
        lambda: subprocess.run([sys.executable, "-c", ""], check=True),
        lambda: os.system("true"),
    ],
    ids=["bind", "connect", "database", "process", "shell"],
)
def test_what_is_slow_is_refused(slow: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="tests in tests/fast only compute"):
        slow()


def test_files_are_no_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    assert (tmp_path / "file").read_text() == "text"
