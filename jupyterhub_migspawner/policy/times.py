"""Times in sentences, in a zone that is named.

Sentences of the broker name their times in UTC, since the database keeps them: these functions
write such a sentence in the zone of its reader. ``zone`` is None for the machine's own.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone, tzinfo
from zoneinfo import ZoneInfo, available_timezones

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.policy.wording import nearest, quoted

SENTENCE = "%a %d %b %Y %H:%M"

# Not of "UTC+2", as people write.
_UTC = r"UTC\b(?!\s*[-+\u2212]\s*\d)"

_PATTERNS = (
    # As jupyterhub_migspawner.policy.wording.moment writes it.
    (re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d " + _UTC),
     f"{SENTENCE} UTC", SENTENCE),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d " + _UTC), "%Y-%m-%d %H:%M UTC", "%Y-%m-%d %H:%M"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d " + _UTC),
     "%Y-%m-%d %H:%M:%S UTC", "%Y-%m-%d %H:%M:%S"),
    # As in events and JSON.
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S"),
)  # fmt: skip


def in_zone(at: datetime, zone: tzinfo | None) -> datetime:
    """Return the time in the zone that is shown."""
    try:
        return at.astimezone(zone)
    except (OverflowError, OSError):  # at the very ends of the calendar
        return at


def zone_name(at: datetime, zone: tzinfo | None) -> str:
    """Return the zone's name at that time: ``CET``, ``UTC``, or ``UTC+03`` where it has none."""
    name = in_zone(at, zone).tzname() or "UTC"
    return f"UTC{name}" if name[0] in "+-" else name


def localised(text: str, zone: tzinfo | None) -> str:
    """Write the times of a text of the broker, which are in UTC, in ``zone``, which is named."""
    for pattern, read, write in _PATTERNS:

        def convert(found: re.Match[str], read: str = read, write: str = write) -> str:
            try:
                at = datetime.strptime(found[0], read).replace(tzinfo=timezone.utc)
            except ValueError:
                return found[0]
            return f"{in_zone(at, zone).strftime(write)} {zone_name(at, zone)}"

        text = pattern.sub(convert, text)
    return text


def read_zone(name: str) -> tzinfo | None:
    """Return the zone of an IANA name; None, the machine's own, for an empty name.

    None also on a machine without a time zone database, where no name can be checked. Raises
    :class:`~jupyterhub_migspawner.errors.ConfigError`.
    """
    if name in ("", "UTC"):
        return timezone.utc if name else None
    try:
        return ZoneInfo(name)
    # ZoneInfoNotFoundError is a KeyError; the others come for folders and names such as "../x".
    except (KeyError, ValueError, OSError):
        known = available_timezones()
    if not known:
        return None
    raise ConfigError(
        f"MigBroker.time_zone is {quoted(name)}, which is not a time zone{nearest(name, known)}; "
        "expected an IANA name such as 'Europe/Berlin', or nothing for this machine's own zone."
    )
