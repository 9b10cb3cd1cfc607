"""The lines of a table, as the program prints them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any

from jupyterhub_migspawner.cli.table import Column, print_table


def table_lines(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is printed of the rows, without the line ends."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_table(columns, rows, empty="")
    return out.getvalue().rstrip("\n").split("\n")
