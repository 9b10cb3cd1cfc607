"""Units of systemd, by its own commands: start one, say how it is, stop it.

Relies on ``systemd-run`` and ``systemctl``. Promises that no secret is in an argument or in a
property of a unit, which every user can read, and that an answer that did not come is told apart
from one that says that a unit has ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_migspawner import files
from jupyterhub_migspawner.errors import UnitError
from jupyterhub_migspawner.gpu.devices import DeviceNode
from jupyterhub_migspawner.policy.units import SUFFIX

BOOTED = Path("/run/systemd/system")
"""There only where systemd is the first process of the machine (sd_booted(3))."""

ENVIRONMENTS = Path("/run/jupyterhub-migspawner")
"""Holds servers' environments, for root alone."""

MEND = (
    "Run the hub as root on a machine that systemd has booted, in a unit of its own, and not in a "
    "container."
)
"""What an admin does where systemd cannot be used."""

Properties = Mapping[str, str | Sequence[str]]
"""Properties of a unit; one with several values is set several times."""

# An answer of systemd takes milliseconds. What takes this long does not come.
_PATIENCE = 20.0

# So long may a unit take to end, beyond the time that systemd gives its processes.
_STOP_SECONDS = 150.0

_ENDED = ("inactive", "failed")

_SHOWN = "LoadState,ActiveState,MainPID,ExecMainStatus"

# One of these is there on any machine, and none is among the devices that every unit may open.
_ELSEWHERE = ("/dev/nvidiactl", "/dev/kmsg", "/dev/fuse", "/dev/loop-control", "/dev/mem")

# Whether the kernel is known to enforce units' device rules, which does not change.
_rules_work = False


@dataclass(frozen=True)
class UnitState:
    """How a unit is. ``pid`` is its main process, 0 for none; ``status`` that one's exit status."""

    active: str
    pid: int = 0
    status: int = 0

    @property
    def running(self) -> bool:
        """Whether it runs, or is about to start or to end."""
        return self.active not in _ENDED


def device_rules(nodes: Sequence[DeviceNode]) -> dict[str, str | Sequence[str]]:
    """Return the properties that let a unit open these nodes and no others.

    ``closed`` leaves it ``/dev/null``, ``zero``, ``full``, ``random``, ``urandom`` and terminals
    (systemd.resource-control(5)). systemd reads a node's numbers when the unit starts and when it
    reloads, so the nodes have to exist as long as the unit does.
    """
    return {
        "DevicePolicy": "closed",
        "DeviceAllow": [f"{node.path} {node.access}" for node in nodes],
    }


def credentials_folder(unit: str) -> str:
    """Return where a unit's program finds what ``LoadCredential=`` gives it (systemd.exec(5)).

    Its user can read the files there, and no other user.
    """
    return f"/run/credentials/{unit}{SUFFIX}"


def run_arguments(
    unit: str, command: Sequence[str], properties: Properties, *options: str
) -> list[str]:
    """Return the command line that starts ``command`` as a unit with these properties."""
    arguments = ["systemd-run", f"--unit={unit}{SUFFIX}", *options]
    for name, value in properties.items():
        values = [value] if isinstance(value, str) else value
        arguments += [f"--property={name}={each}" for each in values]
    # systemd expands variables in a unit's command line (systemd.service(5)).
    return [*arguments, "--", *(each.replace("$", "$$") for each in command)]


