"""The processes of sessions, so that one that drops its mark is still known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("lease_id", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("uid", sa.BigInteger()),
        sa.Column("boot_id", sa.Text(), nullable=False),
        sa.Column("known", JSON, nullable=False),
        sa.Column("reported", JSON, nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.id"]),
        sa.PrimaryKeyConstraint("lease_id", name="processes_pkey"),
    )
