"""Several hubs may share the lease database: each lease and request says whose it is.

What was there before belongs to the only hub there was, under the name that a hub has by default.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
HELD = sa.text("state IN ('pending', 'active')")


def upgrade() -> None:
    op.create_table(
        "hubs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("home", sa.Text(), nullable=False),
        sa.Column("seen_at", TIME),
        sa.PrimaryKeyConstraint("name", name="hubs_pkey"),
    )
    for table in ("leases", "requests"):
        op.add_column(
            table, sa.Column("hub", sa.Text(), nullable=False, server_default=sa.text("'hub'"))
        )
    op.drop_index("leases_one_a_server", "leases")
    op.create_index(
        "leases_one_a_server",
        "leases",
        ["hub", "username", "server"],
        unique=True,
        sqlite_where=HELD,
        postgresql_where=HELD,
    )
