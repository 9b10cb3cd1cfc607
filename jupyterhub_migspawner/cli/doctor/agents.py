"""What ``migspawner doctor`` says about the nodes' agents."""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.doctor.findings import OK, WRONG, Finding


def check(broker: Broker, limit: float) -> Iterator[Finding]:
    """Check whether each agent has reported in the last ``limit`` seconds."""
    nodes = broker.nodes.find()
    if not nodes:
        yield Finding(
            "agent",
            WRONG,
            "No agent has reported its cards yet.",
            "Start the hub: its service 'migspawner' runs the agent. If the hub runs, look for "
            "messages of the service in its log.",
        )
    now = broker.now()
    for node in nodes:
        silent = (now - node.heartbeat_at).total_seconds()
        if silent <= limit:
            yield Finding("agent", OK, f"The agent of {node.name} reported {silent:.0f} s ago.")
        else:
            yield Finding(
                "agent",
                WRONG,
                f"The agent of {node.name} has been silent for {silent:.0f} seconds (limit "
                f"{limit}); no new leases start there.",
                "Check that the hub and its service 'migspawner' run on that machine.",
            )
