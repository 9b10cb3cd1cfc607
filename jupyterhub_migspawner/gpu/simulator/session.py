"""What one loaded library keeps in its process, and whom the driver counts as its client."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.gpu.simulator.cutting import Fault
from jupyterhub_migspawner.gpu.simulator.processes import living, start_time
from jupyterhub_migspawner.gpu.simulator.schema import HolderState, State
from jupyterhub_migspawner.gpu.simulator.state import StateFile
from jupyterhub_migspawner.model.codes import Code


@dataclass
class EventSet:
    """Registrations of one event set: card UUID to event types, and the last event delivered."""

    types: dict[str, int] = field(default_factory=dict)
    delivered: int = 0


@dataclass(frozen=True)
class Sample:
    """How much a GPU instance was used, in per cent, when it was sampled."""

    card: str
    gi_id: int
    used: float


@dataclass
class Session:
    """What one loaded library keeps in its process: how often initialised, and MIG handles.

    ``mig`` maps a card's UUID to the slices by handle index. A destroyed slice leaves a hole, the
    next new one takes the first hole: so a stale handle may come to mean another slice.
    """

    file: StateFile
    initialised: int = 0
    boot: int = -1
    mig: dict[str, list[tuple[int, int] | None]] = field(default_factory=dict)
    event_sets: dict[int, EventSet] = field(default_factory=dict)
    samples: dict[int, Sample | None] = field(default_factory=dict)

    def state(self) -> State:
        """Return the machine as it stands.

        A session from before a reboot or reset is uninitialised.
        """
        state = self.file.read()
        if not self.initialised or state["boot"] != self.boot:
            raise Fault(Code.UNINITIALIZED)
        return state


def require_privilege(state: State) -> None:
    """Refuse what only a privileged process may do."""
    allowed = state["switches"]["privileged"]
    if allowed == "nobody" or (allowed == "root" and os.geteuid() != 0):
        raise Fault(Code.NO_PERMISSION)


def enter(session: Session) -> None:
    """Count an initialisation; the first one notes this process as a client of the driver."""
    state = session.file.read()
    if session.initialised and state["boot"] == session.boot:
        session.initialised += 1
        return
    try:
        started = start_time(os.getpid()) or 0
    except OSError:
        raise Fault(Code.OPERATING_SYSTEM) from None
    me = HolderState(pid=os.getpid(), started=started, gi_id=None)
    try:
        with session.file.change() as changed:
            changed["clients"] = [*living(changed["clients"]), me]
            session.boot = changed["boot"]
    except GpuError:
        # A reader that may not write the file: it sees the cards, and is just not counted.
        session.boot = state["boot"]
    session.initialised = 1
    session.mig.clear()
    session.event_sets.clear()
    session.samples.clear()


def leave(session: Session) -> None:
    """Undo one initialisation; the last one frees the driver of this process."""
    if not session.initialised:
        raise Fault(Code.UNINITIALIZED)
    session.initialised -= 1
    if session.initialised:
        return
    try:
        with session.file.change() as state:
            mine = [each for each in state["clients"] if each["pid"] == os.getpid()]
            if mine:
                state["clients"].remove(mine[0])
    except GpuError:
        pass  # the file is gone or not ours to write: then nothing is noted in it either
    session.file.close()
