"""Sessions that have ended but whose slice is not proven empty: the sentences about them.

Such a lease counts against its holder like one that runs. Usually it is over within a second or
two; after :data:`jupyterhub_migspawner.model.leases.OVERDUE` something keeps it, and nobody should
wait for it or plan with its end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from jupyterhub_migspawner.model.leases import is_overdue
from jupyterhub_migspawner.policy.wording import moment, quoted

STUCK = timedelta(minutes=5)
"""Admins are notified of a slice that is not proven empty this long after its session ended. By
then the agent has tried to end what is left, and says what it could not end."""


@dataclass(frozen=True)
class Ending:
    """A session that has ended, on a slice that is not proven empty yet.

    ``tier`` is the tier's title, ``since`` the end of the session, ``waiting_for`` the agent's
    reason. ``whole`` says that it has a whole card, ``counts_as_server`` that a quota of servers
    counts it (the hub does not list its server any more, or it would be counted twice). ``offered``
    says that it was held for a ticket and no server ran on it.
    """

    server: str
    tier: str
    since: datetime
    waiting_for: str = ""
    whole: bool = False
    counts_as_server: bool = True
    offered: bool = False

    def overdue(self, now: datetime) -> bool:
        """Tell whether it ended so long ago that the proof will hardly come in a moment."""
        return is_overdue(self.since, now)


def is_stuck(since: datetime, now: datetime) -> bool:
    """Tell whether admins should be notified of a slice whose session ended ``since``."""
    return now - since >= STUCK


def cause(waiting_for: str) -> str:
    """Return why a slice is not proven empty, in words for its holder; no pids, no error codes."""
    if not waiting_for:
        return "its slice is still being checked"
    if re.search(r"\bstill\b|\bpid \d", waiting_for):
        return "a program is still running on its slice"
    return "it cannot be checked right now whether its slice is empty"


def in_words(endings: Sequence[Ending]) -> str:
    """Describe which earlier sessions of a person are still ending, since when, and what to do.

    The words are for that person. ``endings`` must not be empty; the one that has lasted longest is
    described.
    """
    first = min(endings, key=lambda each: each.since)
    server = f"server {quoted(first.server)}" if first.server else "default server"
    others = len(endings) - 1
    more = f" ({others} more {'is' if others == 1 else 'are'} also ending)" if others else ""
    what = f"Your {server} (tier {first.tier}) ended"
    if first.offered:
        what = f"What was held for your {server} (tier {first.tier}) was given back"
    return (
        f"{what} at {moment(first.since)}, but {cause(first.waiting_for)}{more}. It counts until "
        "its slice is proven empty. Remaining programs are ended automatically within about a "
        "minute: try again then. If this does not help, ask an admin of this hub to free the "
        "slice."
    )


def pids_in(waiting_for: str) -> tuple[int, ...]:
    """Return the processes that an agent's reason names, each once, in its order."""
    lists = re.findall(r"\b(?:pids?|process(?:es)?)[ :]+(\d+(?:, ?\d+)*)", waiting_for)
    found = (int(pid) for each in lists for pid in each.split(","))
    return tuple(dict.fromkeys(found))


def mend(waiting_for: str, node: str) -> str:
    """Return what an admin does about a slice not proven empty, from the agent's reason."""
    if "kill" in waiting_for:
        return f"Run that command on node {node}; the agent frees the slice within seconds."
    pids = " ".join(map(str, pids_in(waiting_for)))
    if pids:
        return (
            f"On node {node}, check whose processes these are (ps -fp {pids.replace(' ', ',')}) "
            f"and end them (kill -9 {pids}); the agent frees the slice within seconds."
        )
    return (
        f"Check on node {node} that the hub's service runs, which includes the agent, and that the "
        "driver answers (nvidia-smi); the agent frees the slice as soon as it can see that it is "
        "empty."
    )


def for_admins(
    *,
    lease_id: int,
    user: str,
    since: datetime,
    end_reason: str,
    waiting_for: str,
    node: str,
    quarantined: str = "",
) -> tuple[str, str]:
    """Return the notice to admins about a lease not proven empty: how it stands, and the way out.

    ``quarantined`` is the reason for which its slice is, if it is.
    """
    ended = f" ({end_reason.rstrip('.')})" if end_reason else ""
    why = waiting_for.rstrip(".") or "the agent has not checked it yet"
    shut = f" It is quarantined: {quarantined.rstrip('.')}." if quarantined else ""
    return (
        f"Lease {lease_id} of {user} already ended at {moment(since)}{ended}, but its slice is not "
        f"proven empty: {why}.{shut} Until it is, the slice is given to nobody else and counts "
        f"against {user}.",
        mend(f"{quarantined} {waiting_for}", node),
    )
