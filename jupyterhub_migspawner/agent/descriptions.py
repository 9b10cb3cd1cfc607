"""Processes in words: program, user and start, for sentences that people read."""

from __future__ import annotations

import pwd
import re
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path

from jupyterhub_migspawner.agent.processes import (
    PROC,
    TICKS,
    Facts,
    Process,
    Unreadable,
    boot_time,
    read_facts,
    uids_of,
)
from jupyterhub_migspawner.policy.wording import moment

#: What may stand in a sentence that an admin reads and copies a command from.
_ODD = re.compile(r"[^\w.+:/@-]+", re.ASCII)


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return the name of a system user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return str(uid)


def describe(process: Process, proc: Path = PROC) -> str:
    """Describe a process as an admin needs it: pid, user, program, and since when it runs."""
    entry = proc / str(process.pid)
    try:
        facts, uids = read_facts(entry), uids_of(entry)
    except Unreadable:
        return f"process {process.pid}"
    if facts is None or uids is None or facts.process != process:
        return f"process {process.pid}"
    users = "/".join(_ODD.sub("?", user_name(uid)) for uid in sorted(uids))
    since = _begun(facts, proc)
    program = _ODD.sub("?", facts.program)[:40] or "?"
    return f"process {process.pid} ({program}, user {users}{since})"


def _begun(facts: Facts, proc: Path) -> str:
    boot = boot_time(proc)
    if boot is None:
        return ""
    at = datetime.fromtimestamp(boot + facts.process.started / TICKS, timezone.utc)
    return f", since {moment(at)}"
