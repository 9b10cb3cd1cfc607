"""What ``migspawner doctor`` says of slices that are not proven empty long after their session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from jupyterhub_migspawner.broker.leases import why_ending
from jupyterhub_migspawner.broker.statuses import SliceStatus
from jupyterhub_migspawner.cli.doctor.findings import WRONG, Finding


def findings(slices: Iterable[SliceStatus], now: datetime) -> Iterator[Finding]:
    """Find the leases that should have been proven empty by now."""
    for status in slices:
        for lease in status.leases:
            if lease.overdue(now):
                yield Finding("lease", WRONG, *why_ending(lease, status.row.quarantined))
