"""How wide the columns of a table are, and where their texts are wrapped.

Pure functions over texts. Widths are columns of a terminal: a character of East Asian width takes
two, a combining one none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

GAP = 2
"""Blanks between two columns."""

LEAST = 8
"""A column of text is not made narrower than this as long as times and numbers can be."""

DATE = len("2026-11-22")
"""A column of times is not made narrower than this as long as anything else can be."""


@dataclass(frozen=True)
class Cell:
    """What stands in one row of a column."""

    text: str
    time: bool = False


def columns_of_text(text: str) -> int:
    """How many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def wrapped(text: str, width: int, *, whole_words: bool = False) -> list[str]:
    """The text on lines of at most ``width`` columns; a word that is longer is broken.

    With ``whole_words`` such a word has a line of its own and is too wide, but can be copied. A
    text that fits stays as it is; blanks at which a line ends are left out. ``width`` is at least
    2, so that every character has room.
    """
    width = max(2, width)
    if columns_of_text(text) <= width:
        return [text]
    lines: list[str] = []
    line, used = "", 0
    for word in text.split(" "):
        for part in [word] if whole_words else _broken(word, width):
            needs = columns_of_text(part)
            if not line:
                line, used = part, needs
            elif used + 1 + needs <= width:
                line, used = f"{line} {part}", used + 1 + needs
            else:
                lines.append(line)
                line, used = part, needs
    return [*lines, line]


def _broken(word: str, width: int) -> list[str]:
    if columns_of_text(word) <= width:
        return [word]
    parts, part, used = [], "", 0
    for char in word:
        if used + _columns(char) > width:
            parts.append(part)
            part, used = "", 0
        part += char
        used += _columns(char)
    return [*parts, part]


def fitted(lines: Sequence[Sequence[Cell]], firm: Sequence[bool], width: int | None) -> list[int]:
    """The widths of the columns, so that a row takes at most ``width`` columns (None: any).

    ``lines`` are the headings and the rows; ``firm`` says which columns are of numbers or times.
    Texts are wrapped first, the widest first; then times are, between date and hour; then all.
    """
    natural = [max(columns_of_text(line[i].text) for line in lines) for i in range(len(firm))]
    if width is None:
        return natural
    head = [max(columns_of_text(word) for word in cell.text.split(" ")) for cell in lines[0]]
    # A heading is wrapped at its words before anything else is.
    body = [
        max([head[i], *(columns_of_text(line[i].text) for line in lines[1:])])
        for i in range(len(firm))
    ]
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
