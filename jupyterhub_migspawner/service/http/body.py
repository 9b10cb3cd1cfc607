"""What a request may carry: a small JSON object with known fields of known types, or nothing.

Promises that everything else is refused with a sentence that names the field, before anything is
done: too much, not JSON, unknown fields, wrong types, numbers that are not numbers. Text from the
request stands in such a sentence quoted and cut short.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NoReturn

from jupyterhub_migspawner.service.http.problem import Problem

#: Bytes; requests here are a few short fields.
MOST_BYTES = 64 * 1024

#: Bytes up to which a body is read at all, so that what is too large still gets its sentence.
#: Beyond it the connection is closed (tornado.httpserver, max_body_size). Every connection may hold
#: as many before it is known who sends them.
MOST_READ = 256 * 1024

#: Characters of a name or of a reason; the broker may be stricter.
MOST_NAME = 200
MOST_TEXT = 2000


@dataclass(frozen=True)
class Field:
    """One field of a JSON object: what it must be, and whether it may be left out."""

    kind: str
    """``name`` (short text), ``text``, ``hours``, ``amount`` (a number, or null for no limit),
    ``time`` (ISO 8601, with its zone), ``server`` (short text, perhaps empty) or ``flag``."""
    required: bool = False


def read_object(body: bytes, content_type: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """The fields of a JSON object, checked. An empty body is an object without fields."""
    if len(body) > MOST_BYTES:
        raise too_large(len(body))
    if not body.strip():
        found: Any = {}
    else:
        media = content_type.partition(";")[0].strip().lower()
        if media not in ("", "application/json"):
            raise Problem(
                415, "options", "Send the body as JSON, with 'Content-Type: application/json'."
            )
        found = _parse(body)
    if not isinstance(found, dict):
        _refuse(f"The body must be a JSON object, found {_kind(found)}.")
    known = ", ".join(sorted(fields)) or "none"
    for name in found:
        if name not in fields:
            _refuse(f"There is no field {shown(name)} here; known fields: {known}.")
    for name, field in fields.items():
        if field.required and name not in found:
            _refuse(f"The field {name!r} is missing; known fields: {known}.")
    return {name: _checked(name, value, fields[name].kind) for name, value in found.items()}


def read_flags(query: Mapping[str, list[bytes]], known: Collection[str]) -> dict[str, bool]:
    """Query parameters that are true or false; all that are known are in the answer."""
    flags = dict.fromkeys(known, False)
    for name, values in query.items():
        if name not in flags:
            listed = ", ".join(sorted(known)) or "none"
            _refuse(f"There is no parameter {shown(name)} here; known parameters: {listed}.")
        words = {value.decode("utf-8", "replace").lower() for value in values}
        if not words <= {"true", "false", "1", "0"} or len(words) != 1:
            _refuse(f"The parameter {name!r} is true or false.")
        flags[name] = words <= {"true", "1"}
    return flags


def read_count(query: Mapping[str, list[bytes]], name: str, most: int) -> int | None:
    """A query parameter that is a whole number from 1 to ``most``; None where it is left out."""
    values = query.get(name)
    if values is None:
        return None
    text = values[0].decode("ascii", "replace")
    digits = len(values) == 1 and text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not digits or not 1 <= int(text) <= most:
        _refuse(f"The parameter {name!r} must be a whole number from 1 to {most}.")
    return int(text)


def too_large(size: int) -> Problem:
    """The answer to a body over :data:`MOST_BYTES`."""
    return Problem(
        413,
        "too-large",
        f"The body has {size:,} bytes; at most {MOST_BYTES:,} are read here.",
    )


def shown(text: str) -> str:
    """Text of a visitor as it may stand in a sentence: quoted, and cut to 60 characters."""
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_not_a_number)
    except (ValueError, RecursionError):
        # ValueError covers JSON's own error and bytes that are not UTF-8.
        raise Problem(400, "options", "The body is not JSON.") from None


def _not_a_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _checked(name: str, value: Any, kind: str) -> str | float | bool | datetime | None:
    if kind == "flag":
        if not isinstance(value, bool):
            _refuse(f"The field {name!r} must be true or false, found {_kind(value)}.")
        return value
    if kind == "amount":
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > 1e9:
            _refuse(f"The field {name!r} must be a number, or null for no limit.")
        return value
    if kind == "time":
        return _moment(name, value)
    if kind == "hours":
        # bool is an int to Python; an int may be too large for a float.
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            _refuse(f"The field {name!r} must be a number of hours, found {_kind(value)}.")
        try:
            hours = float(value)
        except OverflowError:
            hours = math.inf
        if not math.isfinite(hours) or hours <= 0:
            _refuse(f"The field {name!r} must be a number of hours above 0.")
        return hours
    if not isinstance(value, str):
        _refuse(f"The field {name!r} must be text, found {_kind(value)}.")
    most = MOST_TEXT if kind == "text" else MOST_NAME
    if len(value) > most:
        _refuse(f"The field {name!r} has {len(value)} characters; at most {most} are allowed.")
    if any(0xD800 <= ord(char) <= 0xDFFF or char == "\0" for char in value):
        # Neither can be stored: half of a surrogate pair is no character, PostgreSQL has no NUL.
        _refuse(f"The field {name!r} holds a character that is no text.")
    return value


def _moment(name: str, value: Any) -> datetime:
    try:
        # Python 3.10 does not read the trailing Z.
        found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))
        if found.tzinfo is not None:
            return found.astimezone(timezone.utc)
    except (TypeError, ValueError, OverflowError):
        pass
    _refuse(
        f"The field {name!r} must be a time with its zone, such as 2026-12-01T18:00:00Z, found "
        f"{shown(value) if isinstance(value, str) else _kind(value)}."
    )


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return kinds.get(type(value), "an object")


def _refuse(sentence: str) -> NoReturn:
    raise Problem(400, "options", sentence)
