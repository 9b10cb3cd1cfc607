"""Several people may have seats on one slice: which tier's seats they are.

The index is in the order in which seats are given out.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("slices", sa.Column("shared_by", sa.Text()))
    where = sa.text("shared_by IS NOT NULL")
    op.create_index(
        "slices_shared",
        "slices",
        ["shared_by", "profile", "held", "card_uuid", "start"],
        sqlite_where=where,
        postgresql_where=where,
    )