def environment_text(environment: Mapping[str, str]) -> str:
    """Return an environment in the format of ``EnvironmentFile=`` (systemd.exec(5)).

    Raises :exc:`.UnitError` for what systemd would leave out without an error.
    """
    lines = []
    for name, value in sorted(environment.items()):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UnitError(f"systemd takes no variable of the name {name!r}.")
        text = str(value)
        if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text) or not _is_utf8(text):
            raise UnitError(
                f"The value of the variable {name} has characters that systemd does not take."
            )
        quoted = re.sub(r'([\\"$`])', r"\\\1", text)
        lines.append(f'{name}="{quoted}"\n')
    return "".join(lines)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class Unit:
    """A service unit, which may exist or not. ``name`` is without ``.service``."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def environment_file(self) -> Path:
        """Where the environment of its server is while it runs."""
        # Of a fixed length: the unit's name is as long as a file's may be.
        return ENVIRONMENTS / f"{hashlib.sha256(self.name.encode()).hexdigest()[:32]}.env"

    async def state(self) -> UnitState:
        """Return how it is.

        Raises :exc:`.UnitError` when systemd does not say.
        """
        status, out, error = await _ask(
            _PATIENCE, "systemctl", "show", f"--property={_SHOWN}", "--", self.name + SUFFIX
        )
        found = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        if status or not found.get("ActiveState"):
            raise UnitError(f"systemd does not say how {self.name}{SUFFIX} is: {error}")
        try:
            pid, exit_status = int(found["MainPID"]), int(found["ExecMainStatus"])
        except (KeyError, ValueError):  # no service is loaded under that name
            pid, exit_status = 0, 0
        return UnitState(found["ActiveState"], pid, exit_status)

    async def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        properties: Properties,
        *options: str,
    ) -> None:
        """Start a command in it, with this environment, and wait until the program runs.

        Raises :exc:`.UnitError`.
        """
        file = self.environment_file
        try:
            files.make_folder(file.parent)
            files.replace(file, environment_text(environment))
        except OSError as error:
            raise UnitError(f"{file} cannot be written: {error.strerror}.") from error
        arguments = run_arguments(
            self.name, command, {**properties, "EnvironmentFile": str(file)}, *options
        )
        # No limit of our own: the hub limits how long a start may take.
        status, _, why = await _ask(None, *arguments)
        if status:
            self.forget()
            raise UnitError(f"systemd could not start {self.name}{SUFFIX}: {why}")

    async def stop(self, *, now: bool = False) -> None:
        """End all its processes, and wait until systemd has done that.

        They get SIGTERM, and SIGKILL after the unit's ``TimeoutStopSec=``; with ``now`` SIGKILL.

        Raises :exc:`.UnitError` if it may still run.
        """
        unit = self.name + SUFFIX
        if now:
            await _ask(_PATIENCE, "systemctl", "kill", "--signal=SIGKILL", "--", unit)
        _, _, error = await _ask(_STOP_SECONDS, "systemctl", "stop", "--", unit)
        if (await self.state()).running:
            raise UnitError(f"systemd could not stop {unit}: {error}")
        self.forget()
        # A unit that failed would keep its name.
        await _ask(_PATIENCE, "systemctl", "reset-failed", "--", unit)

    def forget(self) -> None:
        """Discard the environment of a server that has ended."""
        with suppress(OSError):
            self.environment_file.unlink()


async def _ask(patience: float | None, *command: str) -> tuple[int, str, str]:
    """Run one of systemd's commands; return its exit status, its output and its errors.

    The status is not 0 either when the command cannot be run or does not end within ``patience``
    seconds (None: without limit).
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
            start_new_session=True,  # Ctrl-C at the hub is not for it
        )
    except OSError as error:
        return 127, "", f"{command[0]} cannot be run: {error.strerror}."
    try:
        out, err = await asyncio.wait_for(process.communicate(), patience)
    except asyncio.TimeoutError:
        return 124, "", f"{command[0]} has not answered within {patience:.0f} seconds."
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
    return process.returncode or 0, out.decode(errors="replace"), _words(err)


def _words(output: bytes) -> str:
    text = " ".join(output.decode(errors="replace").split())
    return text[-500:] or "it does not say why."


def problem() -> str:
    """Return why servers cannot run in units here, in a sentence; empty when they can."""
    if not BOOTED.is_dir():
        return "systemd is not the first process of this machine."
    for program in ("systemctl", "systemd-run"):
        if shutil.which(program) is None:
            return f"{program} is not installed."
    if os.geteuid() != 0:
        return "Only root can start units of other users."
    return ""


def rules_problem() -> str:
    """Return why the device rules of units have no effect here; empty when they have.

    This is tried: in some containers systemd accepts device rules that the kernel never gets. Where
    there is no device to try it with, there is no card either.
    Raises :exc:`.UnitError` when it cannot be tried.
    """
    global _rules_work
    there = next((path for path in _ELSEWHERE if os.path.exists(path)), None)
    if _rules_work or there is None:
        return ""
    try:
        done = subprocess.run(
            run_arguments(
                f"migspawner--probe-{os.getpid()}-{threading.get_ident()}",
                ["/bin/sh", "-c", f": < {there}"],
                device_rules(()),
                *("--wait", "--pipe", "--collect"),
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnitError(f"No unit can be started: {error}.") from error
    if f"{there}: Operation not permitted".encode() in done.stderr:
        _rules_work = True
        return ""
    if done.returncode and there.encode() not in done.stderr:
        raise UnitError(f"No unit can be started: {_words(done.stderr)}")
    return f"A unit with 'DevicePolicy=closed' can open {there} here: device rules have no effect."
