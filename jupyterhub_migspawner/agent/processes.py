"""Processes of this machine, as ``/proc`` shows them.

Relies on proc(5). Promises to keep three answers apart: what a process is, that it is gone, and
that this cannot be read. Only ENOENT and ESRCH mean gone, and so does a zombie without living
threads; every other error raises :exc:`Unreadable`, and nothing may be concluded from it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from jupyterhub_migspawner.agent.deadlines import Deadlines, Late

T = TypeVar("T")

MARK = b"MIGSPAWNER_ATTEMPT="
"""The variable in a process's environment that names the start of a server it belongs to."""

PROC = Path("/proc")

TICKS = float(os.sysconf("SC_CLK_TCK"))
"""Clock ticks a second, the unit of times in ``/proc/PID/stat``."""

LONGEST_ENVIRONMENT = 6 << 20
"""Bytes that a program's arguments and environment have at most (linux, ``fs/exec.c``).

A process may say afterwards that its environment is anywhere in its memory, and terabytes long
(``PR_SET_MM_MAP``, prctl(2)); it needs no privilege for that."""

DEADLINES = Deadlines()
"""For reads that another process can delay."""

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of linux/sched.h
_DEAD = (b"Z", b"X", b"x")
_TRIES = 3
_CHUNK = 1 << 16
_LONGEST = 256  # bytes of a variable's value
_MOST_TEXT = 1 << 20  # bytes of any other file; the longest, /proc/stat, grows with the CPUs
_NAME = MARK[:-1]
_TOO_LONG = "it is longer than any program's"
_THREADS = 8


class Unreadable(Exception):
    """What ``/proc`` does not tell now. ``denied`` says that this process may not know it."""

    def __init__(self, path: Path, error: OSError, spent: int = 0) -> None:
        why = error.strerror or type(error).__name__
        super().__init__(f"{path} cannot be read ({why})")
        self.denied = error.errno in (errno.EACCES, errno.EPERM)
        #: Whether it says something of this process alone, and nothing of the next one.
        self.passing = self.denied or error.errno in (errno.EAGAIN, errno.EFBIG)
        #: How many bytes were read in vain.
        self.spent = spent


