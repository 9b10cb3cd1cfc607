"""What the time was by each machine's count of seconds; when the hub began a lease's start."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")


def upgrade() -> None:
    op.create_table(
        "clocks",
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("moment", TIME, nullable=False),
        sa.Column("ticks", sa.Float(53), nullable=False),
        sa.Column("awake", sa.Float(53), nullable=False),
        sa.Column("steps", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("boot_id", name="clocks_pkey"),
    )
    op.add_column("leases", sa.Column("started", TIME))
