"""The database's identity, and servers that run although it does not know them.

A database from before gets its identity here. Servers that ran before the upgrade carry no mark of
it; their attempts are known, so nothing changes for them.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timezone

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql")


def upgrade() -> None:
    identity = op.create_table(
        "database_identity",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("generation", BIG, nullable=False),
        sa.Column("made_at", TIME, nullable=False),
        sa.CheckConstraint("id = 1", name="one_row"),
        sa.PrimaryKeyConstraint("id", name="database_identity_pkey"),
    )
    now = datetime.now(timezone.utc)
    postgres = op.get_bind().dialect.name == "postgresql"
    op.bulk_insert(
        identity,
        [
            {
                "id": 1,
                "identity": secrets.token_hex(16),
                "generation": 1,
                "made_at": now if postgres else now.isoformat(timespec="microseconds"),
            }
        ],
    )
    op.create_table(
        "orphans",
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("card_uuid", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer()),
        sa.Column("slice_uuid", sa.Text(), nullable=False),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("generation", BIG, nullable=False),
        sa.Column("hub", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("since", TIME),
        sa.Column("ends_at", TIME),
        sa.Column("request_id", BIG),
        sa.Column("vouched", sa.Boolean(), nullable=False),
        sa.Column("pids", JSON, nullable=False),
        sa.Column("found_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("attempt", name="orphans_pkey"),
    )