class Unread(Unreadable):
    """What has not been read yet: its user has had their share of this round."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, OSError(errno.EAGAIN, "not yet"))
        self.args = (
            f"it has not been read yet, because its user has too many new processes ({path})",
        )


@dataclass(frozen=True)
class Process:
    """One process, told apart from a later one with the same pid by its start time.

    ``started`` is in clock ticks since boot, field 22 of ``/proc/PID/stat``.
    """

    pid: int
    started: int

    def signal(self, number: int, proc: Path = PROC) -> str:
        """Send a signal, unless the pid belongs to another process by now.

        Returns why that is not possible, or an empty text when it was sent or the process is gone.
        """
        try:
            # A descriptor stays with the process that it was opened for: between the look at the
            # start time and the signal, the pid cannot become another process's (pidfd_open(2)).
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return ""
        except OSError:
            handle = -1  # an old kernel, or no descriptor left
        try:
            if start_time(proc / str(self.pid)) != self.started:
                return ""
            if handle >= 0:
                signal.pidfd_send_signal(handle, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            return ""
        except PermissionError:
            return "this service is not permitted to end it"
        except Unreadable as error:
            return str(error)
        finally:
            if handle >= 0:
                os.close(handle)
        return ""


@dataclass(frozen=True)
class Facts:
    """What ``/proc/PID/stat`` says of a process.

    ``environment`` is where the kernel has its environment, from and to; both are 0 while it has
    none and None where the kernel does not say. ``ticks`` is the CPU time used, that of children
    which were waited for included.
    """

    process: Process
    parent: int
    program: str
    dead: bool
    kernel: bool
    ticks: int
    environment: tuple[int, int] | None


@dataclass(frozen=True)
class Environment:
    """The mark of a process and some of its variables, by name.

    ``place`` is where all of this was read; as long as the process has its environment there, it is
    the same. None where that is not so. ``spent`` counts the bytes that were read.
    """

    mark: str = ""
    variables: Mapping[bytes, str] = field(default_factory=dict)
    place: tuple[int, int] | None = None
    spent: int = 0


def pids_of(proc: Path) -> list[int]:
    """Return the pids that there are.

    Raises :exc:`Unreadable` when the list is not complete.
    """
    try:
        return [int(name) for name in os.listdir(proc) if name.isdigit()]
    except OSError as error:
        raise Unreadable(proc, error) from None


def read_facts(entry: Path) -> Facts | None:
    """Return what ``stat`` in a ``/proc/PID`` folder says; None when the process is gone.

    Raises :exc:`Unreadable`.
    """
    path = entry / "stat"
    stat = _read(path)
    if stat is None:
        return None
    # The second field is the command's name in parentheses, and may itself hold both.
    head, _, rest = stat.rpartition(b")")
    fields = rest.split()
    try:
        threads = int(fields[17])
        return Facts(
            process=Process(int(entry.name), int(fields[19])),
            parent=int(fields[1]),
            program=head.partition(b"(")[2].decode("utf-8", "replace"),
            # The first thread of a program can end before the others: it is a zombie then, while
            # they live on with everything that the process has open.
            dead=fields[0] in _DEAD and threads <= 1,
            kernel=bool(int(fields[6]) & _KERNEL_THREAD),
            ticks=sum(int(field) for field in fields[11:15]),
            environment=(int(fields[47]), int(fields[48])) if len(fields) > 48 else None,
        )
    except (IndexError, ValueError):
        raise Unreadable(path, OSError(errno.EIO, "it is not complete")) from None


def start_time(entry: Path) -> int | None:
    """Return when the process of a ``/proc/PID`` folder started; None when it is gone.

    That is in clock ticks since boot. Raises :exc:`Unreadable`.
    """
    facts = read_facts(entry)
    return facts.process.started if facts else None


def parent_of(entry: Path) -> int:
    """Return the pid of a process's parent; 0 when it is gone.

    Raises :exc:`Unreadable`.
    """
    facts = read_facts(entry)
    return facts.parent if facts else 0


def is_alive(process: Process, proc: Path = PROC) -> bool:
    """Tell whether this very process still runs.

    Raises :exc:`Unreadable`.
    """
    facts = read_facts(proc / str(process.pid))
    if facts is None and proc == PROC:
        # Where /proc is mounted with hidepid, processes of others look as if they were gone.
        with contextlib.suppress(ProcessLookupError):
            try:
                os.kill(process.pid, 0)
            except PermissionError as error:
                raise Unreadable(proc / str(process.pid), error) from None
            facts = read_facts(proc / str(process.pid))
            if facts is None:
                raise Unreadable(proc / str(process.pid), OSError(errno.EIO, "it is hidden"))
    return facts is not None and facts.process == process and not facts.dead


def uids_of(entry: Path) -> frozenset[int] | None:
    """Return the real and effective uid of a process; None when it is gone.

    Raises :exc:`Unreadable`.
    """
    path = entry / "status"
    try:
        found = re.search(rb"^Uid:\s+(\d+)\s+(\d+)", _read(path) or b"", re.MULTILINE)
        if found:
            return frozenset(map(int, found.groups()))
    except Unreadable as error:
        if not error.denied:
            raise
    # With hidepid, the owner of the folder is all that can be seen of others' processes.
    try:
        return frozenset({entry.stat().st_uid})
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise Unreadable(entry, error) from None


def mark_of(entry: Path) -> str:
    """Return the attempt whose mark the process of a ``/proc/PID`` folder carries.

    An empty text where it carries none, and for a process that is gone. Raises :exc:`Unreadable`,
    also while a process that may well have an environment shows none.
    """
    return environment_of(entry).mark


def environment_of(entry: Path, names: frozenset[bytes] = frozenset()) -> Environment:
    """Return the mark of a process, and those of its variables that have these names.

    Empty for a process that is gone. Reads at most :data:`LONGEST_ENVIRONMENT`, of which little is
    kept. Raises :exc:`Unreadable`, as :func:`mark_of`; its ``spent`` says how many bytes were read.
    """
    spent = 0
    try:
        for _ in range(_TRIES):
            before = read_facts(entry)
            if before is None or before.dead or before.kernel:
                return Environment(spent=spent)
            _demand_size(entry, before)
            found, size = patiently(entry, lambda: _variables_in(entry, names))
            spent += size
            after = read_facts(entry)
            if after is None or after.process != before.process:
                return Environment(spent=spent)
            # A mark that was read was there, whatever the process does meanwhile.
            is_all = after.environment == before.environment and _is_all(after, size)
            if is_all or found.get(_NAME):
                texts = {name: found[name].decode("utf-8", "replace") for name in found}
                place = before.environment if is_all else None
                return Environment(texts.get(_NAME, ""), texts, place, spent)
        # Between fork and exec, or at its very end, there is no environment to be read.
        raise Unreadable(entry / "environ", OSError(errno.EAGAIN, "it shows only a part of it"))
    except Unreadable as error:
        error.spent += spent
        raise


def patiently(entry: Path, work: Callable[[], T]) -> T:
    """Run ``work``, which reads a process's memory: the process's owner can delay it without limit.

    ``entry`` is its ``/proc/PID`` folder. Raises :exc:`Unreadable` when it takes too long.
    """
    try:
        return DEADLINES.run(work, lambda: _owner(entry))
    except Late:
        raise Unreadable(
            entry / "environ", OSError(errno.EAGAIN, "reading it takes too long")
        ) from None


def _owner(entry: Path) -> int:
    try:
        return min(uids_of(entry) or (-1,))
    except Unreadable:
        return -1


def control_group(entry: Path) -> bytes | None:
    """Return the control groups of a process as the kernel writes them; None when it is gone.

    Raises :exc:`Unreadable`.
    """
    return _read(entry / "cgroup")


def boot_time(proc: Path = PROC) -> float | None:
    """Return when this machine was started, in seconds since 1970; None where it cannot be read."""
    try:
        found = re.search(rb"^btime (\d+)$", _read(proc / "stat") or b"", re.MULTILINE)
    except Unreadable:
        return None
    return float(found[1]) if found else None


def _read(path: Path) -> bytes | None:
    """Return all of a file below ``/proc``; None when its process is gone.

    Raises :exc:`Unreadable`.
    """
    text = b""
    try:
        # Without a file object: there may be thousands of these, each round.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while piece := os.read(handle, _CHUNK):
                text += piece
                if len(text) > _MOST_TEXT:
                    why = f"it is longer than {_MOST_TEXT} bytes"
                    raise Unreadable(path, OSError(errno.EFBIG, why))
        finally:
            os.close(handle)
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        raise Unreadable(path, error) from None
    return text


def _demand_size(entry: Path, facts: Facts) -> None:
    begin, end = facts.environment or (0, 0)
    if end - begin > LONGEST_ENVIRONMENT:
        raise Unreadable(entry / "environ", OSError(errno.EFBIG, _TOO_LONG))


def _is_all(facts: Facts, size: int) -> bool:
    """Tell whether so many bytes are the whole environment."""
    if facts.environment is None:
        return True
    begin, end = facts.environment
    return size >= end - begin if begin else size > 0


def _variables_in(entry: Path, names: frozenset[bytes]) -> tuple[dict[bytes, bytes], int]:
    """Return some variables of a process's environment, and how many bytes of it could be read."""
    found, size = _search(entry / "environ", names)
    if found or size:
        return found, size
    # A zombie shows no environment, its threads that live on do.
    with contextlib.suppress(OSError):
        for thread in itertools.islice((entry / "task").iterdir(), _THREADS):
            found, size = _search(thread / "environ", names)
            if found or size:
                break
    return found, size


