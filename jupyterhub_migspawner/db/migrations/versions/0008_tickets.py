"""The waiting list: tickets, and leases that are held for one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "tickets",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("hub", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("tiers", JSON, nullable=False),
        sa.Column("start", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("blocked", sa.Text(), nullable=False),
        sa.Column("overtaken", sa.Integer(), nullable=False),
        sa.Column("offer_until", TIME),
        sa.Column("ended_at", TIME),
        sa.Column("end_reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="tickets_pkey"),
        sa.CheckConstraint(
            "state IN ('waiting', 'offered', 'taken', 'lapsed', 'cancelled')",
            name=op.f("tickets_state_check"),
        ),
    )
    for name, columns, unique in (
        ("tickets_one_a_tier", ["hub", "username", "tier"], True),
        ("tickets_open", ["state"], False),
    ):
        is_open = sa.text("state IN ('waiting', 'offered')")
        op.create_index(
            name,
            "tickets",
            columns,
            unique=unique,
            sqlite_where=is_open,
            postgresql_where=is_open,
        )
    if op.get_bind().dialect.name == "postgresql":
        op.add_column("leases", sa.Column("ticket_id", BIG_ID))
        op.create_foreign_key("leases_ticket_id_fkey", "leases", "tickets", ["ticket_id"], ["id"])
    else:
        # SQLite takes a reference along with a new column only where it is written in the column.
        op.execute(
            "ALTER TABLE leases ADD COLUMN ticket_id INTEGER "
            "CONSTRAINT leases_ticket_id_fkey REFERENCES tickets (id)"
        )
    op.drop_index("leases_one_a_server", "leases")
    runs = sa.text("state IN ('pending', 'active') AND ticket_id IS NULL")
    op.create_index(
        "leases_one_a_server",
        "leases",
        ["hub", "username", "server"],
        unique=True,
        sqlite_where=runs,
        postgresql_where=runs,
    )
