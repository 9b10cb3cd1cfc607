"""What a command shows: tables that fit the terminal for people, plain JSON for programs.

Promises that standard output carries the answer and nothing else, that text which came from a
person or a file cannot steer the terminal it is shown on, and that a table is as wide as the
:class:`Display` says: what does not fit is wrapped or moved below its row, never cut.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

from jupyterhub_migspawner.cli.columns import Cell, columns_of_text, fitted, wrapped
from jupyterhub_migspawner.cli.times import shown_time, zone_of_all
from jupyterhub_migspawner.policy.times import localised
from jupyterhub_migspawner.policy.wording import printable

USUAL_WIDTH = 80
"""Columns that every listing fits, unless ``--wide`` is given or the terminal has more."""


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
    """How answers are shown now."""
    return _DISPLAY.get(Display())


@dataclass(frozen=True)
class Column:
    """One column of a table: its heading and the key it shows.

    ``number``: aligned to the right. ``time``: a timestamp; ``seconds``: to the second. ``wide``:
    only where the width is unbounded. ``below``: on lines of its own below the row, unless the
    width is unbounded.
    """

    title: str
    key: str
    number: bool = False
    time: bool = False
    seconds: bool = False
    wide: bool = False
    below: bool = False


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


def print_wrapped(text: str, *, first: str = "", indent: str = "") -> None:
    """Write a text for people on as many lines as it takes.

    ``first`` begins the first line, ``indent`` the others. No word is broken: paths and commands
    in it are there to be copied.
    """
    display = current_display()
    text = localised(printable(text), display.zone)
    if display.width is None:
        print(f"{first}{text}", flush=True)
        return
    room = display.width - max(columns_of_text(first), columns_of_text(indent))
    lines = wrapped(text, room, whole_words=True)
    print("\n".join(f"{indent if i else first}{line}" for i, line in enumerate(lines)), flush=True)


def print_table(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], *, empty: str
) -> None:
    """Write the rows aligned under their headings; ``empty`` is written when there is none."""
    if not rows:
        print_wrapped(empty)
        return
    print("\n".join(table_lines(columns, rows)), flush=True)


def table_lines(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table, headings first. A missing or null value is shown as ``-``."""
    display = current_display()
    width, zone = display.width, display.zone
    shown_columns = [each for each in columns if width is None or not (each.wide or each.below)]
    below = [each for each in columns if each.below and width is not None]
    zone_text = zone_of_all((row.get(c.key) for c in columns if c.time for row in rows), zone)

    def text(column: Column, row: Mapping[str, Any]) -> str:
        value = row.get(column.key)
        if column.time:
            found = shown_time(value, zone, seconds=column.seconds, named=not zone_text)
            if found is not None:
                return found
        return localised(shown(value), zone)

    heads = [
        Cell(f"{c.title.upper()} ({zone_text})" if c.time and zone_text else c.title.upper())
        for c in shown_columns
    ]
    cells = [[Cell(text(c, row), time=c.time) for c in shown_columns] for row in rows]
    widths = fitted([heads, *cells], [c.number or c.time for c in shown_columns], width)
    numbers = [column.number for column in shown_columns]
    lines = _aligned(numbers, heads, widths)
    for row, line in zip(rows, cells, strict=True):
        lines += _aligned(numbers, line, widths)
        for column in below:
            if (value := text(column, row)) != "-":
                assert width is not None
                named = column.time and zone_text
                lines += _note(column.title, f"{value} {zone_text}" if named else value, width)
    return lines


def _note(title: str, value: str, width: int) -> list[str]:
    lines = wrapped(f"{title}: {value}", width - 6)
    return [f"{'      ' if i else '    '}{line}" for i, line in enumerate(lines)]


def _aligned(numbers: Sequence[bool], line: Sequence[Cell], widths: Sequence[int]) -> list[str]:
    """One row on as many lines as its highest cell takes."""
    parts = [wrapped(cell.text, width) for cell, width in zip(line, widths, strict=True)]
    lines = []
    for i in range(max(map(len, parts))):
        texts = []
        for part, width, number in zip(parts, widths, numbers, strict=True):
            text = part[i] if i < len(part) else ""
            blank = " " * (width - columns_of_text(text))
            texts.append(blank + text if number else text + blank)
        lines.append("  ".join(texts).rstrip())
    return lines


def shown(value: object) -> str:
    """A value as a table shows it: on one line, with nothing a terminal would act on."""
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
    """A layout in words: ``3g.20gb, 2g.10gb, 2 x 1g.5gb``."""
    return ", ".join(
        name if count == 1 else f"{count} x {name}"
        for name, count in sorted(Counter(profiles).items(), reverse=True)
    )


def complain(message: str) -> None:
    """Write one sentence on standard error."""
    zone = current_display().zone
    lines = [localised(printable(line), zone) for line in message.splitlines() or [""]]
    print("\n".join(lines), file=sys.stderr, flush=True)
