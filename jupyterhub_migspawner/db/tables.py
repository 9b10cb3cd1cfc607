"""The tables of the lease database.

Two unique partial indexes are the last word on rule one of the design: a seat of a slice has at
most one live lease, and a server of a user of a hub has at most one lease it may run on. Everything
else in this package only finds out earlier and says it better.

``slices.held`` counts the live leases on a slice. It repeats what ``leases`` says so that a free
slice can be found, and its row locked, without looking at leases; both change in one transaction.
So does ``slices.shared_by``, the tier whose seats the live leases are; it is null while nobody has
the slice, or one lease has it alone.

Made by the migrations in :mod:`.migrations`; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import BigId, Json, UtcTime

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

# Which database this is: made once, and told apart from its own older copies by the generation,
# which grows with every restore, and by the newest lease and event.
database_identity = sa.Table(
    "database_identity",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("identity", sa.Text, nullable=False),
    sa.Column("generation", BigId, nullable=False),
    sa.Column("made_at", UtcTime, nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
)

nodes = sa.Table(
    "nodes",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("heartbeat_at", UtcTime, nullable=False),
    sa.Column("driver_version", sa.Text, nullable=False),
    # Of the kernel that its agent last reported from; another one has other slices.
    sa.Column("boot_id", sa.Text),
)

# The hubs that lend from here. A name belongs to one home, so that two hubs with one name are found
# before they end each other's servers.
hubs = sa.Table(
    "hubs",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("home", sa.Text, nullable=False),
    sa.Column("seen_at", UtcTime),
)

# What the time was when a machine had been up for ``ticks`` seconds; all processes of that machine
# count on from there.
clocks = sa.Table(
    "clocks",
    metadata,
    sa.Column("boot_id", sa.Text, primary_key=True),
    sa.Column("moment", UtcTime, nullable=False),
    sa.Column("ticks", sa.Float(53), nullable=False),
    # As ticks, without the time in which the machine slept.
    sa.Column("awake", sa.Float(53), nullable=False),
    # How many steps of the clock were found.
    sa.Column("steps", sa.BigInteger, nullable=False),
)

cards = sa.Table(
    "cards",
    metadata,
    sa.Column("uuid", sa.Text, primary_key=True),
    sa.Column("node", sa.Text, sa.ForeignKey("nodes.name"), nullable=False),
    sa.Column("card_index", sa.Integer, nullable=False),
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
    sa.Column("mark", sa.Text, nullable=False),
    sa.Column("said", sa.Text, nullable=False),
    sa.Column("trouble", sa.Text, nullable=False),
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
