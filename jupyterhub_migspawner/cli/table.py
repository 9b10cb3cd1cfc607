"""Tables of listings.

Promises that a table is as wide as the :class:`~.output.Display` says: what does not fit is wrapped
or moved below its row, never cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jupyterhub_migspawner.cli.output import console, print_wrapped


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


def print_table(
    columns: Sequence[Column], rows: Sequence[Mapping[str, Any]], *, empty: str
) -> None:
    """Write the rows aligned under their headings; ``empty`` is written when there is none."""
    if not rows:
        print_wrapped(empty)
        return
    from jupyterhub_migspawner.cli.grid import Grid

    console().print(Grid(columns, rows), soft_wrap=True)
