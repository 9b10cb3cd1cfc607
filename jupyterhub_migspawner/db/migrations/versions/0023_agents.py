"""Which process reports for a node, so that two with one name are noticed; and its clock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0023"
down_revision = "0022"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("nodes", sa.Column("agent", JSON))
    op.add_column("nodes", sa.Column("agent_at", TIME))
    op.add_column("nodes", sa.Column("clock_ahead", sa.Float(53)))
