"""How decisions put things into sentences.

Refusals and configuration errors quote text that came from a person or a file. Such text is shown
with :func:`quoted`, which makes control characters visible and bounds the length, so that a
sentence stays one readable line whatever was sent. Escaping for HTML is done by the renderer.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

QUOTED_LIMIT = 60
"""Most characters of foreign text that appear in a sentence."""


class _Brief(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write thousands of decimal digits.
        return super().repr_int(x, level) if x.bit_length() < 10_000 else hex(x)


_brief = _Brief()
_brief.maxother = _brief.maxstring = QUOTED_LIMIT


def quoted(value: object) -> str:
    """Return ``repr`` of a value that came from outside, cut to :data:`QUOTED_LIMIT` characters."""
    # What is shown of it is found without writing all of it out: it may be a megabyte.
    is_text = isinstance(value, (str, bytes))
    text = repr(value[:QUOTED_LIMIT]) if is_text else _brief.repr(value)  # type: ignore[index]
    return text if len(text) <= QUOTED_LIMIT else text[: QUOTED_LIMIT - 2] + "…" + text[-1]


def printable(text: str) -> str:
    """Return ``text`` with every character that does not print written as its escape.

    That is what could steer a terminal, begin another line or turn the direction of writing.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def listed(words: Iterable[str], joiner: str = "and") -> str:
    """Join words as a sentence lists them: ``a``, ``a and b``, ``a, b and c``."""
    items = list(words)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {joiner} {items[-1]}"


def nearest(word: object, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the most similar known word, or an empty string."""
    if not isinstance(word, str) or len(word) > 200:
        return ""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def moment(at: datetime) -> str:
    """Write a time as people read it, to the minute, always UTC: ``Mon 23 Nov 2026 13:05 UTC``."""
    return at.astimezone(timezone.utc).strftime("%a %d %b %Y %H:%M UTC")


def span(length: timedelta) -> str:
    """Write how long, as people say it: ``40 minutes``, ``3 hours 20 minutes``, ``2 days``."""
    minutes = max(1, round(length.total_seconds() / 60))
    days, rest = divmod(minutes, 24 * 60)
    hours, minutes = divmod(rest, 60)
    if days >= 2:
        return plural(days + (hours >= 12), "day")
    hours += 24 * days
    if not hours:
        return plural(minutes, "minute")
    return plural(hours, "hour") + (f" {plural(minutes, 'minute')}" if minutes else "")


def number(value: float) -> str:
    """Write a number without needless digits: ``40`` for 40.0, otherwise ``39.86``.

    That is one or two digits after the point.
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def memory(mib: float) -> str:
    """Write an amount of GPU memory as it is shown everywhere: ``40 GiB``, otherwise ``4.8 GiB``.

    ``mib`` is in MiB. Profile names are not used for it: a ``1g.5gb`` slice has 4.75 GiB.
    """
    return f"{mib / 1024:.1f}".removesuffix(".0") + " GiB"


def resources(cpus: float | None, memory_gib: float | None) -> str:
    """Write limits of CPUs and main memory: ``4 CPUs and 16 GiB of main memory``; empty for none.

    ``memory_gib`` is in GiB.
    """
    shown = []
    if cpus is not None:
        shown.append(f"{number(cpus)} CPU{'' if cpus == 1 else 's'}")
    if memory_gib is not None:
        shown.append(f"{number(memory_gib)} GiB of main memory")
    return " and ".join(shown)


def hours(value: float | str) -> str:
    """Write hours: ``1 hour``, ``2.5 hours``; typed text that is no number stands in quotes."""
    try:
        shown = number(float(value))
    except ValueError:
        return f"{quoted(str(value))} hours"
    return f"{shown} {'hour' if shown == '1' else 'hours'}"


def minutes(value: float) -> str:
    """Write minutes: ``1 minute``, ``2.5 minutes``."""
    shown = number(value)
    return f"{shown} {'minute' if shown == '1' else 'minutes'}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write how many there are of something: ``1 slice``, ``2 slices``."""
    return f"{count} {one if count == 1 else many or one + 's'}"
