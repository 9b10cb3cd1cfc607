"""The doctor's look for whatever else ends idle servers, which does not see work on a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, Finding
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import listed

_CULLER = re.compile(r"jupyterhub[-_]idle[-_]culler|cull_idle_servers")
_ENDS = frozenset({"delete:servers", "servers", "admin:servers"})
_SEES = frozenset({"read:users:activity", "read:users", "users", "admin:users"})
_OWN = re.compile(
    # Zero switches each of them off.
    r"(cull_idle_timeout|cull_inactive_timeout|shutdown_no_activity_timeout)(?!\s*=\s*0+\s*$)"
)

_TIMEOUT = re.compile(r"--(?:IdleCuller\.)?timeout[=\s]+[\x22']?(\d{1,9})(?![\w.])")

TOLD = 600
"""Seconds within which the hub has got a report of use, in which a round or two may have failed;
what jupyterhub-idle-culler waits unless it is told otherwise (its ``timeout``)."""

PATIENT = 900
"""Seconds without use that a culler had better wait."""


def check(
    tiers: tuple[Tier, ...], config: Config, examine_seconds: float = 60.0
) -> Iterator[Finding]:
    """Check what else ends idle servers; find nothing where no tier ends them."""
    ours = [tier.name for tier in tiers if tier.idle_minutes is not None]
    others = cullers(config)
    if ours and others:
        yield Finding(
            "culler",
            WARNING,
            f"Idle servers are also ended by {listed(others)}, which does not see work on a GPU. "
            "Such work is reported to the hub, so that its own culler does not end it; a server "
            "that ends itself does not ask the hub." + _hasty(config, examine_seconds),
            "Use only one of them: remove the other, or remove idle_minutes from the tiers.",
        )
    elif ours:
        yield Finding(
            "culler",
            OK,
            f"Idle sessions of {listed(ours)} end; nothing else in this file ends them.",
        )


def impatient(tiers: tuple[Tier, ...], examine_seconds: float) -> Iterator[Finding]:
    """Find tiers whose sessions are looked at too seldom for what they may be idle."""
    least = 6 * examine_seconds / 60
    for tier in tiers:
        minutes = [
            at for at in (tier.idle_minutes, tier.idle_minutes_when_wanted) if at is not None
        ]
        if minutes and min(minutes) < least:
            yield Finding(
                "culler",
                WARNING,
                f"Tier {tier.name!r} lets sessions be idle for {_minutes(min(minutes))}, and "
                f"they are checked every {examine_seconds:g} seconds: without an answer for half "
                "of that time their use is unknown, so some may never end.",
                f"Set c.MigBroker.examine_seconds to {min(minutes) * 10:g} or less, or give them "
                f"{_minutes(least)}.",
            )


def _minutes(value: float) -> str:
    return f"{value:g} minute{'' if value == 1 else 's'}"


def forgotten(tiers: tuple[Tier, ...], leases: Iterable[LeaseRow]) -> Iterator[Finding]:
    """Find sessions whose tier the configuration does not have any more."""
    known = {tier.name for tier in tiers}
    names = sorted({lease.tier for lease in leases if lease.tier not in known})
    if names:
        yield Finding(
            "culler",
            WARNING,
            f"Sessions run in {listed(repr(name) for name in names)}, which is no longer a tier: "
            "nothing ends them for being idle.",
            "Restore the tier until they have ended, or end them: migspawner leases release.",
        )


def cullers(config: Config) -> list[str]:
    """Return what ends idle servers or kernels besides, as the hub's configuration calls it."""
    found = []
    for entry in _listed(config.JupyterHub, "services"):
        if isinstance(entry, dict) and _speaks_of(_CULLER, entry.get("command")):
            found.append(f"the service {entry.get('name', 'without a name')!r}")
    known = {"migspawner", *(name.split("'")[1] for name in found if "'" in name)}
    for role in _listed(config.JupyterHub, "load_roles"):
        # An external one is known by its rights alone: nobody else needs both.
        if isinstance(role, dict) and _may_cull({str(each) for each in role.get("scopes") or ()}):
            others = {str(each) for each in role.get("services") or ()} - known
            found += [f"perhaps the service {name!r}" for name in sorted(others)]
    for section in sorted(name for name in config if name.endswith("Spawner")):
        for name in ("args", "cmd"):
            if _speaks_of(_OWN, _listed(config[section], name)):
                found.append(f"c.{section}.{name}")
    return list(dict.fromkeys(found))


def _hasty(config: Config, examine_seconds: float) -> str:
    """Return the warning about cullers that do not wait for the next report to the hub.

    That comes once in a look, at most.
    """
    said, least = "", max(TOLD, 3 * examine_seconds)
    for entry in _listed(config.JupyterHub, "services"):
        if not isinstance(entry, dict) or not _speaks_of(_CULLER, entry.get("command")):
            continue
        command = entry["command"]
        found = _TIMEOUT.search(
            command if isinstance(command, str) else " ".join(map(str, command))
        )
        seconds = int(found[1]) if found else TOLD
        if seconds < least:
            said += (
                f" {entry.get('name', 'One')!r} ends work even so: it waits {seconds} seconds, and "
                f"use is reported to the hub every {max(300, examine_seconds):g}; "
                f"give it --timeout={max(PATIENT, least):g} or more."
            )
    return said


def _may_cull(scopes: set[str]) -> bool:
    return bool(scopes & _ENDS) and bool(scopes & _SEES)


def _listed(section: Config, name: str) -> list[object]:
    """Return a list of the configuration file, also one that was only appended to."""
    value = section.get(name)
    if isinstance(value, LazyConfigValue):
        value = value.get_value([])
    if isinstance(value, str):
        return [value]
    return list(value) if isinstance(value, (list, tuple)) else []


def _speaks_of(pattern: re.Pattern[str], words: object) -> bool:
    if isinstance(words, str):
        words = [words]
    return isinstance(words, (list, tuple)) and any(pattern.search(str(word)) for word in words)