@lru_cache(maxsize=8)
def _pattern(names: frozenset[bytes]) -> re.Pattern[bytes]:
    return re.compile(rb"\0(" + b"|".join(map(re.escape, sorted({_NAME, *names}))) + b")=")


def _search(path: Path, names: frozenset[bytes]) -> tuple[dict[bytes, bytes], int]:
    """Look for variables piece by piece: an environment may have several megabytes."""
    pattern, longest = _pattern(names), max(map(len, {_NAME, *names})) + 2
    found: dict[bytes, bytes] = {}
    rest, size = b"\0", 0
    try:
        with path.open("rb", buffering=0) as file:
            while True:
                piece = file.read(_CHUNK)
                size += len(piece)
                rest += piece
                # A name, and a value, may go on in the next piece.
                keep = max(0, len(rest) - longest)
                for each in pattern.finditer(rest):
                    limit = each.end() + _LONGEST
                    end = rest.find(b"\0", each.end(), limit)
                    if end < 0 and piece and len(rest) < limit:
                        keep = min(keep, each.start())
                        break
                    value = rest[each.end() : limit if end < 0 else end]
                    # The first one counts, as it does for getenv(3); of marks, the first with one.
                    if value or each[1] != _NAME:
                        found.setdefault(each[1], value)
                if not piece:
                    return found, size
                rest = rest[keep:]
                if size > LONGEST_ENVIRONMENT:
                    if found.get(_NAME):
                        return found, size
                    raise Unreadable(path, OSError(errno.EFBIG, _TOO_LONG), size)
    except (FileNotFoundError, ProcessLookupError):
        return {}, size
    except OSError as error:
        raise Unreadable(path, error, size) from None
