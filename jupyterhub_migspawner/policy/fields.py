"""Reading one entry of the admin's file, field by field, and numbers that people typed.

Relies on nothing but the values; promises that whatever is wrong with an entry is reported in one
:class:`~jupyterhub_migspawner.errors.ConfigError` that says where (trait and entry), which field,
what was found and what was expected. Nothing is coerced: ``"3"`` is not 3 and ``True`` is not 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from typing import TypeVar

from jupyterhub_migspawner.errors import ConfigError, Refusal
from jupyterhub_migspawner.policy.people import KnownAs, as_written
from jupyterhub_migspawner.policy.wording import listed, nearest, quoted

T = TypeVar("T")

NAME_LIMIT = 255
"""JupyterHub stores names of users and groups in columns of this many characters."""


class Entry:
    """One mapping of the admin's file and where it stands, e.g. ``tier 'small'``."""

    def __init__(self, where: str, raw: object, known: Collection[str]) -> None:
        self.where = where
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
        self.raw = raw

    def wrong(self, field: str, expected: str) -> ConfigError:
        """The error for a field whose value is not what was expected."""
        return ConfigError(
            f"{self.where}: field {field!r} is {quoted(self.raw.get(field))}; expected {expected}."
        )

    def missing(self, field: str, expected: str) -> ConfigError:
        """The error for a field that has to be there."""
        return ConfigError(f"{self.where}: field {field!r} is missing; expected {expected}.")

    def text(self, field: str, default: str, limit: int) -> str:
        """A string of at most ``limit`` characters."""
        value = self.raw.get(field, default)
        if not isinstance(value, str) or len(value) > limit:
            raise self.wrong(field, f"text of at most {limit} characters")
        return value

    def flag(self, field: str) -> bool:
        """True or False; False when absent."""
        value = self.raw.get(field, False)
        if not isinstance(value, bool):
            raise self.wrong(field, "True or False")
        return value

    def amount(self, field: str, unit: str, *, zero: bool) -> float | None:
        """A finite number above 0 (``zero``: or 0), or None when absent or None."""
        value = self.raw.get(field)
        if value is None:
            return None
        bound = "of at least 0" if zero else "above 0"
        expected = f"a number of {unit} {bound}, or None"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong(field, expected)
        try:
            result = float(value)
        except OverflowError:
            raise self.wrong(field, expected) from None
        if not math.isfinite(result) or result < 0 or (result == 0 and not zero):
            raise self.wrong(field, expected)
        return result

    def count(self, field: str, unit: str, *, zero: bool) -> int | None:
        """A whole number above 0 (``zero``: or 0), or None when absent or None."""
        value = self.raw.get(field)
        if value is None:
            return None
        bound = "of at least 0" if zero else "above 0"
        if isinstance(value, bool) or not isinstance(value, int) or value < (0 if zero else 1):
            raise self.wrong(field, f"a whole number of {unit} {bound}, or None")
        return value

    def number(self, field: str, low: int, high: int) -> int:
        """A whole number from ``low``, which is also the default, to ``high``."""
        value = self.raw.get(field, low)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(field, f"a whole number from {low} to {high}")
        return value

    def names(self, field: str, example: str, known_as: KnownAs = as_written) -> tuple[str, ...]:
        """A list of names, without repeats, in the order given; empty when absent.

        ``known_as`` says what each stands for.
        """
        value = self.raw.get(field, ())
        expected = f"a list of names such as [{example!r}]"
        # A bare string is the classic slip: it is iterable and would read as single letters.
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise self.wrong(field, expected)
        for name in value:
            if not isinstance(name, str) or not name.strip() or len(name) > NAME_LIMIT:
                raise self.wrong(field, expected)
        found = sorted(value) if isinstance(value, (set, frozenset)) else value
        return tuple(dict.fromkeys(known_as(name) for name in found))


def by_person(
    where: str, entries: Iterable[tuple[str, T]], known_as: KnownAs = as_written
) -> dict[str, T]:
    """Values by the hub's names of people. Raises :exc:`.ConfigError` for two of one person."""
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
    """Hours as a user typed them, also with a decimal comma. Raises :exc:`.Refusal`."""
    return _read_number("hours", text, "8 or 0.5")


def read_minutes(text: str) -> float:
    """Minutes as a user typed them, also with a decimal comma. Raises :exc:`.Refusal`."""
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
    """A time as a user typed it, UTC where it names no zone. Raises :exc:`.Refusal`."""
    try:
        # Python 3.10 does not read the trailing Z.
        found = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))
    except ValueError:
        raise Refusal(
            f"The time is {quoted(text)}; expected one such as 2026-12-01T18:00, in UTC.",
            reason="options",
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)
