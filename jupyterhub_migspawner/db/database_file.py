"""The file of a SQLite database, watched from outside of SQLite.

SQLite goes on with the file that it has open, whatever becomes of its name: after ``rm``, ``mv`` or
a restore a process would write leases into a file that nobody else sees, and after ``cp`` over it
read a mixture of two. Relies on the operating system's word about files. Promises to notice when
the file, or its write-ahead log, is another one than a connection has open, and when its content
has become older.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from jupyterhub_migspawner.db.identity import (
    POSITION,
    Position,
    difference,
    has_no_table,
    position_of,
)

Node = tuple[int, int] | None
"""Device and inode of a file; None when there is none."""

Nodes = tuple[Node, Node, Node]
"""Those of the database, its write-ahead log and that one's index."""

Stamp = tuple[int, int]
"""Size of a file, and when it was last changed, in nanoseconds."""

READS, ENOUGH_READS = 50, 3
PAUSE_SECONDS = 0.02
"""How often a bare file that seems older is read, how often it has to, and seconds in between."""


CHECKPOINT_BYTE = 121
INDEX_BYTES = 132


class DatabaseFile:
    """One SQLite file; thread-safe, since what it remembers is replaced as a whole."""

    def __init__(self, path: Path, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self.path = path
        # As text, for they are looked at several times in a transaction.
        self._names = (str(path), f"{path}-wal", f"{path}-shm")
        self._sleep = sleep
        self._stamp: Stamp | None = None
        self._position: Position | None = None
        self._node: Node = None

    def connect(self) -> sqlite3.Connection:
        """Open a connection to the file without transactions of its own; it never makes the file.

        Raises :class:`sqlite3.Error`.
        """
        return sqlite3.connect(
            self._uri("rw"), uri=True, check_same_thread=False, isolation_level=None
        )

    def nodes(self) -> Nodes:
        """Return which files the database, its write-ahead log and that one's index are now."""
        file, log, index = map(_node, self._names)
        return file, log, index

    def look(self) -> tuple[tuple[Node, Node], Stamp]:
        """Return which files database and log are now, and a stamp for :meth:`problem`.

        Few system calls, since each costs as much as a short statement. Raises
        :class:`FileNotFoundError` where there is no database.
        """
        found = os.stat(self._names[0])
        nodes = (found.st_dev, found.st_ino), _node(self._names[1])
        return nodes, (found.st_size, found.st_mtime_ns)

    def index(self) -> Node:
        """Return which file the index of the write-ahead log is now."""
        return _node(self._names[2])

    def problem(self, seen: Position | None, stamp: Stamp | None = None) -> str:
        """Explain why the content is older than ``seen`` or damaged; empty when not, or not known.

        Looked at only when the file has changed, as checkpoints and foreign programs change it: by
        a new connection, for the others may have pages of before in memory; and without its
        write-ahead log, under which an older copy may lie. What is read in the middle of a
        checkpoint proves nothing. ``stamp`` is that of now, where the caller knows it.
        """
        try:
            stamp = stamp or self._stamped()
            if stamp == self._stamp:
                return ""
            if why := self._now(seen):
                return why
            position = self._bare_position()
            if self._position is None or not difference(self._position, position):
                self._stamp, self._position, self._node = stamp, position, self.nodes()[0]
                return ""
            return self._confirmed(self._position)
        except OSError:
            return ""  # connecting says what is wrong

    def _now(self, seen: Position | None) -> str:
        try:
            # One that may write would, when it is closed, write the log into the file.
            with closing(sqlite3.connect(self._uri("ro"), uri=True)) as connection:
                found = position_of(connection.execute(POSITION).fetchone())
        except sqlite3.OperationalError as error:
            if not has_no_table(error):
                return ""  # locked, or gone: connecting says so
            found = None
        except sqlite3.DatabaseError:
            return "it is damaged"
        return difference(seen, found) if seen is not None else ""

    def _confirmed(self, before: Position) -> str:
        why, seen = "", 0
        for _ in range(READS):
            stamp, position = self._stamped(), self._bare_position()
            why = difference(before, position)
            if not why:
                self._stamp, self._position, self._node = stamp, position, self.nodes()[0]
                return ""
            settled = self._stamped() == stamp and not self._is_written()
            # Another file than the one that was judged last is nobody's checkpoint.
            moved = self._node is not None and self.nodes()[0] != self._node
            seen += settled and (moved or self._is_whole())
            if seen == ENOUGH_READS:
                return why
            self._sleep(PAUSE_SECONDS)
        return ""

    def _is_written(self) -> bool:
        """Tell whether a checkpoint holds its lock now: one byte of the log's index.

        SQLite, src/os_unix.c and src/wal.c: WAL_CKPT_LOCK is lock 1, and lock 0 is byte 120. Asked
        of proc(5), ``/proc/locks``: asking by a lock would mean closing the file, and with it all
        locks that this process has on it (fcntl(2)).
        """
        index = self.nodes()[2]
        try:
            locks = Path("/proc/locks").read_text().splitlines()
        except OSError:
            return False
        held = (line.split() for line in locks if "POSIX" in line and "->" not in line)
        return index is not None and any(
            words[-3].endswith(f":{index[1]}")
            and int(words[-2]) <= CHECKPOINT_BYTE <= _end(words[-1])
            for words in held
        )

    def _is_whole(self) -> bool:
        """Tell whether the bare file is one state of the database, and no mixture of two.

        A checkpoint that a reader holds up leaves some pages newer than others, for as long as the
        reader goes on: what is read of them may look older than it is, or damaged. SQLite,
        src/wal.c: the log's index begins with two headers, of 48 bytes each, whose ``mxFrame`` says
        how much is in the log, and tells from byte 96 on how much of that is in the file. It is
        read by another process, since closing it would drop this one's locks.
        """
        try:
            read = ["head", "-c", str(INDEX_BYTES), f"{self.path}-shm"]
            index = subprocess.run(read, capture_output=True, timeout=10, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            return False
        if len(index) < INDEX_BYTES:
            return self.nodes()[2] is None  # there is no log
        (in_log,) = struct.unpack_from("=I", index, 16)
        (in_file,) = struct.unpack_from("=I", index, 96)
        (begun,) = struct.unpack_from("=I", index, 128)
        return begun <= in_file and in_file in (0, in_log)

    def _stamped(self) -> Stamp:
        found = os.stat(self._names[0])
        return found.st_size, found.st_mtime_ns

    def _bare_position(self) -> Position | None:
        """Return the position without what stands in the write-ahead log only."""
        try:
            with closing(sqlite3.connect(self._uri("ro") + "&immutable=1", uri=True)) as bare:
                return position_of(bare.execute(POSITION).fetchone())
        except sqlite3.Error:
            return None

    def _uri(self, mode: str) -> str:
        return f"file:{quote(str(self.path))}?mode={mode}"


def _end(word: str) -> float:
    return float("inf") if word == "EOF" else int(word)


def _node(path: str) -> Node:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
