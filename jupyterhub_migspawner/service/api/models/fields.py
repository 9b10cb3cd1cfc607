"""Types of the fields of a body, each with what is expected of it in words.

Promises that a value that a field refuses is refused in the words of its :class:`.Expected`, never
in pydantic's own. Models are strict: ``"1"`` is no number and ``true`` is no 1.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    WithJsonSchema,
)

from jupyterhub_migspawner.policy.fields import Expected
from jupyterhub_migspawner.service.http.body import is_storable

#: Characters of a name, of a reason, and of other text as it was typed.
MOST_NAME = 200
MOST_TEXT = 2000
MOST_TYPED = 100

#: The largest limit of anything.
MOST_AMOUNT = 1_000_000_000


def _storable(text: str) -> str:
    """Refuse text that no database can hold."""
    if not is_storable(text):
        raise ValueError
    return text


def _given(value: Any) -> Any:
    """Refuse null in a field that may only be left out."""
    if value is None:
        raise ValueError
    return value


def _moment(value: Any) -> datetime:
    """Read a time in ISO 8601 that names its zone."""
    if not isinstance(value, str):
        raise ValueError
    # Python 3.10 does not read the trailing Z.
    found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))
    if found.tzinfo is None:
        raise ValueError
    try:
        return found.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError from None


_STORABLE = AfterValidator(_storable)
_GIVEN = BeforeValidator(_given)
_MOMENT = PlainValidator(_moment)
_MOMENT_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time"})
_MOMENT_EXPECTED = Expected("a time with its zone, such as 2026-12-01T18:00:00Z")
_HOURS_EXPECTED = Expected("a number of hours above 0")
_FLAG_EXPECTED = Expected("true or false")

Name = Annotated[
    str,
    Field(max_length=MOST_NAME),
    _STORABLE,
    Expected(f"text of at most {MOST_NAME} characters"),
]
"""The name of a tier, server or user."""

Text = Annotated[
    str,
    Field(max_length=MOST_TEXT),
    _STORABLE,
    Expected(f"text of at most {MOST_TEXT} characters"),
]
"""A sentence or more."""

Typed = Annotated[
    str,
    Field(max_length=MOST_TYPED),
    _STORABLE,
    Expected(f"text of at most {MOST_TYPED} characters"),
]
"""What a person typed, not checked yet."""

Flag = Annotated[bool, _FLAG_EXPECTED]
"""True or false."""

OptionalFlag = Annotated[bool | None, _GIVEN, WithJsonSchema({"type": "boolean"}), _FLAG_EXPECTED]
"""True or false; None only where it is left out."""

Hours = Annotated[float, Field(gt=0), _HOURS_EXPECTED]
"""A number of hours."""

OptionalHours = Annotated[
    Annotated[float, Field(gt=0)] | None,
    _GIVEN,
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
    _HOURS_EXPECTED,
]
"""A number of hours; None only where it is left out."""

Minutes = Annotated[
    Annotated[float, Field(ge=0, le=24 * 60)] | None,
    Expected("a number of minutes from 0 to 1440, or null for the default"),
]
"""A number of minutes of a day."""

Amount = Annotated[
    Annotated[float, Field(ge=0, le=MOST_AMOUNT)] | None,
    Expected(f"a number from 0 to {MOST_AMOUNT}, or null for no limit"),
]
"""A limit; None for no limit."""

Moment = Annotated[datetime, _MOMENT, _MOMENT_SCHEMA, _MOMENT_EXPECTED]
"""A time, in UTC."""

OptionalMoment = Annotated[datetime | None, _MOMENT, _MOMENT_SCHEMA, _MOMENT_EXPECTED]
"""A time, in UTC; None only where it is left out."""
