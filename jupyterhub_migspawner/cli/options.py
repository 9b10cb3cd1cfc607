"""Values and options that several commands take.

A value that is not of its kind is refused with what was expected and what was found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol, TypeVar

import click

from jupyterhub_migspawner.cli.invocation import USUAL_ROWS

F = TypeVar("F", bound=Callable[..., Any])


class Option(Protocol):
    """What adds an option to the function of a command."""

    def __call__(self, function: F, /) -> F:
        """Return the function with the option."""


class Name(click.ParamType[str]):
    """The name of a person. Commands get the hub's, which normalizes what people type at login."""

    name = "name"


class Number(click.ParamType[Any]):
    """A number between ``least`` and ``most``, described as ``what``."""

    name = "number"

    def __init__(
        self, kind: type[int] | type[float], least: float, what: str, most: float = math.inf
    ) -> None:
        self.kind = kind
        self.least = least
        self.most = most
        self.what = what

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | float:
        """Return the number that the text says."""
        try:
            number = self.kind(value)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and self.least <= number <= self.most):
            self.fail(f"expected {self.what}, found {value!r}", param, ctx)
        return number


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Time(click.ParamType[datetime]):
    """A time, or a span from now: ``ahead`` in hours, days and weeks, else in the past.

    Commands get it in UTC; a time without a zone is in the one in which times are shown.
    """

    name = "time"

    def __init__(self, *, ahead: bool) -> None:
        self.ahead = ahead

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return the time, perhaps without a zone."""
        if isinstance(value, datetime):
            return value
        span = re.fullmatch(r"(\d{1,4})([hdw])" if self.ahead else r"(\d{1,6})([smhdw])", value)
        try:
            if span:
                length = timedelta(**{_UNITS[span[2]]: int(span[1])})
                return datetime.now(timezone.utc) + (length if self.ahead else -length)
            return datetime.fromisoformat(re.sub("[zZ]$", "+00:00", value))
        except (ValueError, OverflowError):
            day = "2026-12-01" if self.ahead else "2026-11-22"
            how = "how long such as 12h, 7d or 2w" if self.ahead else "how long ago such as 90m"
            self.fail(
                f"expected a time such as {day}, {day}T17:53 or {day}T17:53:16Z, or {how}, found "
                f"{value!r}",
                param,
                ctx,
            )


NAME = Name()
ID = Number(int, 1, "the number of an entry, as the listing shows it")
HOURS = Number(float, 1 / 60, "a number of hours, at least a minute")
MINUTES = Number(float, 0, "a number of minutes")
COUNT = Number(int, 1, "a whole number from 1 on")
FUTURE = Time(ahead=True)
PAST = Time(ahead=False)

UNTIL = "a time (2026-12-01, 2026-12-01T18:00, 2026-12-01T18:00:00Z), or how long (12h, 7d, 2w)"
"""How a time to come may be written, for the help."""


def user(help: str, *, required: bool = False) -> Option:
    """Return the option ``--user``: a person by name."""
    return click.option("--user", type=NAME, required=required, metavar="NAME", help=help)


def by(help: str) -> Option:
    """Return the option ``--by``: who does it; required."""
    return click.option("--by", type=NAME, required=True, metavar="NAME", help=help)


def reason(help: str, *, required: bool = False) -> Option:
    """Return the option ``--reason``."""
    return click.option("--reason", required=required, metavar="TEXT", help=help)


def number_of(what: str) -> Option:
    """Return the argument ``ID``: the number of an entry in a listing."""
    return click.argument("number", type=ID, metavar="ID", help=what)


LIMIT: Option = click.option(
    "--limit",
    type=Number(int, 0, "a whole number up to a million; 0 for all", 10**6),
    metavar="N",
    help=f"the newest N; 0 for all (default: {USUAL_ROWS})",
)
"""How much of a listing that may be long is shown."""
