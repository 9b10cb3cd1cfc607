"""The simulated machine as a JSON file that several processes share.

Writers take a lock on a file beside it (``flock``), read, change and replace it in one rename, so
a reader needs no lock and never sees half a state, and a writer killed at any instruction leaves
the old state whole. It is not synced to disk: simulated cards need not outlive a power cut.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.simulator.schema import FORMAT, State
from jupyterhub_migspawner.gpu.simulator.tree import mirror


class StateFile:
    """Access to one state file, safe between threads and processes."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._descriptor = -1
        self._cached: State | None = None
        self._guard = threading.Lock()
        self.path = Path(path).absolute()

    def read(self) -> State:
        """Return the state as it stands.

        Treat it as read-only: it may be handed out again. Raises :exc:`.GpuError` when the file is
        missing, unreadable or not a state file.
        """
        with self._guard:
            try:
                if self._cached is not None and self._is_current():
                    return self._cached
                descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise self._unreadable(error) from error
            # The file stays open while its content is cached: its inode number cannot come back
            # with another file's content, so comparing numbers proves that nothing was replaced.
            self._forget()
            self._descriptor = descriptor
            try:
                with open(descriptor, "rb", closefd=False) as stream:
                    content = stream.read()
            except OSError as error:  # it is a folder
                raise self._unreadable(error) from error
            self._cached = self._parse(content)
            return self._cached

    @contextmanager
    def change(self) -> Iterator[State]:
        """Yield a copy of the state to change; written when the block ends well, else dropped.

        Raises :exc:`.GpuError` as :meth:`read` does, or when the file cannot be written.
        """
        with self._locked():
            try:
                content = self.path.read_bytes()
            except OSError as error:
                raise self._unreadable(error) from error
            state = self._parse(content)
            yield state
            self._replace(state)

    def create(self, state: State, *, overwrite: bool = False) -> None:
        """Write the first state.

        Raises :exc:`.GpuError` when the file exists already, or cannot be written.
        """
        with self._locked():
            if self.path.exists() and not overwrite:
                raise GpuError(
                    f"{self.path} exists already; remove it first or choose another file for the"
                    " simulated cards."
                )
            self._replace(state)

    # Held by the class: at the end of the interpreter modules are emptied before objects go.
    _close = staticmethod(os.close)

    def close(self) -> None:
        """Close what :meth:`read` holds open; reading again opens it again."""
        with self._guard:
            self._forget()

    def __del__(self) -> None:
        # Who opens a simulator for a moment and forgets it leaves no open file behind.
        self._forget()

    def _is_current(self) -> bool:
        now = os.stat(self.path)
        held = os.fstat(self._descriptor)
        return (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino)

    def _forget(self) -> None:
        if self._descriptor >= 0:
            self._close(self._descriptor)
        self._descriptor = -1
        self._cached = None

    def _parse(self, content: bytes) -> State:
        try:
            state = json.loads(content)
            known = (
                isinstance(state, dict)
                and state.get("format") == FORMAT
                and State.__required_keys__ <= state.keys()
            )
        except ValueError:
            known = False
        if not known:
            raise GpuError(
                f"{self.path} is not a state file of this version's simulated cards; create it"
                f" again with: migspawner simulator create {self.path}"
            )
        return cast(State, state)

    def _unreadable(self, error: OSError) -> GpuError:
        return GpuError(
            f"The simulated cards' file {self.path} cannot be read ({error.strerror}); create it"
            f" with: migspawner simulator create {self.path}"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.with_name(self.path.name + ".lock")
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise GpuError(
                f"The simulated cards' file {self.path} cannot be changed: {lock}:"
                f" {error.strerror}. Make its folder writable for this user.",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, state: State) -> None:
        """Write the state; the caller holds the lock, so one name for the new file is enough."""
        new = self.path.with_name(f".{self.path.name}.new")
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o644
        try:
            # The files follow before the state does: who sees an instance finds its files.
            if state["tree"] is not None:
                mirror(state, Path(state["tree"]))
            new.write_text(json.dumps(state, indent=1), encoding="utf-8")
            new.chmod(mode)
            os.replace(new, self.path)
        except OSError as error:
            raise GpuError(
                f"The simulated cards' file {self.path} cannot be written: {error.strerror}."
            ) from error
