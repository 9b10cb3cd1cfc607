"""What ``migspawner doctor`` says about sessions that admins should look at."""

from __future__ import annotations

from collections.abc import Iterator

from jupyterhub_migspawner.broker import Broker
from jupyterhub_migspawner.cli.doctor.findings import WARNING, Finding
from jupyterhub_migspawner.policy.wording import plural

MOST = 10
"""Sessions that are named; the others are counted."""


def check(broker: Broker) -> Iterator[Finding]:
    """Find sessions whose use is unknown for long, or claimed and not seen."""
    found = [each for each in broker.sessions.standings() if each.doubt is not None]
    for each in found[:MOST]:
        lease, doubt = each.lease, each.doubt
        assert doubt is not None
        server = f" (server {lease.server!r})" if lease.server else ""
        yield Finding(
            "session",
            WARNING,
            f"Session {lease.id} of {lease.user}{server}: {doubt.why}.",
            "It is not ended for this. Ask its user, or end it with "
            f"`migspawner leases release {lease.id}`; `migspawner sessions` shows all of them.",
        )
    if len(found) > MOST:
        more = plural(len(found) - MOST, "more session")
        yield Finding("session", WARNING, f"{more} to look at.", "See `migspawner sessions`.")
