"""How fast people write, and indexes for parts of long lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
OPEN = sa.text("state IN ('pending', 'approved')")


def upgrade() -> None:
    op.create_table(
        "action_rates",
        sa.Column("hub", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("level", sa.Float(53), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("hub", "username", name="action_rates_pkey"),
    )
    op.create_index("requests_of_user", "requests", ["username", "id"])
    op.create_index(
        "requests_open", "requests", ["username", "id"], sqlite_where=OPEN, postgresql_where=OPEN
    )
    op.create_index("leases_of_user", "leases", ["username", "id"])
    op.create_index("tickets_of_user", "tickets", ["hub", "username", "id"])
