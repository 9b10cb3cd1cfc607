"""How fast one person may write: so many actions in a burst, and as many in each minute.

What has been done counts for less and less, evenly, and for nothing after a minute. So a burst is
served at once, and a user who goes on writes as fast as that and no faster.
"""

from __future__ import annotations

import math
from datetime import datetime

MINUTE = 60.0


def level_after(level: float, at: datetime, now: datetime, per_minute: int) -> float:
    """Return how many actions count at ``now``, of which ``level`` did at ``at``.

    A clock that was set back lets nothing count for longer: it counts as if it were that moment.
    """
    gone = max(0.0, (now - at).total_seconds())
    return max(0.0, min(level, float(per_minute)) - gone * per_minute / MINUTE)


def seconds_to_wait(level: float, per_minute: int) -> int:
    """Return the seconds until one more action is allowed; 0 where it is now."""
    over = level + 1 - per_minute
    return 0 if over <= 0 else math.ceil(over * MINUTE / per_minute)
