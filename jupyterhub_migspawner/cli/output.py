"""What a command says: aligned tables for people, plain JSON for programs.

Relies on nothing of the project. Promises that standard output carries the answer and nothing
else, and that text which came from a person or a file cannot steer the terminal it is shown on.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """One column of a table: its heading, the key it shows, and whether it is a number."""

    title: str
    key: str
    number: bool = False


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
    print(printable(text), flush=True)


def print_table(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], *, empty: str
) -> None:
    """Write the rows aligned under their headings; ``empty`` is said when there is none."""
    if not rows:
        print(empty, flush=True)
        return
    print("\n".join(table_lines(columns, rows)), flush=True)


def table_lines(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table, headings first. A missing or null value is shown as ``-``."""
    cells = [[shown(row.get(column.key)) for column in columns] for row in rows]
    heads = [column.title.upper() for column in columns]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(columns))]
    return [_aligned(columns, line, widths) for line in [heads, *cells]]


def _aligned(columns: Sequence[Column], line: Sequence[str], widths: Sequence[int]) -> str:
    parts = [
        text.rjust(width) if column.number else text.ljust(width)
        for column, text, width in zip(columns, line, widths, strict=True)
    ]
    return "  ".join(parts).rstrip()


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


def printable(text: str) -> str:
    """``text`` with every character that does not print written as its escape."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def complain(message: str) -> None:
    """Write one sentence on standard error."""
    lines = message.splitlines() or [""]
    print("\n".join(printable(line) for line in lines), file=sys.stderr, flush=True)
