"""What ``migspawner doctor`` says about what keeps servers off slices that are not theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Any

from traitlets.config import Config
from traitlets.utils.importstring import import_item

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.doctor import systemd
from jupyterhub_migspawner.cli.doctor.findings import (
    OK,
    WARNING,
    WRONG,
    Finding,
    isolation_missing,
    isolation_off,
)
from jupyterhub_migspawner.model.leases import ACTIVE
from jupyterhub_migspawner.policy.isolation import BUBBLEWRAP, NONE
from jupyterhub_migspawner.policy.tiers import Tier
from jupyterhub_migspawner.policy.wording import listed, plural


def check(hub: Config) -> Iterator[Finding]:
    """Check what the hub's spawner does to isolate its servers, and whether that works here."""
    from jupyterhub_migspawner.spawner import MigSpawnerMixin
    from jupyterhub_migspawner.spawner.launchers.bubblewrap import (
        MEND,
        Bubblewrapped,
        as_nobody,
        problem,
    )

    try:
        spawner = _load(hub)
    except ImportError as error:
        yield Finding(
            "spawner",
            WRONG,
            f"JupyterHub.spawner_class is {hub.JupyterHub.spawner_class!r}, which cannot be "
            f"loaded: {error}",
            "Correct the name, or install the package into the hub's environment.",
        )
        return
    if spawner is None or not issubclass(spawner, MigSpawnerMixin):
        return  # another check reports a spawner without slices
    if hasattr(spawner, "unit_extra_properties"):
        yield from systemd.check(hub, spawner)
    if not issubclass(spawner, Bubblewrapped):
        return
    wanted = spawner(config=hub).isolation
    if wanted == NONE:
        yield isolation_off(spawner.__name__)
        return
    why = problem(as_nobody())
    if not why:
        yield Finding("isolation", OK, "Servers see their own slice only (bubblewrap).")
    else:
        yield isolation_missing(why, MEND, demanded=wanted == BUBBLEWRAP)


def limits(hub: Config, tiers: Sequence[Tier]) -> Iterator[Finding]:
    """Check whether the hub's spawner enforces the tiers' limits of CPU and main memory."""
    from jupyterhub_migspawner.spawner import MigSpawnerMixin

    spawner = spawner_class(hub)
    if spawner is None or not issubclass(spawner, MigSpawnerMixin):
        return
    limited = [tier.name for tier in tiers if tier.resources]
    if limited and not spawner._mig_enforces_limits:
        yield Finding(
            "limits",
            WARNING,
            f"{spawner.__name__} does not enforce 'cpus' and 'memory_gib', which "
            f"{listed(limited)} {'sets' if len(limited) == 1 else 'set'}: servers can use more.",
            "Start servers with a spawner that has units or containers, or leave these fields out.",
        )


def in_force(broker: Broker) -> Iterator[Finding]:
    """Check how the servers that run were launched."""
    running = [lease for lease in broker.leases.find() if lease.isolation]
    unknown = [
        lease for lease in broker.leases.find() if lease.state == ACTIVE and not lease.isolation
    ]
    if unknown:
        yield Finding(
            "isolation",
            WARNING,
            f"It is not known what isolates {plural(len(unknown), 'server')} with a GPU: "
            f"{'it was' if len(unknown) == 1 else 'they were'} adopted, or started by an earlier "
            "version, which isolated none.",
            "Isolation takes effect with their next start.",
        )
    bare = [lease for lease in running if lease.isolation == NONE]
    if bare:
        yield Finding(
            "isolation",
            WARNING,
            f"{plural(len(bare), 'server')} of {len(running)} with a GPU "
            f"{'runs' if len(bare) == 1 else 'run'} without isolation and can open the slices of "
            "others; 'migspawner slices --wide' shows which.",
            "They keep what they were launched with: isolation takes effect with their next start.",
        )


def spawner_class(hub: Config) -> Any:
    """Return the class that the hub starts servers with; None where it cannot be loaded."""
    try:
        return _load(hub)
    except ImportError:
        return None


def _load(hub: Config) -> Any:
    given = hub.JupyterHub.get("spawner_class", "")
    if not isinstance(given, str):
        return given
    for entry in entry_points(group="jupyterhub.spawners"):
        if entry.name.lower() == given.lower():
            return entry.load()
    return import_item(given) if given else None
