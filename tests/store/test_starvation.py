"""One writer at a time on SQLite, and yet everybody gets their turn, in whichever process they are.

Threads of one process queue at the turnstile; processes meet at SQLite's lock, which has no queue.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from tests.store.lab import Lab

WRITERS = """
import sys, threading
from pathlib import Path
from tests.store.lab import Lab

lab, stop, number = Lab(sys.argv[1]), Path(sys.argv[2]), [0, 0, 0]

def write(thread):
    while not stop.exists():
        lab.broker.record_step("GPU-0", "n1", f"step {thread}")
        number[thread] += 1

threads = [threading.Thread(target=write, args=(thread,)) for thread in range(3)]
for each in threads:
    each.start()
print("at work", flush=True)
for each in threads:
    each.join()
print(*number)
"""


def test_a_start_gets_its_turn_among_processes_that_write_without_a_pause(tmp_path: Path) -> None:
    lab = Lab(f"sqlite:///{tmp_path}/leases.sqlite")
    lab.report()
    stop = tmp_path / "stop"
    busy = [
        subprocess.Popen(
            [sys.executable, "-c", WRITERS, lab.url, str(stop)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    # Whatever fails below, they end by themselves.
    limit = threading.Timer(120, stop.touch)
    limit.start()
    try:
        for each in busy:
            assert each.stdout is not None
            assert each.stdout.readline() == "at work\n"
        leases = [lab.start(f"user{number}") for number in range(10)]
        for lease in leases:
            lab.broker.activate(lease.attempt)
            lab.stop(lease)
        assert not stop.exists()
    finally:
        stop.touch()
        told = [each.communicate() for each in busy]
        limit.cancel()
        lab.close()
    for out, err in told:
        # Nobody was refused, and every thread of every process has written.
        assert err == ""
        assert all(int(number) > 0 for number in out.split())
