"""Types of columns that both databases keep in their own way: times, JSON, numbers of rows."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql


class UtcTime(sa.TypeDecorator[datetime]):
    """An aware UTC datetime: ``timestamptz`` on PostgreSQL, sortable ISO text on SQLite."""

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Return the column type of this database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.DateTime(timezone=True))
        return dialect.type_descriptor(sa.String(32))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        """Refuse naive times: they would silently mean another moment on each machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored; use aware UTC datetimes")
        value = value.astimezone(timezone.utc)
        if dialect.name == "postgresql":
            return value
        return value.isoformat(timespec="microseconds")

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        """Return the time in UTC, whatever zone the server prefers."""
        if value is None:
            return None
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        found: datetime = value.astimezone(timezone.utc)
        return found


Json = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), "postgresql"
)
"""JSON as the database keeps it best."""

# SQLite only numbers rows by itself when the key is spelt INTEGER.
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
