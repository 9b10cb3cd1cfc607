"""Leases, what is known of their sessions, and servers without a lease."""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import BigId, Json, UtcTime
from jupyterhub_migspawner.db.tables.base import metadata

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("id", BigId, primary_key=True),
    sa.Column("attempt", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("server", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("slice_id", BigId, sa.ForeignKey("slices.id"), nullable=False),
    sa.Column("seat", sa.Integer, nullable=False),
    # Copied from the slice: what a lease says must not change when the card is cut differently.
    sa.Column("slice_uuid", sa.Text),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("card_uuid", sa.Text, nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    sa.Column("start", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("whole", sa.Boolean, nullable=False),
    sa.Column("share", sa.Float(53), nullable=False),
    sa.Column("since", UtcTime, nullable=False),
    sa.Column("deadline", UtcTime),
    sa.Column("ends_at", UtcTime),
    sa.Column("releasing_at", UtcTime),
    sa.Column("ended_at", UtcTime),
    sa.Column("end_reason", sa.Text, nullable=False),
    sa.Column("waiting_for", sa.Text, nullable=False),
    sa.Column("request_id", BigId, sa.ForeignKey("requests.id")),
    sa.Column("hub", sa.Text, nullable=False, server_default=sa.text("'hub'")),
    # Set while, or as long as, it is no more than an offer: no server has begun to start on it.
    sa.Column("ticket_id", BigId, sa.ForeignKey("tickets.id")),
    # The end of which its person was warned.
    sa.Column("warned_for", UtcTime),
    # When the hub began this start of the server, by the hub's own clock and never converted: by
    # that the hub's server and the lease know each other, whatever clocks do meanwhile.
    sa.Column("started", UtcTime),
    # What keeps its server off other slices; empty until that is known, just before the launch.
    sa.Column("isolation", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.CheckConstraint(
        "state IN ('pending', 'active', 'releasing', 'released', 'lost')", name="state"
    ),
    sa.Index("leases_attempt", "attempt", unique=True),
    sa.Index(
        "leases_one_a_seat",
        "slice_id",
        "seat",
        unique=True,
        sqlite_where=sa.text("state IN ('pending', 'active', 'releasing')"),
        postgresql_where=sa.text("state IN ('pending', 'active', 'releasing')"),
    ),
    sa.Index(
        "leases_one_a_server",
        "hub",
        "username",
        "server",
        unique=True,
        # An offer waits beside the server that its person may still run under that name.
        sqlite_where=sa.text("state IN ('pending', 'active') AND ticket_id IS NULL"),
        postgresql_where=sa.text("state IN ('pending', 'active') AND ticket_id IS NULL"),
    ),
    sa.Index(
        "leases_live",
        "state",
        sqlite_where=sa.text("state IN ('pending', 'active', 'releasing')"),
        postgresql_where=sa.text("state IN ('pending', 'active', 'releasing')"),
    ),
    sa.Index("leases_of_user", "username", "id"),
    sa.Index("leases_user_since", "username", "since"),
    sa.Index("leases_user_ended", "username", "ended_at"),
)

# What each source last said of whether a live lease's session is in use.
readings = sa.Table(
    "readings",
    metadata,
    sa.Column("lease_id", BigId, sa.ForeignKey("leases.id"), primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    # When it last answered, and the latest activity that it knows of.
    sa.Column("seen_at", UtcTime),
    sa.Column("active_at", UtcTime),
    # What it said, to be compared with what it says next: something has happened if that differs.
    sa.Column("fingerprint", sa.Text, nullable=False),
    sa.Column("said", sa.Text, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
    # Since when it reports activity again and again.
    sa.Column("active_since", UtcTime),
)

# What is known of the session of a live lease besides: how its server is asked, what holds its
# end off, what its person and the admins were notified of.
stays = sa.Table(
    "stays",
    metadata,
    sa.Column("lease_id", BigId, sa.ForeignKey("leases.id"), primary_key=True, autoincrement=False),
    # The server's own address, and its own token as its hub has sealed it for that address. Other
    # hubs and all nodes read this table: no token stands in it in clear.
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("extended_until", UtcTime),
    sa.Column("protected_until", UtcTime),
    sa.Column("protected_by", sa.Text, nullable=False),
    sa.Column("protected_why", sa.Text, nullable=False),
    sa.Column("warned_at", UtcTime),
    sa.Column("alerted_at", UtcTime),
    sa.Column("told_until", UtcTime),
    # The first and the last time that it was unknown whether it is in use.
    sa.Column("silent_since", UtcTime),
    sa.Column("silent_at", UtcTime),
    # What kind of doubt admins were notified of.
    sa.Column("alerted_for", sa.Text),
    sa.Column("sealed", sa.Text, nullable=False, server_default=sa.text("''")),
)

# The processes of a live lease's session, as its node's agent has seen them: an agent that starts
# again must still know those that have dropped their mark.
processes = sa.Table(
    "processes",
    metadata,
    sa.Column("lease_id", BigId, sa.ForeignKey("leases.id"), primary_key=True, autoincrement=False),
    # The system user that the server runs as.
    sa.Column("uid", sa.BigInteger),
    # Of the kernel in which the processes have these pids and start times.
    sa.Column("boot_id", sa.Text, nullable=False),
    sa.Column("known", Json, nullable=False),
    # Uids of other users whose processes on the slice were reported.
    sa.Column("reported", Json, nullable=False),
)

tombstones = sa.Table(
    "tombstones",
    metadata,
    # Attempts that were cancelled before they had a lease; a thread that comes late is refused.
    sa.Column("attempt", sa.Text, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
)

# Servers that run on a slice although this database has no lease of theirs, as after it was
# deleted or replaced by an older copy. Their processes' marks show them, or their hub names them.
orphans = sa.Table(
    "orphans",
    metadata,
    sa.Column("attempt", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("card_uuid", sa.Text, nullable=False),
    sa.Column("profile", sa.Text, nullable=False),
    # None where only the slice's UUID is known.
    sa.Column("start", sa.Integer),
    sa.Column("slice_uuid", sa.Text, nullable=False),
    # Of the database that lent the slice.
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("generation", BigId, nullable=False),
    sa.Column("hub", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("server", sa.Text, nullable=False),
    sa.Column("tier", sa.Text, nullable=False),
    sa.Column("since", UtcTime),
    sa.Column("ends_at", UtcTime),
    sa.Column("request_id", BigId),
    # Whether its hub says that it runs; then user, server and tier are the hub's word.
    sa.Column("vouched", sa.Boolean, nullable=False),
    # Processes with its mark, as its node's agent last saw them.
    sa.Column("pids", Json, nullable=False),
    sa.Column("found_at", UtcTime, nullable=False),
    # What its hub has saved of it: by the hub's own clock; the server's address, its sealed token.
    sa.Column("started", UtcTime),
    sa.Column("url", sa.Text, nullable=False, server_default=sa.text("''")),
    sa.Column("sealed", sa.Text, nullable=False, server_default=sa.text("''")),
)
