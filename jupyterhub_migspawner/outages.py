"""When repeated work that fails is worth a line in the log.

Relies on nothing. Promises that an outage is reported when it begins, when another error joins it,
and when it is over, and that work which fails only now and then, such as one round in five on a
full disk, is one outage and not many.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

STEADY_SECONDS = 60.0
"""How long work must not have failed before an outage is over."""

MOST_ERRORS = 10
"""Different errors of one outage that are reported."""

_NUMBER = re.compile(r"\d+")


class Outage:
    """Follows one piece of work; ``monotonic`` gives seconds, only ever compared with itself."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._reported: set[str] = set()
        self._failures = 0
        self._last = 0.0

    def failed(self, error: str) -> bool:
        """Note a failure; return whether it is new in this outage and so worth a line.

        Errors that differ in numbers alone, such as process ids, are the same.
        """
        self._failures += 1
        self._last = self._monotonic()
        kind = _NUMBER.sub("0", error)
        if kind in self._reported or len(self._reported) >= MOST_ERRORS:
            return False
        self._reported.add(kind)
        return True

    def worked(self) -> int:
        """Note a success; return how often the work failed in an outage that is over now, or 0."""
        if not self._failures or self._monotonic() - self._last < STEADY_SECONDS:
            return 0
        failures, self._failures = self._failures, 0
        self._reported.clear()
        return failures
