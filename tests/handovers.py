"""A process that offers settings as a hub does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_HUB = """
import os, sys
from jupyterhub_migspawner.config.handover import Handover
document = sys.stdin.buffer.read(int(sys.argv[3]))
if int(sys.argv[2]):
    os.setuid(int(sys.argv[2]))
Handover(sys.argv[1], document).serve()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def offering(home: str, document: bytes, uid: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Offer a document as the hub of this home, as another user where ``uid`` is not 0."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HUB, home, str(uid), str(len(document))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(document)
    process.stdin.flush()
    assert process.stdout.readline() == b"ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
