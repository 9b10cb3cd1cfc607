"""Entries of the admin's file as pydantic models, and numbers and times that people typed.

Relies on nothing but the values; promises that whatever is wrong with an entry is reported in one
:class:`~jupyterhub_migspawner.errors.ConfigError` that says where (trait and entry), which field,
what was found and what was expected. Nothing is coerced: ``"3"`` is not 3 and ``True`` is not 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WrapValidator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.policy.people import KnownAs, as_written
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted

T = TypeVar("T")
E = TypeVar("E", bound="Entry")

NAME_LIMIT = 255
"""JupyterHub stores names of users and groups in columns of this many characters."""

MOST_NUMBER = 1_000_000
"""Largest number of hours, minutes, servers and the like: with more, no date could be computed."""

_MISFIT = "misfit"


class Entry(BaseModel):
    """Base of the mappings of the admin's file: known fields only, strict types, frozen.

    Every field is annotated with what is :class:`Expected` of it.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


@dataclass(frozen=True)
class Expected:
    """What a field has to be, in words, e.g. ``a number of hours above 0``."""

    words: str


def expected_of(model: type[BaseModel], field: str) -> str:
    """Return the words of a field's :class:`Expected`."""
    metadata = model.model_fields[field].metadata
    return next(each.words for each in metadata if isinstance(each, Expected))


def misfit(field: str, expected: str) -> PydanticCustomError:
    """Return the error for a field that does not fit the others of its entry.

    A model's validator raises it; ``expected`` is what the field has to be, in words.
    """
    return PydanticCustomError(_MISFIT, "{words}", {"field": field, "words": expected})


def read_entry(model: type[E], where: str, raw: object, known_as: KnownAs = as_written) -> E:
    """Return a mapping of the admin's file as ``model``.

    ``where`` is its place in words, e.g. ``tier 'small'``; ``known_as`` gives the hub's names of
    the people that its fields of type :data:`Users` name. Raises :exc:`.ConfigError`.
    """
    known = model.model_fields
    if not isinstance(raw, Mapping):
        raise ConfigError(
            f"{where}: found {quoted(raw)}; expected a dict with some of the fields "
            f"{listed(known)}."
        )
    for key in raw:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown field {quoted(key)}{nearest(key, known)}; "
                f"expected only {listed(known)}."
            )
    try:
        return model.model_validate(dict(raw), context=known_as)
    except ValidationError as error:
        first = first_error(error)
        if first["type"] == _MISFIT:
            field, expected = first["ctx"]["field"], first["ctx"]["words"]
        else:
            field = str(first["loc"][0])
            expected = expected_of(model, field)
        found = f"is {quoted(raw[field])}" if field in raw else "is missing"
        raise ConfigError(f"{where}: field {field!r} {found}; expected {expected}.") from None


def first_error(error: ValidationError) -> ErrorDetails:
    """Return the error to show of several: a missing field before one with a wrong value."""
    found = error.errors(include_url=False)
    return min(found, key=lambda each: each["type"] != "missing")


def _as_tuple(value: Any) -> Any:
    # A bare string is the classic slip: it is iterable and would read as single letters.
    return tuple(value) if isinstance(value, (list, set, frozenset)) else value


def _in_order(value: Any, validate: Callable[[Any], tuple[str, ...]]) -> tuple[str, ...]:
    """Drop repeated names, and put those of a set in order."""
    names = validate(_as_tuple(value))
    return tuple(dict.fromkeys(sorted(names) if isinstance(value, (set, frozenset)) else names))


def _as_the_hub_does(names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    known_as: KnownAs = info.context or as_written
    return tuple(dict.fromkeys(known_as(name) for name in names))


Above0 = Annotated[float, Field(gt=0, le=MOST_NUMBER)]
"""A number above 0, up to :data:`MOST_NUMBER`."""

AtLeast0 = Annotated[float, Field(ge=0, le=MOST_NUMBER)]
"""A number from 0 to :data:`MOST_NUMBER`."""

Flag = Annotated[bool, Expected("True or False")]
"""True or False."""


def _demand_text(name: str) -> str:
    if not name.strip():
        raise ValueError("it is blank")
    return name


Name = Annotated[str, Field(max_length=NAME_LIMIT), AfterValidator(_demand_text)]
"""A name that a user or group of the hub could have."""

Listed = BeforeValidator(_as_tuple)
"""Takes a list or a set for a tuple."""

Names = Annotated[tuple[Name, ...], WrapValidator(_in_order)]
"""Names in a list, a tuple or a set, without repeats, in the order given."""

Groups = Annotated[Names, Expected("a list of names such as ['vision']")]
"""Names of groups."""

Users = Annotated[
    Names, AfterValidator(_as_the_hub_does), Expected("a list of names such as ['ada']")
]
"""The hub's names of users."""


def user_or_group(text: object) -> tuple[str, str]:
    """Split ``user:NAME`` or ``group:NAME`` in two; both are empty for anything else."""
    kind, _, name = text.partition(":") if isinstance(text, str) else ("", "", "")
    if kind in ("user", "group") and name.strip() and len(name) <= NAME_LIMIT:
        return kind, name
    return "", ""


def by_person(
    where: str, entries: Iterable[tuple[str, T]], known_as: KnownAs = as_written
) -> dict[str, T]:
    """Return values by the hub's names of people. Raises :exc:`.ConfigError` for two of one."""
    found: dict[str, T] = {}
    written: dict[str, str] = {}
    for name, value in entries:
        known = known_as(name)
        if known in found:
            raise ConfigError(
                f"{where} has an entry for {quoted(written[known])} and one for {quoted(name)}, "
                f"which is the same user at the hub, {quoted(known)}; expected one entry."
            )
        found[known], written[known] = value, name
    return found


def read_hours(text: str) -> float:
    """Read hours as a user typed them, also with a decimal comma. Raises :exc:`.Refusal`."""
    return _read_number("hours", text, "8 or 0.5")


def read_minutes(text: str) -> float:
    """Read minutes as a user typed them, also with a decimal comma. Raises :exc:`.Refusal`."""
    return _read_number("minutes", text, "15")


def _read_number(what: str, text: str, example: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        raise Refusal(
            f"The {what} are {quoted(text)}; expected a number such as {example}.",
            reason="options",
        ) from None


def read_moment(text: str) -> datetime:
    """Read a time as a user typed it, in UTC unless it names a zone. Raises :exc:`.Refusal`."""
    try:
        # Python 3.10 does not read the trailing Z.
        found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))
    except ValueError:
        raise Refusal(
            f"The time is {quoted(text)}; expected one such as 2026-12-01T18:00, in UTC.",
            reason="options",
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
