"""The first schema: nodes, cards, slices, requests, leases, tombstones, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

# Written out here and not taken from the code: this step must stay what it was.
TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True).with_variant(
    postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), "postgresql"
)
LIVE = sa.text("state IN ('pending', 'active', 'releasing')")
HELD = sa.text("state IN ('pending', 'active')")


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("heartbeat_at", TIME, nullable=False),
        sa.Column("driver_version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("nodes_pkey")),
    )
    op.create_table(
        "cards",
        sa.Column("uuid", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("card_index", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("mig_enabled", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("lost", sa.Boolean(), nullable=False),
        sa.Column("drained", sa.Text(), nullable=False),
        sa.Column("layout", JSON, nullable=False),
        sa.Column("target", JSON),
        sa.Column("compute_slices", sa.Integer(), nullable=False),
        sa.Column("whole_profile", sa.Text()),
        sa.Column("whole_start", sa.Integer()),
        sa.Column("whole_size", sa.Integer()),
        sa.Column("whole_memory_mib", sa.Integer()),
        sa.ForeignKeyConstraint(["node"], ["nodes.name"], name=op.f("cards_node_fkey")),
        sa.PrimaryKeyConstraint("uuid", name=op.f("cards_pkey")),
    )
    op.create_index("cards_node", "cards", ["node"])
    op.create_table(
        "slices",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("card_uuid", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("compute_slices", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("uuid", sa.Text()),
        sa.Column("gi_id", sa.Integer()),
        sa.Column("ci_id", sa.Integer()),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("quarantined", sa.Text(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.CheckConstraint("held >= 0", name=op.f("slices_held_check")),
        sa.ForeignKeyConstraint(["card_uuid"], ["cards.uuid"], name=op.f("slices_card_uuid_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("slices_pkey")),
    )
    op.create_index("slices_place", "slices", ["card_uuid", "profile", "start"], unique=True)
    op.create_index("slices_profile_held", "slices", ["profile", "held"])
    op.create_table(
        "requests",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("hours", sa.Float(precision=53), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided_at", TIME),
        sa.Column("decision_reason", sa.Text(), nullable=False),
        sa.Column("valid_until", TIME),
        sa.CheckConstraint(
            "state IN ('pending', 'approved', 'denied', 'cancelled', 'expired', 'used')",
            name=op.f("requests_state_check"),
        ),
        sa.CheckConstraint("hours > 0", name=op.f("requests_hours_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("requests_pkey")),
    )
    op.create_index("requests_state", "requests", ["state"])
    op.create_index("requests_user", "requests", ["username", "tier"])
    op.create_table(
        "leases",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("tier", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("slice_id", BIG_ID, nullable=False),
        sa.Column("seat", sa.Integer(), nullable=False),
        sa.Column("slice_uuid", sa.Text()),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("card_uuid", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("whole", sa.Boolean(), nullable=False),
        sa.Column("share", sa.Float(precision=53), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("deadline", TIME),
        sa.Column("ends_at", TIME),
        sa.Column("releasing_at", TIME),
        sa.Column("ended_at", TIME),
        sa.Column("end_reason", sa.Text(), nullable=False),
        sa.Column("waiting_for", sa.Text(), nullable=False),
        sa.Column("request_id", BIG_ID),
        sa.CheckConstraint(
            "state IN ('pending', 'active', 'releasing', 'released', 'lost')",
            name=op.f("leases_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("leases_request_id_fkey")
        ),
        sa.ForeignKeyConstraint(["slice_id"], ["slices.id"], name=op.f("leases_slice_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("leases_pkey")),
    )
    op.create_index("leases_attempt", "leases", ["attempt"], unique=True)
    op.create_index("leases_live", "leases", ["state"], sqlite_where=LIVE, postgresql_where=LIVE)
    op.create_index(
        "leases_one_a_seat",
        "leases",
        ["slice_id", "seat"],
        unique=True,
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    op.create_index(
        "leases_one_a_server",
        "leases",
        ["username", "server"],
        unique=True,
        sqlite_where=HELD,
        postgresql_where=HELD,
    )
    op.create_index("leases_user_ended", "leases", ["username", "ended_at"])
    op.create_index("leases_user_since", "leases", ["username", "since"])
    op.create_table(
        "tombstones",
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("attempt", name=op.f("tombstones_pkey")),
    )
    op.create_table(
        "events",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("lease_id", BIG_ID),
        sa.Column("card_uuid", sa.Text()),
        sa.Column("request_id", BIG_ID),
        sa.Column("detail", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("events_pkey")),
    )
    op.create_index("events_lease", "events", ["lease_id"])
