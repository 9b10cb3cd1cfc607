"""Commands of the admin that run before and after cards are cut.

Monitoring that holds a card open keeps it from being cut: a hook stops it before, another starts it
again after. Relies on the admin's commands to be quick; promises that one which fails or takes too
long stops the cut before anything was changed, with its last words in the report, and that the
commands for afterwards run whenever one for before was started, and are reported when they fail.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from jupyterhub_migspawner.errors import GpuError
from jupyterhub_migspawner.policy.commands import Command

_SECRET = re.compile(r"JUPYTERHUB_|JPY_|CONFIGPROXY_|PGPASS(WORD|FILE)$")

#: As much of what a hook wrote as its report shows, from the end.
LAST_WORDS = 400


@dataclass(frozen=True)
class Hooks:
    """The commands, in order, and the seconds each may take."""

    before: tuple[Command, ...] = ()
    after: tuple[Command, ...] = ()
    seconds: float = 60.0

    @contextmanager
    def around(
        self,
        about: Mapping[str, str],
        report: Callable[[str, str], None],
        complain: Callable[[str], None] = lambda sentence: None,
    ) -> Iterator[None]:
        """Run the block between the commands; ``about`` is added to their environment.

        ``report`` is called with each command and what went wrong with it, or ``""``. Raises
        :exc:`.GpuError` when a command for before fails: the block does not run. One for after that
        fails raises nothing, for the cards are cut by then: ``complain`` is called with a sentence.
        """
        try:
            for command in self.before:
                problem = run(command, self.seconds, about)
                report(shlex.join(command), problem)
                if problem:
                    raise GpuError(
                        f"The command `{shlex.join(command)}`, to be run before cards are cut, "
                        f"{problem} Nothing was cut. Fix it or remove it from MigBroker.before_cut."
                    )
            yield
        finally:
            for command in self.after:
                problem = run(command, self.seconds, about)
                report(shlex.join(command), problem)
                if problem:
                    complain(
                        f"The command `{shlex.join(command)}`, to be run after cards are cut, "
                        f"{problem} Do by hand what it should have done, and fix it or remove it "
                        "from MigBroker.after_cut."
                    )


def run(command: Sequence[str], seconds: float, about: Mapping[str, str]) -> str:
    """Run one command to its end; return ``""`` when it did well, else what went wrong.

    ``seconds`` is how long it may take.
    """
    # A file and not a pipe: what the command leaves in the background may keep a pipe open.
    with tempfile.TemporaryFile() as words:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=subprocess.STDOUT,
                env=environment(about),
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot be run: {error.strerror}."
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"did not end within {seconds:g} seconds and was killed.{_said(words)}"
        if status == 0:
            return ""
        ended = f"exit status {status}" if status > 0 else f"signal {-status}"
        return f"failed with {ended}.{_said(words)}"


def environment(about: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without its secrets, and ``about``.

    The agent runs in the hub's service: the service's token opens the hub, PostgreSQL's password
    the lease database, and a command around a cut needs neither.
    """
    own = {name: value for name, value in os.environ.items() if not _SECRET.match(name)}
    return {**own, **about}


def _said(words: IO[bytes]) -> str:
    size = words.seek(0, os.SEEK_END)
    words.seek(max(0, size - LAST_WORDS))
    text = " ".join(words.read().decode("utf-8", "replace").split())
    return f" It said: {text!r}." if text else ""
