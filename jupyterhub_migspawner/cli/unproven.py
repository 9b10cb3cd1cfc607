"""What listings say below their table of slices that are not proven empty."""

from __future__ import annotations

from collections.abc import Iterable

from jupyterhub_migspawner.broker.leases import why_ending
from jupyterhub_migspawner.broker.statuses import SliceStatus
from jupyterhub_migspawner.cli.output import print_line, print_wrapped


def print_unproven(slices: Iterable[SliceStatus], user: str | None = None) -> None:
    """Print for each lease that has ended since when, what keeps its slice, and the way out."""
    for status in slices:
        for lease in status.leases:
            if lease.ending and user in (None, lease.user):
                stands, mend = why_ending(lease, status.row.quarantined)
                print_line("")
                print_wrapped(stands)
                print_wrapped(mend, first="  ", indent="  ")
