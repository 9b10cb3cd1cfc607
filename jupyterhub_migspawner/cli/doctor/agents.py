"""What ``migspawner doctor`` says about the nodes' agents."""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.doctor.findings import OK, WRONG, Finding
from jupyterhub_migspawner.config import MigBroker

_ELSEWHERE = (
    "On each node run `migspawner agent`, for example as a systemd unit; `journalctl -u "
    "migspawner-agent` there shows its log."
)


def check(broker: Broker, mig: MigBroker) -> Iterator[Finding]:
    """Check whether each agent has reported lately."""
    nodes = broker.nodes.find()
    if not mig.agent:
        yield Finding(
            "agent",
            OK,
            "The hub's service runs no agent (c.MigBroker.agent is False): the nodes run theirs.",
        )
    if not nodes:
        yield Finding(
            "agent",
            WRONG,
            "No agent has reported its cards yet.",
            "Start the hub: its service 'migspawner' runs the agent. If the hub runs, look for "
            "messages of the service in its log."
            if mig.agent
            else _ELSEWHERE,
        )
    now = broker.now()
    for node in nodes:
        silent = (now - node.heartbeat_at).total_seconds()
        if silent <= mig.heartbeat_seconds:
            yield Finding("agent", OK, f"The agent of {node.name} reported {silent:.0f} s ago.")
        else:
            yield Finding(
                "agent",
                WRONG,
                f"The agent of {node.name} has been silent for {silent:.0f} seconds (limit "
                f"{mig.heartbeat_seconds}); no new leases start there.",
                "Check that the hub and its service 'migspawner' run on that machine."
                if mig.agent and node.name == mig.node
                else _ELSEWHERE,
            )
