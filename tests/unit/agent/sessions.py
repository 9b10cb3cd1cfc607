"""Sessions of real processes on a simulated slice, for tests of the proof and of the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from jupyterhub_migspawner.agent.processes import start_time
from jupyterhub_migspawner.gpu import simulator
from jupyterhub_migspawner.model.leases import LeaseRow
from tests.unit.agent.conftest import Node

#: A system user that no test runs as and that exists nowhere.
NOBODY = 64_321

#: Says when it is there, waits for the end of the test, and ignores what it is told to.
WAIT = """
import signal, sys
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), signal.SIG_IGN)
print(flush=True)
sys.stdin.read()
"""


class Session:
    """A server of a lease: processes that carry its mark, and those that have dropped it."""

    def __init__(self, node: Node, tier: str = "small", user: str = "ada") -> None:
        self.node = node
        lease = node.broker.leases.activate(node.lab.start(user, tier).attempt)
        assert lease is not None
        self.lease: LeaseRow = lease
        self.started: list[subprocess.Popen[bytes]] = []

    @property
    def slice_uuid(self) -> str:
        return str(self.lease.slice_uuid)

    def process(
        self,
        *,
        marked: bool = True,
        on_slice: bool = False,
        uid: int | None = None,
        ignores: tuple[str, ...] = (),
        attempt: str = "",
        environ: Mapping[str, str] | None = None,
    ) -> int:
        """Start one; it is there when this returns. ``environ`` is more for its environment."""
        mark = attempt or (self.lease.attempt if marked else "")
        variables = {**(environ or {}), **({"MIGSPAWNER_ATTEMPT": mark} if mark else {})}
        python = [sys.executable, "-S", "-E", "-c", WAIT, *ignores]
        process = subprocess.Popen(
            # Another user may not be able to run this very Python.
            python if uid is None else ["cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**variables, "PATH": os.environ["PATH"]},
            user=uid,
            start_new_session=True,
        )
        self.started.append(process)
        assert process.stdout is not None
        if uid is None:
            process.stdout.readline()
        if on_slice:
            self.put(process.pid)
        return process.pid

    def put(self, pid: int) -> None:
        """Have the driver list a process on the slice."""
        simulator.add_process(self.node.path, self.slice_uuid, pid, 300)

    def leave(self, pid: int) -> None:
        """Have the driver list it there no more."""
        simulator.remove_process(self.node.path, self.slice_uuid, pid)

    def end(self, pid: int) -> None:
        """End one."""
        (process,) = [each for each in self.started if each.pid == pid]
        process.kill()
        process.wait()

    def lives(self, pid: int) -> bool:
        """Whether one runs."""
        (process,) = [each for each in self.started if each.pid == pid]
        return process.poll() is None

    def ended_by(self, pid: int) -> int:
        """Wait for the end of one; the signal that it died of."""
        (process,) = [each for each in self.started if each.pid == pid]
        return -process.wait(60)

    def stop(self) -> None:
        """The hub says that the server has ended."""
        self.node.stop(self.lease)

    def prove(self) -> None:
        """Look until the slice is proven empty: any process of this machine that comes or goes
        during a look can put that off."""
        for _ in range(100):
            self.node.tick()
            if self.state == "released":
                return
        raise AssertionError(self.waiting_for)

    @property
    def state(self) -> str:
        return self.node.broker.leases.get(self.lease.id).state

    @property
    def waiting_for(self) -> str:
        return self.node.broker.leases.get(self.lease.id).waiting_for

    @property
    def quarantined(self) -> str:
        """Why the slice is quarantined."""
        rows = [status.row for status in self.node.broker.slices.find()]
        return next(row.quarantined for row in rows if row.id == self.lease.slice_id)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def since_boot(pid: int) -> int:
    """When a process started, in clock ticks."""
    found = start_time(Path(f"/proc/{pid}"))
    assert found is not None
    return found


def is_root() -> bool:
    return os.geteuid() == 0


__all__ = ["NOBODY", "Session", "is_root", "signal", "since_boot"]
