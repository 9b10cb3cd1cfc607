"""What a hub has saved of a server without a lease, for the time after its adoption."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

EMPTY = sa.text("''")
TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.add_column("orphans", sa.Column("started", TIME))
    op.add_column("orphans", sa.Column("url", sa.Text(), nullable=False, server_default=EMPTY))
    op.add_column("orphans", sa.Column("sealed", sa.Text(), nullable=False, server_default=EMPTY))
