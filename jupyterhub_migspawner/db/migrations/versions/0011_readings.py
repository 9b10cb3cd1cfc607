"""Whether sessions are in use: what their sources say, how they are reached, what holds them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "readings",
        sa.Column("lease_id", BIG_ID, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("seen_at", TIME),
        sa.Column("active_at", TIME),
        sa.Column("mark", sa.Text(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"]),
        sa.PrimaryKeyConstraint("lease_id", "source", name="readings_pkey"),
    )
    op.create_table(
        "stays",
        sa.Column("lease_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("extended_until", TIME),
        sa.Column("protected_until", TIME),
        sa.Column("protected_by", sa.Text(), nullable=False),
        sa.Column("protected_why", sa.Text(), nullable=False),
        sa.Column("warned_at", TIME),
        sa.Column("alerted_at", TIME),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"]),
        sa.PrimaryKeyConstraint("lease_id", name="stays_pkey"),
    )
