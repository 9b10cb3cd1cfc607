"""What a command shows: lines for people, plain JSON for programs.

Promises that standard output carries the answer and nothing else, that text which came from a
person or a file cannot steer the terminal it is shown on, and that texts are as wide as the
:class:`Display` says: what does not fit is wrapped, never cut. Tables are in :mod:`.table`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from jupyterhub_migspawner.policy.times import localised
from jupyterhub_migspawner.policy.wording import printable

if TYPE_CHECKING:
    from rich.console import Console

USUAL_WIDTH = 80
"""Columns that every listing fits, unless ``--wide`` is given or the terminal has more."""

UNBOUNDED = 1_000_000
"""Columns of a console whose lines may have any width."""


@dataclass(frozen=True)
class Display:
    """How answers are shown: ``width`` in columns (None: any), ``zone`` of times (None: local)."""

    width: int | None = USUAL_WIDTH
    zone: tzinfo | None = None


_DISPLAY: ContextVar[Display] = ContextVar("display")


def show_as(display: Display) -> None:
    """Show what follows like this."""
    _DISPLAY.set(display)


def current_display() -> Display:
    """Return how answers are shown now."""
    return _DISPLAY.get(Display())


def console() -> Console:
    """Return the console for answers: coloured on a terminal alone, and never reading markup."""
    from rich.console import Console

    return Console(
        file=sys.stdout,
        width=current_display().width or UNBOUNDED,
        highlight=False,
        markup=False,
        emoji=False,
    )


def print_json(answer: Any) -> None:
    """Write ``answer`` as JSON, one document, on standard output."""
    json.dump(answer, sys.stdout, indent=2)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_json_line(answer: Any) -> None:
    """Write ``answer`` as JSON on a line of its own, at once."""
    print(json.dumps(answer), flush=True)


def print_line(text: str) -> None:
    """Write one line for people, at once."""
    print(localised(printable(text), current_display().zone), flush=True)


def print_wrapped(text: str, *, first: str = "", indent: str = "", style: str = "") -> None:
    """Write a text for people on as many lines as it takes.

    ``first`` begins the first line, in ``style`` on a terminal, ``indent`` the others. No word is
    broken: paths and commands in it are there to be copied.
    """
    display = current_display()
    room = UNBOUNDED if display.width is None else display.width - max(len(first), len(indent))
    text = localised(printable(text), display.zone)
    if text.isascii() and len(text) <= room and not style:
        print(f"{first}{text}", flush=True)
        return
    from rich.cells import cell_len
    from rich.text import Text

    out, lines = console(), [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    for number, line in enumerate(lines):
        head = (indent, "") if number else (first, style)
        out.print(Text.assemble(head, line), soft_wrap=True)


def shown(value: object) -> str:
    """Return a value as a table shows it: on one line, with nothing a terminal would act on."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value) or "-"
    return printable(str(value))


def cut_into(profiles: Iterable[str]) -> str:
    """Return a layout in words: ``3g.20gb, 2g.10gb, 2 x 1g.5gb``."""
    return ", ".join(
        name if count == 1 else f"{count} x {name}"
        for name, count in sorted(Counter(profiles).items(), reverse=True)
    )


def complain(message: str) -> None:
    """Write one sentence on standard error."""
    zone = current_display().zone
    lines = [localised(printable(line), zone) for line in message.splitlines() or [""]]
    print("\n".join(lines), file=sys.stderr, flush=True)
