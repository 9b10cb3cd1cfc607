"""Statements for part of a list that may be long."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


def narrowed(
    statement: sa.Select[Any], id_column: sa.ColumnElement[int], begins: bool
) -> sa.Select[Any]:
    """Return the statement for a part, newest row first.

    ``begins`` is for a part that has no ``before``.
    """
    if not begins:
        statement = statement.where(id_column < sa.bindparam("part_before"))
    limit = sa.bindparam("part_limit", type_=sa.Integer())
    return statement.order_by(None).order_by(id_column.desc()).limit(limit)
