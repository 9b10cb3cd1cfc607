"""Processes of another local user, for tests that run as root."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

STRANGER = 61234
"""A uid that nobody on a test machine has."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextmanager
def as_stranger(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python code as another user; it is ended at the end of the block.

    Its interpreter is the system's: that user may not read this one's environment.
    """
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", code, *arguments],
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


__all__ = ["STRANGER", "as_stranger", "needs_root"]
