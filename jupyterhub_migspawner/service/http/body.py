"""What a request may carry: a small JSON object with known fields of known types, or nothing.

Promises that everything else is refused with a sentence that names the field, before anything is
done: too much, not JSON, unknown fields, wrong types, numbers that are not numbers. Text from the
request stands in such a sentence quoted and cut short.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from jupyterhub_migspawner.policy.fields import expected_of, first_error
from jupyterhub_migspawner.policy.wording import nearest
from jupyterhub_migspawner.service.http.problem import Problem

#: Bytes; requests here are a few short fields.
MOST_BYTES = 64 * 1024

#: Bytes up to which a body is read at all, so that what is too large still gets its sentence.
#: Beyond it the connection is closed (tornado.httpserver, max_body_size). Every connection may hold
#: as many before it is known who sends them.
MOST_READ = 256 * 1024

B = TypeVar("B", bound=BaseModel)


def read_body(body: bytes, content_type: str, model: type[B]) -> B:
    """Return the fields of a JSON object, checked. An empty body is an object without fields.

    Every field of ``model`` is annotated with what is expected of it
    (:class:`~jupyterhub_migspawner.policy.fields.Expected`). Raises :exc:`.Problem`.
    """
    found = _read_json(body, content_type)
    if not isinstance(found, dict):
        _refuse(f"The body must be a JSON object, found {_found(found)}.")
    known = model.model_fields
    for name in found:
        if name not in known:
            _refuse(
                f"There is no field {shown(name)} here{nearest(name, known)}; known fields: "
                f"{_listed(known)}."
            )
    try:
        return model.model_validate(found)
    except ValidationError as error:
        name = str(first_error(error)["loc"][0])
        if name not in found:
            _refuse(f"The field {name!r} is missing; known fields: {_listed(known)}.")
        _refuse(
            f"The field {name!r} must be {expected_of(model, name)}, found {_found(found[name])}."
        )


def _read_json(body: bytes, content_type: str) -> Any:
    if len(body) > MOST_BYTES:
        raise too_large(len(body))
    if not body.strip():
        return {}
    media = content_type.partition(";")[0].strip().lower()
    if media not in ("", "application/json"):
        raise Problem(
            415, "options", "Send the body as JSON, with 'Content-Type: application/json'."
        )
    try:
        return json.loads(body, parse_constant=_not_a_number, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        # ValueError covers JSON's own error and bytes that are not UTF-8.
        raise Problem(400, "options", "The body is not JSON.") from None


def _not_a_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        _refuse(f"The field {shown(twice)} is there more than once.")
    return found


def _listed(known: Collection[str]) -> str:
    return ", ".join(sorted(known)) or "none"


def _found(value: Any) -> str:
    """Return a value as it may stand in a sentence."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        size = f"text of {len(value)} characters"
        if not is_storable(value):
            return f"{size}, of which at least one cannot be stored (NUL, or half a surrogate pair)"
        return shown(value) if len(value) <= 60 else size
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


def read_flags(query: Mapping[str, list[bytes]], known: Collection[str]) -> dict[str, bool]:
    """Return query parameters that are true or false, with a value for each that is known."""
    flags = dict.fromkeys(known, False)
    for name, values in query.items():
        if name not in flags:
            _refuse(
                f"There is no parameter {shown(name)} here{nearest(name, known)}; known "
                f"parameters: {_listed(known)}."
            )
        words = {value.decode("utf-8", "replace").lower() for value in values}
        if not words <= {"true", "false", "1", "0"} or len(words) != 1:
            _refuse(f"The parameter {name!r} is true or false.")
        flags[name] = words <= {"true", "1"}
    return flags


def read_count(query: Mapping[str, list[bytes]], name: str, most: int) -> int | None:
    """Return a query parameter, a whole number from 1 to ``most``; None where it is left out."""
    values = query.get(name)
    if values is None:
        return None
    text = values[0].decode("ascii", "replace")
    digits = len(values) == 1 and text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not digits or not 1 <= int(text) <= most:
        _refuse(f"The parameter {name!r} must be a whole number from 1 to {most}.")
    return int(text)


def too_large(size: int) -> Problem:
    """Return the answer to a body over :data:`MOST_BYTES`."""
    return Problem(
        413,
        "too-large",
        f"The body has {size:,} bytes; at most {MOST_BYTES:,} are read here.",
    )


def is_storable(text: str) -> bool:
    """Return whether a text has no NUL, which PostgreSQL lacks, and no half of a surrogate pair."""
    return not any(0xD800 <= ord(char) <= 0xDFFF or char == "\0" for char in text)


def shown(text: str) -> str:
    """Return a visitor's text as it may stand in a sentence: quoted, and cut to 60 characters."""
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _refuse(sentence: str) -> NoReturn:
    raise Problem(400, "options", sentence)
