"""What ``migspawner doctor`` says about the clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.broker.clock import length
from jupyterhub_migspawner.cli.doctor.findings import OK, WARNING, Finding
from jupyterhub_migspawner.model.events import EventQuery
from jupyterhub_migspawner.policy.clock import NOTABLE, TOLERANCE
from jupyterhub_migspawner.policy.wording import moment

LATELY = timedelta(days=7)
"""How long a step of the clock is shown."""

_MEND = (
    "Check that the machine's clock is synchronised: one of chrony, ntpd and systemd-timesyncd "
    "should run, and `timedatectl` shows the state. Check grants with a fixed date: they moved "
    "with the clock."
)


def check(broker: Broker) -> Iterator[Finding]:
    """Check whether the clock is what leases go by, and whether it was set in the last days."""
    # The log's order is that of its ids: after a step, times are no help to find the latest.
    query = EventQuery(kinds=("clock.stepped",))
    # A node's role does not read events.
    steps = () if broker.store.node else broker.events.last(20, query).events
    now = broker.now()
    away = broker.clock.difference()
    if away:
        how = "ahead of" if away > timedelta(0) else "behind"
        yield Finding(
            "clock",
            WARNING,
            f"This machine's clock is {length(away)} {how} the time that leases use: it was set, "
            "and the service has not checked since.",
            f"Start the hub: its service moves the times of live leases with it. {_MEND}",
        )
    recent = [
        event
        for event in steps
        if abs(event.detail["seconds"]) >= NOTABLE.total_seconds() and now - event.at < LATELY
    ]
    for event in recent[-3:]:
        yield Finding("clock", WARNING, f"{moment(event.at)}: {event.detail['why']}.", _MEND)
    apart = [
        node
        for node in broker.nodes.find()
        if node.clock_ahead is not None and abs(node.clock_ahead) >= TOLERANCE.total_seconds()
    ]
    for node in apart:
        by = length(timedelta(seconds=node.clock_ahead or 0.0))
        how = "ahead of" if (node.clock_ahead or 0.0) > 0 else "behind"
        yield Finding(
            "clock",
            WARNING,
            f"The clock of node {node.name} is {by} {how} the database server's. Leases go by "
            "that; only logs on the node show other times.",
            "Synchronise both clocks: `timedatectl` shows the state.",
        )
    if not away and not recent and not apart:
        yield Finding("clock", OK, "The clock was not set in the last 7 days.")
