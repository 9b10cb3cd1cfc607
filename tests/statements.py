"""Statements that the stores of a test process share once they are compiled.

In production a process opens one store and compiles each statement once. A test opens a store of
its own, and to compile the same statements for each was a quarter of what the tests of the lease
database computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import sqlalchemy as sa

from jupyterhub_migspawner.db import store
from jupyterhub_migspawner.db.statements import Statements


@contextmanager
def shared() -> Iterator[None]:
    """In this block, new stores on one kind of database have their compiled statements in common.

    What a statement is compiled to depends on the kind of database and its driver alone.
    """
    kinds: dict[str, Statements] = {}

    def of_kind(dialect: sa.Dialect) -> Statements:
        return kinds.setdefault(f"{dialect.name}+{dialect.driver}", Statements(dialect))

    with patch.object(store, "Statements", of_kind):
        yield
