"""The numbers of cards' device nodes, and what keeps the servers of leases apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.add_column("cards", sa.Column("device_minor", sa.Integer()))
    op.add_column(
        "leases",
        sa.Column("isolation", sa.Text(), nullable=False, server_default=sa.text("''")),
    )
