"""The event log, and what is left of old events."""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import BigId, Json, UtcTime
from jupyterhub_migspawner.db.tables.base import metadata

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("lease_id", BigId),
    sa.Column("card_uuid", sa.Text),
    sa.Column("request_id", BigId),
    sa.Column("detail", Json, nullable=False),
    sa.Index("events_lease", "lease_id"),
)

# What is left of old events: how many of a kind there were in a month (UTC, as 2026-11), about
# whom and what. What an event does not say is empty here.
event_counts = sa.Table(
    "event_counts",
    metadata,
    sa.Column("month", sa.String(7), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("username", sa.Text, primary_key=True),
    sa.Column("tier", sa.Text, primary_key=True),
    sa.Column("profile", sa.Text, primary_key=True),
    sa.Column("card_uuid", sa.Text, primary_key=True),
    sa.Column("number", BigId, nullable=False),
)

# How far those who pass events on have come.
event_readers = sa.Table(
    "event_readers",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("event_id", BigId, nullable=False),
)
