"""One at a time on this machine: who cuts cards holds the node's cutting lock.

Agent and command line may want to cut at the same moment. The lock is a ``flock`` on a file
(flock(2)): it ends with the process that holds it, so a crash leaves nothing to clear away.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyterhub_migspawner import files
from jupyterhub_migspawner.errors import GpuError

PAUSE_SECONDS = 0.1

ALONE = b"alone\n"
"""What the lock's file says while its holder needs every other client of the driver gone."""


class CuttingLock:
    """The cutting lock of one node; None as ``directory`` is a lock that nobody else wants."""

    def __init__(
        self,
        directory: Path | None,
        node: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", node)
        self.path = None if directory is None else directory / f".migspawner-{name}.lock"
        self._sleep = sleep
        self._mine: int | None = None

    @contextmanager
    def taken(self, patience: float = 0.0) -> Iterator[bool]:
        """Hold the lock in the block; yield False when others still had it after ``patience``.

        ``patience`` is in seconds. Who holds it may take it again, inside. Raises :exc:`.GpuError`
        when the file cannot be opened.
        """
        if self.path is None or self._mine is not None:
            yield True
            return
        try:
            file = files.open_file(self.path)
        except OSError as error:
            raise GpuError(
                f"Cards cannot be cut: the lock {self.path} cannot be opened ({error.strerror}). "
                "Run this as the user that runs the hub."
            ) from error
        try:
            mine = self._wait(file, patience)
            if mine:
                os.ftruncate(file, 0)
                self._mine = file
            yield mine
        finally:
            self._mine = None
            os.close(file)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Ask all others, as holder of the lock, to let go of the driver during the block."""
        if self._mine is None:
            yield
            return
        os.pwrite(self._mine, ALONE, 0)
        try:
            yield
        finally:
            os.ftruncate(self._mine, 0)

    def must_let_go(self) -> bool:
        """Tell whether another process holds the lock now and needs the cards free of onlookers.

        Raises :exc:`.GpuError` when the file cannot be opened.
        """
        with self.taken() as mine:
            return not mine and self.path is not None and self.path.read_bytes() == ALONE

    def _wait(self, file: int, patience: float) -> bool:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if patience <= 0:
                    return False
                self._sleep(PAUSE_SECONDS)
                patience -= PAUSE_SECONDS
            else:
                return True
