"""Columns of readings are named for what they hold."""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.alter_column("readings", "mark", new_column_name="fingerprint")
    op.alter_column("readings", "trouble", new_column_name="problem")
