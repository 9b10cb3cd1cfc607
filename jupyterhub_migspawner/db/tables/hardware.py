"""Nodes, cards and slices."""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import BigId, Json, UtcTime
from jupyterhub_migspawner.db.tables.base import metadata

nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("heartbeat_at", UtcTime, nullable=False),
    sa.Column("driver_version", sa.Text, nullable=False),
    # Of the kernel that its agent last reported from; another one has other slices.
    sa.Column("boot_id", sa.Text),
    # The process that reports, so that a second one of that name is noticed; and when it last did,
    # or nothing once it has ended.
    sa.Column("agent", Json),
    sa.Column("agent_at", UtcTime),
    # Seconds by which the machine's clock was ahead of the database's.
    sa.Column("clock_ahead", sa.Float(53)),
)

# Whose agent logs in with which role of PostgreSQL; see db/row_security.py.
node_roles = sa.Table(
    "node_roles",
    metadata,
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, nullable=False),
)

cards = sa.Table(
    "cards",
    metadata,
    sa.Column("uuid", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, sa.ForeignKey("nodes.name"), nullable=False),
    sa.Column("card_index", sa.Integer, nullable=False),
    # Of its node /dev/nvidiaN, which is not always the index; None until an agent has read it.
    sa.Column("device_minor", sa.Integer),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("mig_enabled", sa.Boolean, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    sa.Column("problem_since", UtcTime),
    # A crash in the middle of a cut can leave instances behind that are no slices.
    sa.Column("incomplete", sa.Boolean, nullable=False, server_default=sa.false()),
    # Two facts, not one state: a drained card that is lost and comes back is still drained.
    sa.Column("lost", sa.Boolean, nullable=False),
    sa.Column("drained", sa.Text, nullable=False),
    sa.Column("layout", Json, nullable=False),
    sa.Column("target", Json),
    # Whether the layout has MIG on, and who set it; nobody while it is only what was found.
    sa.Column("mig_wanted", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("layout_by", sa.Text),
    # The grant for which the card is being emptied, and once it is empty, how long it is kept.
    sa.Column("reserved_for", BigId),
    sa.Column("reserved_until", UtcTime),
    sa.Column("compute_slices", sa.Integer, nullable=False),
    # The profile that takes the whole card, as the driver last listed it.
    sa.Column("whole_profile", sa.Text),
    sa.Column("whole_start", sa.Integer),
    sa.Column("whole_size", sa.Integer),
    sa.Column("whole_memory_mib", sa.Integer),
    sa.Index("cards_node", "node"),
)

# Literal, as in the queries: a database uses a partial index only when it can see that a query's
# condition implies the index's own.
FREE = sa.text(
    "slices.held = 0 AND slices.present AND slices.uuid IS NOT NULL AND slices.wanted "
    "AND slices.quarantined = ''"
)
"""What makes a slice free, as far as the slice itself goes."""

SHARED = sa.text("slices.shared_by IS NOT NULL")
"""What makes a slice one whose seats are given out."""

_SHARED_INDEX = sa.text(str(SHARED).replace("slices.", ""))
_FREE_INDEX = sa.text(str(FREE).replace("slices.", ""))
_FREE_WHOLE_INDEX = sa.text(f"whole AND {_FREE_INDEX}")

slices = sa.Table(
    "slices",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("card_uuid", sa.Text, sa.ForeignKey("cards.uuid"), nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("compute_slices", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("whole", sa.Boolean, nullable=False),
    sa.Column("uuid", sa.Text),
    sa.Column("gi_id", sa.Integer),
    sa.Column("ci_id", sa.Integer),
    sa.Column("present", sa.Boolean, nullable=False),
    # Whether the layout has it; what the layout does not have is given to nobody any more.
    sa.Column("wanted", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("quarantined", sa.Text, nullable=False),
    sa.Column("held", sa.Integer, nullable=False),
    sa.Column("shared_by", sa.Text),
    sa.CheckConstraint("held >= 0", name="held"),
    sa.Index("slices_place", "card_uuid", "profile", "start", unique=True),
    sa.Index(
        "slices_free",
        "profile",
        "card_uuid",
        "start",
        sqlite_where=_FREE_INDEX,
        postgresql_where=_FREE_INDEX,
    ),
    sa.Index(
        "slices_free_whole",
        "card_uuid",
        "start",
        sqlite_where=_FREE_WHOLE_INDEX,
        postgresql_where=_FREE_WHOLE_INDEX,
    ),
    # In the order in which seats are given out, backwards: full slices are never looked at.
    sa.Index(
        "slices_shared",
        "shared_by",
        "profile",
        "held",
        "card_uuid",
        "start",
        sqlite_where=_SHARED_INDEX,
        postgresql_where=_SHARED_INDEX,
    ),
)
