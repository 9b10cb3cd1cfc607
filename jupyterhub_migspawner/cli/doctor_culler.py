"""The doctor's look for whatever else ends idle servers, which does not see work on a GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator

from traitlets.config import Config

from jupyterhub_migspawner.cli.findings import OK, WARNING, Finding
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import listed

_CULLER = re.compile(r"jupyterhub[-_]idle[-_]culler|cull_idle_servers")
_OWN = re.compile(r"cull_idle_timeout|shutdown_no_activity_timeout")


def check(tiers: tuple[Tier, ...], config: Config) -> Iterator[Finding]:
    """What was found about idle servers; nothing where no tier ends them."""
    ours = [tier.name for tier in tiers if tier.idle_minutes is not None]
    others = cullers(config)
    if ours and others:
        yield Finding(
            "culler",
            WARNING,
            f"Idle servers are ended by {listed(others)}, too, which does not see work on a GPU. "
            "The hub is told of such work, so that its own culler lets it alone; a server that "
            "ends itself does not ask the hub.",
            "Let one of them do it: remove the other, or idle_minutes from the tiers.",
        )
    elif ours:
        yield Finding("culler", OK, f"Idle sessions of {listed(ours)} end; nothing else ends them.")


def cullers(config: Config) -> list[str]:
    """What ends idle servers or kernels besides, as the hub's configuration calls it."""
    found = []
    services = config.JupyterHub.get("services", [])
    for entry in services if isinstance(services, (list, tuple)) else ():
        if isinstance(entry, dict) and _speaks_of(_CULLER, entry.get("command")):
            found.append(f"the service {entry.get('name', 'without a name')!r}")
    for name in ("args", "cmd"):
        if _speaks_of(_OWN, config.Spawner.get(name)):
            found.append(f"c.Spawner.{name}")
    return found


def _speaks_of(pattern: re.Pattern[str], words: object) -> bool:
    if isinstance(words, str):
        words = [words]
    return isinstance(words, (list, tuple)) and any(pattern.search(str(word)) for word in words)
