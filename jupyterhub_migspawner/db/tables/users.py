"""What users ask for and have chosen, and what was granted to them."""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import BigId, Json, UtcTime
from jupyterhub_migspawner.db.tables.base import metadata

requests = sa.Table(
    "requests",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("hours", sa.Float(53), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("decided_at", UtcTime),
    sa.Column("decision_reason", sa.Text, nullable=False),
    sa.Column("valid_until", UtcTime),
    # Of the hub where it was made: a user whom that hub renames or deletes takes it along.
    sa.Column("hub", sa.Text, nullable=False, server_default=sa.text("'hub'")),
    # The user's groups when they asked, by which it is found who decides.
    sa.Column("groups", Json, nullable=False, server_default=sa.text("'[]'")),
    # The requested start, and the start of the grant.
    sa.Column("starts_at", UtcTime),
    sa.Column("valid_from", UtcTime),
    # The first of two approvers, where two are needed.
    sa.Column("first_by", sa.Text, nullable=False, server_default=sa.text("''")),
    # How often a server has run on it.
    sa.Column("uses", sa.Integer, nullable=False, server_default=sa.text("0")),
    # When its approvers were reminded, and its user told that it ends soon.
    sa.Column("reminded_at", UtcTime),
    sa.Column("warned_at", UtcTime),
    sa.CheckConstraint(
        "state IN ('pending', 'approved', 'denied', 'cancelled', 'expired', 'used')", name="state"
    ),
    sa.CheckConstraint("hours > 0", name="hours"),
    sa.Index("requests_user", "username", "tier"),
    sa.Index("requests_state", "state"),
    sa.Index("requests_of_user", "username", "id"),
    sa.Index(
        "requests_open",
        "username",
        "id",
        sqlite_where=sa.text("state IN ('pending', 'approved')"),
        postgresql_where=sa.text("state IN ('pending', 'approved')"),
    ),
)

# Requests that a user has begun to write and nobody else sees.
drafts = sa.Table(
    "drafts",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("hub", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("hours", sa.Text, nullable=False),
    sa.Column("starts_at", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
    sa.Index("drafts_user", "hub", "username"),
)

tickets = sa.Table(
    "tickets",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("hub", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    # The server that it is for, which need not exist yet.
    sa.Column("server", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    # The tiers that will do, best first: the one that was asked for, perhaps larger ones.
    sa.Column("tiers", Json, nullable=False),
    sa.Column("start", sa.Boolean, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    # What keeps it from its turn; later tickets need not wait behind it.
    sa.Column("blocked", sa.Text, nullable=False),
    sa.Column("overtaken", sa.Integer, nullable=False),
    sa.Column("offer_until", UtcTime),
    sa.Column("ended_at", UtcTime),
    sa.Column("end_reason", sa.Text, nullable=False),
    sa.CheckConstraint(
        "state IN ('waiting', 'offered', 'taken', 'lapsed', 'cancelled')", name="state"
    ),
    sa.Index(
        "tickets_one_a_tier",
        "hub",
        "username",
        "tier",
        unique=True,
        sqlite_where=sa.text("state IN ('waiting', 'offered')"),
        postgresql_where=sa.text("state IN ('waiting', 'offered')"),
    ),
    sa.Index("tickets_of_user", "hub", "username", "id"),
    sa.Index(
        "tickets_open",
        "state",
        sqlite_where=sa.text("state IN ('waiting', 'offered')"),
        postgresql_where=sa.text("state IN ('waiting', 'offered')"),
    ),
)

quota_exceptions = sa.Table(
    "quota_exceptions",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("hub", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    # None is no limit at all.
    sa.Column("amount", sa.Float(53)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("granted_by", sa.Text, nullable=False),
    sa.Column("granted_at", UtcTime, nullable=False),
    sa.Column("until", UtcTime, nullable=False),
    # Set when it was ended before its time.
    sa.Column("ended_by", sa.Text, nullable=False),
    sa.Column("ended_at", UtcTime),
    sa.Index("quota_exceptions_user", "username", "until"),
)

# Which notices users have chosen, and which not.
notice_choices = sa.Table(
    "notice_choices",
    metadata,
    sa.Column("hub", sa.Text, primary_key=True),
    sa.Column("username", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("wanted", sa.Boolean, nullable=False),
    sa.Column("changed_at", UtcTime, nullable=False),
)

# How many actions of each person count at a moment; see policy/rates.py.
action_rates = sa.Table(
    "action_rates",
    metadata,
    sa.Column("hub", sa.Text, primary_key=True),
    sa.Column("username", sa.Text, primary_key=True),
    sa.Column("level", sa.Float(53), nullable=False),
    sa.Column("at", UtcTime, nullable=False),
)
