"""The processes of a demo: found by a tag in their environment, and ended to the last one.

Relies on ``/proc`` and on ``prctl`` (Linux). Promises that after :func:`end` no process that
carries the tag or descends from the demo is left, or names those that are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

#: Environment variable that every process of a demo carries: the demo's directory.
TAG = "MIGSPAWNER_DEMO"

#: ``PR_SET_CHILD_SUBREAPER`` of ``linux/prctl.h``: orphans below us become our children.
_SET_CHILD_SUBREAPER = 36

#: Seconds that processes get after SIGTERM, and after SIGKILL, before the next step.
_GRACE = 5.0


@dataclass(frozen=True)
class Process:
    """One live process as ``/proc`` shows it."""

    pid: int
    parent: int
    command: str


def processes() -> dict[int, Process]:
    """Return every live process by pid; zombies are dead and left out."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            # It may end while we look.
            with contextlib.suppress(OSError, ValueError):
                process = _read(int(entry.name))
                if process is not None:
                    found[process.pid] = process
    return found


def _read(pid: int) -> Process | None:
    root = Path("/proc") / str(pid)
    # The name in parentheses may itself hold spaces and parentheses: split after the last one.
    state, parent = (root / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    if state == "Z":
        return None
    words = (root / "cmdline").read_bytes().decode(errors="replace").split("\0")
    return Process(pid, int(parent), " ".join(words).strip())


def tagged(directory: Path) -> list[Process]:
    """Return the processes with the tag of the demo in ``directory``, but not this one's line."""
    everyone = processes()
    needle = f"{TAG}={directory}".encode()
    ours = _ancestors(os.getpid(), everyone)
    found = []
    for process in everyone.values():
        if process.pid in ours:
            continue
        with contextlib.suppress(OSError):
            environ = (Path("/proc") / str(process.pid) / "environ").read_bytes()
            if needle in environ.split(b"\0"):
                found.append(process)
    return found


def _ancestors(pid: int, everyone: dict[int, Process]) -> set[int]:
    line = set()
    while pid in everyone and pid not in line:
        line.add(pid)
        pid = everyone[pid].parent
    return line


def descendants() -> list[Process]:
    """Return the processes below this one."""
    everyone = processes()
    below = {os.getpid()}
    grown = True
    while grown:
        more = {p.pid for p in everyone.values() if p.parent in below} - below
        below |= more
        grown = bool(more)
    return [everyone[pid] for pid in below if pid in everyone and pid != os.getpid()]


def adopt_orphans() -> None:
    """Become the parent of every process below us whose own parent ends.

    A kernel or a shell that a notebook left behind stays findable that way, whatever it did to its
    environment. Where the kernel refuses, the tag alone has to do.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(child: subprocess.Popen[bytes]) -> None:
    """Collect every dead child, ours and adopted; note the exit status of ``child``."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)


def end(directory: Path, hub: subprocess.Popen[bytes]) -> list[Process]:
    """End what is left of the demo: SIGTERM, then SIGKILL; return what would not go."""
    left: list[Process] = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = _left(directory, hub)
        _signal(left, number)
        deadline = time.monotonic() + _GRACE
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = _left(directory, hub)
            if number == signal.SIGKILL:
                # A process may have started another between the look and the blow.
                _signal(left, number)
        if not left:
            break
    return left


def _left(directory: Path, hub: subprocess.Popen[bytes]) -> list[Process]:
    reap(hub)
    return list({p.pid: p for p in [*tagged(directory), *descendants()]}.values())


def _signal(targets: Iterable[Process], number: signal.Signals) -> None:
    for process in targets:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process.pid, number)


class Signals:
    """Waits for the signals that end a demo, or for the end of a child, without busy looking."""

    ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> Signals:
        self._reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._writer = writer
        self._previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # nohup has a hang-up ignored, and it stays ignored.
        self._previous = {
            number: signal.signal(number, _noted)
            for number in (*self.ENDING, signal.SIGCHLD)
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for any signal; return whether one asked for the end."""
        if not select.select([self._reader], [], [], seconds)[0]:
            return False
        return any(number in self.ENDING for number in os.read(self._reader, 512))


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the pipe of :class:`Signals` carries the news."""
