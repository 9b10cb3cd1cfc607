"""The log of the service and the agents: lines like the hub's, and a bounded number of some.

Relies on logging and tornado's formatter. Promises that lines about requests, connections and bad
HTTP, which anyone who can connect may cause as often as they like, are written a few times and then
counted; and that text from people steers no terminal and forges no line.
"""

from __future__ import annotations

import copy
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tornado.log import LogFormatter

from jupyterhub_migspawner.policy.wording import printable

OUTSIDERS = ("migspawner.service.requests", "tornado", "asyncio", "aiohttp")
"""Loggers, with those below them, whose lines outsiders can cause."""

BURST = 30
"""Lines of one kind that are written one after the other."""

SECONDS_PER_LINE = 2.0
"""Seconds after which one more line of a kind is written."""

MOST_KINDS = 200
"""Kinds of lines that are told apart; all others are one more kind."""


@dataclass
class _Kind:
    left: float
    at: float
    withheld: int = 0


class Bounded(logging.Filter):
    """Withholds a line when there were many of its kind; the next one says how many."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is to be written."""
        if not any(record.name == each or record.name.startswith(f"{each}.") for each in OUTSIDERS):
            return True
        key = (record.name, str(record.msg)[:100])
        if key not in self._kinds and len(self._kinds) >= MOST_KINDS:
            key = ("", "")
        now = self._monotonic()
        kind = self._kinds.setdefault(key, _Kind(BURST, now))
        kind.left = min(BURST, kind.left + (now - kind.at) / SECONDS_PER_LINE)
        kind.at = now
        if kind.left < 1:
            kind.withheld += 1
            return False
        kind.left -= 1
        if kind.withheld:
            record.msg = f"{record.getMessage()} ({kind.withheld} more of this kind before)"
            record.args = ()
            kind.withheld = 0
        return True


class PrintableFormatter(LogFormatter):
    """Like the hub's lines; what does not print is written as its escape.

    Lines after the first, such as those of a traceback, are indented.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        cleaned = copy.copy(record)
        cleaned.msg = "\n".join(printable(line) for line in record.getMessage().split("\n"))
        cleaned.args = None
        return str(super().format(cleaned))

    def formatException(self, ei: Any) -> str:
        """Format a traceback, in whose last lines there may be text from people."""
        return "\n".join(printable(line) for line in super().formatException(ei).split("\n"))


def set_up_log() -> None:
    """Log lines like the hub's, among which they stand."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        PrintableFormatter(
            fmt="%(color)s[%(levelname)1.1s %(asctime)s.%(msecs).03d %(name)s]%(end_color)s "
            "%(message)s",
            datefmt="%Y-%m-%d %H:%M:%S",
            color=sys.stderr.isatty(),
        )
    )
    handler.addFilter(Bounded())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # The hub's library reports every cookie it sets.
    logging.getLogger("tornado.application").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
