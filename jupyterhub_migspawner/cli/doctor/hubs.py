"""What ``migspawner doctor`` says about the hubs, and what a restart of this one ends."""

from __future__ import annotations

from collections.abc import Iterator

from traitlets.config import Config

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, WRONG, Finding


def check(broker: Broker, name: str, home: str) -> Iterator[Finding]:
    """Check whether the hub of that name is at ``home``, and who else shares the database."""
    hubs = broker.hubs.find()
    mine = next((hub for hub in hubs if hub.name == name), None)
    if mine is not None and mine.home != home:
        yield Finding(
            "hub",
            WRONG,
            f"The lease database knows hub {name!r} at {mine.home}; this one is at {home}, and "
            "does not start as long as the other hub runs or has leases.",
            "Give this hub a different name, c.MigBroker.hub; or, if it is the same hub and has "
            "moved, run `migspawner db adopt` once.",
        )
    elif len(hubs) > 1:
        others = ", ".join(hub.name for hub in hubs if hub.name != name)
        yield Finding("hub", OK, f"Hub {name!r} shares its lease database with {others}.")


def survival(hub: Config) -> Iterator[Finding]:
    """Check whether notebooks outlive the hub; ``hub`` is JupyterHub's own configuration."""
    if "cleanup_servers" not in hub:
        yield Finding(
            "restart",
            WARNING,
            "Stopping the hub ends every notebook: c.JupyterHub.cleanup_servers is not set, and "
            "its default is True.",
            "Set c.JupyterHub.cleanup_servers = False, and KillMode=process in the hub's systemd "
            "unit; or set it to True if that is what you want.",
        )
    elif hub.cleanup_servers:
        yield Finding("restart", OK, "Stopping the hub ends every notebook, as configured.")
    else:
        yield Finding(
            "restart",
            OK,
            "Notebooks keep running when the hub stops, if its systemd unit has KillMode=process.",
        )
