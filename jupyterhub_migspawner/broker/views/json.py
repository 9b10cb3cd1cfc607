"""Types of JSON values, with what their JSON schema says besides the Python type.

Views are TypedDicts: plain dicts at run time, which the type check compares field by field and of
which the service makes the schemas of its OpenAPI description. :class:`Keywords` is asked by
pydantic when it makes one.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Annotated, Any


class Keywords:
    """Keywords of JSON Schema for the type that it annotates, such as ``enum`` or ``format``."""

    def __init__(self, **keywords: Any) -> None:
        self._keywords = keywords

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return the type's schema with these keywords; called by pydantic."""
        return {**handler(core_schema), **self._keywords}


def one_of(*values: str) -> Keywords:
    """Return the keyword for a text that is one of a few."""
    return Keywords(enum=list(values))


Timestamp = Annotated[str, Keywords(format="date-time")]
"""A time in UTC, to the second: ``2026-11-22T17:53:16Z``."""


def timestamp_of(at: datetime) -> Timestamp:
    """Write a time in UTC, to the second."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def timestamp(at: datetime | None) -> Timestamp | None:
    """Write a time in UTC, to the second; None stays None."""
    return None if at is None else timestamp_of(at)


def plain(value: float | None) -> float | None:
    """Return a whole number as an int, so that JSON has ``60`` and not ``60.0``."""
    return int(value) if value is not None and value == int(value) else value


def seconds(span: timedelta | None) -> int | None:
    """Return a span in whole seconds; None stays None."""
    return None if span is None else round(span.total_seconds())
