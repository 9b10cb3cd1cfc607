"""Statements as the driver gets them: compiled once, then run without the way through SQLAlchemy.

A lease is a dozen small statements, and on a local database the way through SQLAlchemy's execution
costs several times what the database needs for them. So a statement is compiled when it is first
used, with the conversions of its values; from then on running it is filling in a list.

Relies on the statements being built once, in their modules: one that is built for every call would
be compiled for every call. Promises the same text, the same values and the same types as
SQLAlchemy's own execution, which a test compares.
"""

from __future__ import annotations

import re
import threading
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa

Convert = Callable[[Any], Any]

_READS = re.compile(r"\s*SELECT\b")


class Prepared:
    """One statement for one kind of database and one set of value names."""

    __slots__ = ("_given", "_make", "_results", "_template", "only_reads", "sql")

    def __init__(
        self, statement: sa.Executable, names: frozenset[str], dialect: sa.Dialect
    ) -> None:
        compiled: Any = statement.compile(  # type: ignore[attr-defined]
            dialect=dialect, column_keys=sorted(names) or None
        )
        if compiled.post_compile_params:
            # IN with a list has another text for every list.
            raise TypeError(f"the statement has no fixed text, write IN as OR: {compiled.string}")
        self.sql: str = compiled.string
        #: Whether it neither changes nor locks anything.
        self.only_reads = _READS.match(self.sql) is not None and " FOR " not in self.sql
        places: list[tuple[Any, str]] = (
            list(enumerate(compiled.positiontup))
            if compiled.positional
            else [(name, name) for name in compiled.params]
        )
        unknown = names - {name for _, name in places}
        if unknown:
            raise TypeError(f"the statement has no values called {sorted(unknown)}: {self.sql}")
        template: dict[Any, Any] = {}
        given: list[tuple[Any, str, Convert | None]] = []
        for place, name in places:
            bind = compiled.binds.get(name)
            convert = None if bind is None else _bind_processor(bind.type, dialect)
            template[place] = None
            if name in names:
                given.append((place, name, convert))
            elif bind is not None and bind.required:
                raise TypeError(f"the statement needs a value called {name!r}: {self.sql}")
            else:
                fixed = compiled.params[name]
                template[place] = fixed if convert is None else convert(fixed)
        self._template = list(template.values()) if compiled.positional else template
        self._given = tuple(given)
        columns = list(getattr(statement, "exported_columns", ()))
        self._results = tuple(
            (place, convert)
            for place, column in enumerate(columns)
            if (convert := _result_processor(column.type, dialect)) is not None
        )
        self._make = _row_type([str(column.key) for column in columns]) if columns else None

    def parameters(self, values: Mapping[str, Any]) -> list[Any] | dict[str, Any]:
        """Return what the driver gets besides the text."""
        # A list and a dict alike are filled in by place.
        filled: Any = self._template.copy()
        for place, name, convert in self._given:
            value = values[name]
            # Of no value every conversion makes none.
            filled[place] = value if convert is None or value is None else convert(value)
        return filled  # type: ignore[no-any-return]

    def rows(self, cursor: Any) -> list[Any]:
        """Return all rows of the result, as named tuples with the types of their columns."""
        found = cursor.fetchall()
        if not found:
            return []
        make = self._make
        if make is None:
            make = self._make = _row_type([column[0] for column in cursor.description])
        if not self._results:
            return list(map(make, found))
        rows = []
        for raw in found:
            row = list(raw)
            for place, convert in self._results:
                if row[place] is not None:
                    row[place] = convert(row[place])
            rows.append(make(row))
        return rows


class Statements:
    """The prepared statements of one engine; thread-safe."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        self._guard = threading.Lock()
        # Weak, so that a statement that a caller built for one call does not stay.
        self._prepared: WeakKeyDictionary[sa.Executable, dict[tuple[str, ...], Prepared]] = (
            WeakKeyDictionary()
        )

    def prepared(self, statement: sa.Executable, names: tuple[str, ...]) -> Prepared:
        """Return the statement, ready for values of these names."""
        try:
            return self._prepared[statement][names]
        except KeyError:
            with self._guard:
                by_names = self._prepared.setdefault(statement, {})
                if names not in by_names:
                    by_names[names] = Prepared(statement, frozenset(names), self._dialect)
                return by_names[names]


def _row_type(names: Sequence[str]) -> Callable[[Any], Any]:
    # What has no name of its own (a count, a sum) is known by its place.
    row: Any = namedtuple("Row", names, rename=True)  # type: ignore[misc]
    make: Callable[[Any], Any] = row._make
    return make


def _bind_processor(type_: Any, dialect: sa.Dialect) -> Convert | None:
    found: Convert | None = type_.dialect_impl(dialect).bind_processor(dialect)
    return found


def _result_processor(type_: Any, dialect: sa.Dialect) -> Convert | None:
    if isinstance(type_, sa.Float):
        # Both drivers give floats as floats; SQLAlchemy would look at a type code.
        return None
    found: Convert | None = type_.dialect_impl(dialect).result_processor(dialect, None)
    return found
