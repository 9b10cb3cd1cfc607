"""How rich draws the rows of a listing: the width of each column, and what stands below a row.

Which column gives way first is decided here: texts, then times between date and hour, then all.
Cells are plain text to rich: what looks like its markup stays as it is. Only a listing that has
rows imports this module, and so rich.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from jupyterhub_migspawner.cli.output import current_display, shown
from jupyterhub_migspawner.cli.table import Column
from jupyterhub_migspawner.cli.times import shown_time, zone_of_all
from jupyterhub_migspawner.policy.times import localised

GAP = 2
"""Blanks between two columns."""

LEAST = 8
"""A column of text is not made narrower than this as long as times and numbers can be."""

DATE = len("2026-11-22")
"""A column of times is not made narrower than this as long as anything else can be."""


@dataclass(frozen=True)
class Grid:
    """Rows under their headings. A missing or null value is shown as ``-``."""

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        display = current_display()
        width, zone = display.width, display.zone
        across = [c for c in self.columns if width is None or not (c.wide or c.below)]
        below = [c for c in self.columns if c.below and width is not None]
        times = (row.get(c.key) for c in self.columns if c.time for row in self.rows)
        zone_text = zone_of_all(times, zone)

        def text(column: Column, row: Mapping[str, Any]) -> str:
            value = row.get(column.key)
            if column.time:
                found = shown_time(value, zone, seconds=column.seconds, named=not zone_text)
                if found is not None:
                    return found
            return localised(shown(value), zone)

        heads = [
            f"{c.title.upper()} ({zone_text})" if c.time and zone_text else c.title.upper()
            for c in across
        ]
        cells = [[text(c, row) for c in across] for row in self.rows]
        widths = fitted([heads, *cells], [c.number or c.time for c in across], width)
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
        for column, head, columns in zip(across, heads, widths, strict=True):
            table.add_column(
                Text(head),
                width=columns,
                justify="right" if column.number else "left",
                overflow="fold",
            )
        for number, line in enumerate(cells):
            # By this, the lines of a row are found again below.
            table.add_row(*map(Text, line), style=Style(meta={"row": number}))
        room = options.update(width=sum(widths) + GAP * len(widths))
        for row_number, lines in groupby(console.render_lines(table, room), key=_row):
            for segments in lines:
                yield from _ended(segments)
            if row_number is None:
                continue
            row = self.rows[row_number]
            for column in below:
                if (value := text(column, row)) != "-":
                    value = f"{value} {zone_text}" if column.time and zone_text else value
                    yield from _note(console, column.title, value, width or 0)


def _row(segments: Sequence[Segment]) -> int | None:
    """Return which row of the table a line belongs to; None for the headings."""
    found = (segment.style.meta.get("row") for segment in segments if segment.style is not None)
    return next((number for number in found if number is not None), None)


def _ended(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Yield a line without the blanks at its end."""
    text = "".join(segment.text for segment in segments).rstrip(" ")
    yield from Segment.adjust_line_length(list(segments), cell_len(text), pad=False)
    yield Segment.line()


def _note(console: Console, title: str, value: str, width: int) -> Iterator[Segment]:
    """Yield a value on lines of its own, below its row."""
    lines = Text(f"{title}: {value}").wrap(console, width - 6, overflow="fold")
    for number, line in enumerate(lines):
        line.rstrip()
        yield Segment(f"{'      ' if number else '    '}{line.plain}\n")


def fitted(lines: Sequence[Sequence[str]], firm: Sequence[bool], width: int | None) -> list[int]:
    """Return the widths of the columns, so that a row takes at most ``width`` (None: any).

    ``lines`` are the headings and the rows; ``firm`` says which columns are of numbers or times.
    Texts are wrapped first, the widest first; then times are, between date and hour; then all.
    """
    natural = [max(cell_len(line[i]) for line in lines) for i in range(len(firm))]
    if width is None:
        return natural
    head = [max(cell_len(word) for word in text.split(" ")) for text in lines[0]]
    # A heading is wrapped at its words before anything else is.
    body = [max([head[i], *(cell_len(line[i]) for line in lines[1:])]) for i in range(len(firm))]
    room = width - GAP * (len(firm) - 1)
    if sum(natural) <= room:
        return natural
    floors: tuple[Callable[[int], int], ...] = (
        lambda i: body[i],
        lambda i: body[i] if firm[i] else max(LEAST, head[i]),
        lambda i: max(DATE if firm[i] else LEAST, head[i]),
        lambda i: head[i],
        lambda i: 2,
    )
    widths = natural
    for floor in floors:
        least = [min(widths[i], floor(i)) for i in range(len(firm))]
        if sum(least) <= room:
            return _shrunk(widths, least, room)
        widths = least
    return widths


def _shrunk(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Make the widest columns narrower, none below ``least``, until all have room."""
    found = list(widths)
    while sum(found) > room:
        i = max((i for i in range(len(found)) if found[i] > least[i]), key=lambda i: (found[i], -i))
        found[i] -= 1
    return found
