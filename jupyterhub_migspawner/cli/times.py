"""Times on the command line: shown in one zone, which is named, and read in the same.

JSON has UTC. Tables and sentences have local time, or UTC with ``--utc``; sentences of the broker
name their times in UTC and are converted when they are printed. ``zone`` is None for the local one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone, tzinfo

from jupyterhub_migspawner.policy.times import in_zone, zone_name


def read_timestamp(value: object) -> datetime | None:
    """Return a timestamp of a listing's row as a time, or None where it is none."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        return None
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def zone_of_all(values: Iterable[object], zone: tzinfo | None) -> str:
    """Return the zone that all these timestamps share; empty where there are several or none."""
    times = [at for value in values if (at := read_timestamp(value)) is not None]
    names = {zone_name(at, zone) for at in times}
    return names.pop() if len(names) == 1 else ""


def shown_time(value: object, zone: tzinfo | None, *, seconds: bool, named: bool) -> str | None:
    """Return a timestamp as tables show it, with its zone if ``named``; None where it is none."""
    at = read_timestamp(value)
    if at is None:
        return None
    text = in_zone(at, zone).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
    return f"{text} {zone_name(at, zone)}" if named else text


def aware(at: datetime, zone: tzinfo | None) -> datetime:
    """Return a time that was typed, in UTC; one without a zone is in the zone that is shown."""
    if at.tzinfo is None:
        at = at.replace(tzinfo=zone) if zone is not None else at.astimezone()
    return at.astimezone(timezone.utc)
