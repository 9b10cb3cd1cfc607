"""What ``migspawner doctor`` says about servers in units of systemd."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from traitlets.config import Config

from jupyterhub_migspawner.cli.doctor.findings import (
    OK,
    WARNING,
    WRONG,
    Finding,
    isolation_missing,
    isolation_off,
)
from jupyterhub_migspawner.errors import UnitError
from jupyterhub_migspawner.policy.isolation import NONE, SYSTEMD

OLDEST = 247
"""The first version with all properties of units that are used (``LoadCredential=``)."""

UNIFIED = Path("/sys/fs/cgroup/cgroup.controllers")
"""There only where all control groups are in one hierarchy (cgroups(7))."""


def check(hub: Config, spawner: Any) -> Iterator[Finding]:
    """Check systemd, the control groups, and what the hub's configuration says of units."""
    from jupyterhub_migspawner.spawner.launchers.units import MEND, problem

    why = problem() if os.geteuid() == 0 else ""
    if why:
        yield Finding("systemd", WRONG, f"{why} No server can start.", MEND)
        return
    version = systemd_version()
    if version is None or version < OLDEST:
        yield Finding(
            "systemd",
            WRONG,
            f"systemd is of version {version or 'unknown'}; {OLDEST} is needed.",
            "Upgrade this machine to a newer release of its distribution.",
        )
    elif not UNIFIED.exists():
        yield Finding(
            "systemd",
            WARNING,
            f"systemd {version} uses the control groups of older kernels, which newer versions do "
            "not support.",
            "Boot the kernel with the option systemd.unified_cgroup_hierarchy=1.",
        )
    else:
        yield Finding("systemd", OK, f"systemd {version}, one hierarchy of control groups.")
    yield from _isolation(hub, spawner)
    if not configured(hub, spawner, "disable_user_sudo"):
        yield Finding(
            "isolation",
            WARNING,
            f"{spawner.__name__}.disable_user_sudo is off: a user who can become root in a server "
            "can leave its unit, and open any slice.",
            "Set it to True; False is safe only where no user of a server can become root.",
        )
    if spawner.unit_name_template.default_value != configured(hub, spawner, "unit_name_template"):
        yield Finding(
            "systemd",
            WARNING,
            "unit_name_template is set and not used: each server has a unit of its own, named "
            "after hub, user and server.",
            "Remove it from the configuration.",
        )


def _isolation(hub: Config, spawner: Any) -> Iterator[Finding]:
    from jupyterhub_migspawner.spawner.launchers.units import MEND, rules_problem

    wanted = configured(hub, spawner, "isolation")
    if wanted == NONE:
        yield isolation_off(spawner.__name__)
        return
    if os.geteuid() != 0:
        yield Finding(
            "isolation",
            WARNING,
            "Only root can try whether device rules of units work.",
            "Run 'migspawner doctor' as root.",
        )
        return
    try:
        why = rules_problem()
    except UnitError as error:
        yield Finding("isolation", WRONG, f"{error} No server can start.", MEND)
        return
    if not why:
        yield Finding("isolation", OK, "Servers can open their own slice only (systemd).")
    else:
        yield isolation_missing(why, MEND, demanded=wanted == SYSTEMD)


def systemd_version() -> int | None:
    """Return the version of this machine's systemd; None where there is none."""
    try:
        said = subprocess.run(
            ["systemctl", "--version"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"systemd (\d+)", said)
    return int(found[1]) if found else None


def configured(hub: Config, spawner: Any, name: str) -> Any:
    """Return a trait of the hub's spawner as its configuration sets it, without making one."""
    for each in spawner.__mro__:
        if each.__name__ in hub and name in hub[each.__name__]:
            return hub[each.__name__][name]
    return spawner.class_traits()[name].default()
