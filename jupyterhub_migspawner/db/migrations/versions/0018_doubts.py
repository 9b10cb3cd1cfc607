"""Since when a source claims use, and since when it is unknown now and then."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("readings", sa.Column("active_since", TIME))
    op.add_column("stays", sa.Column("silent_since", TIME))
    op.add_column("stays", sa.Column("silent_at", TIME))
    op.add_column("stays", sa.Column("alerted_for", sa.Text()))
