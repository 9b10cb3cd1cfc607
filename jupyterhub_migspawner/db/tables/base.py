"""The metadata, and the tables about the database itself and its clients."""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.db.columns import BigId, UtcTime

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
