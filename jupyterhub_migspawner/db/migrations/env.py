"""Alembic's entry: runs the steps on the connection, and in the transaction, it is given."""

from __future__ import annotations

from alembic import context

from jupyterhub_migspawner.db.migrations import VERSION_TABLE
from jupyterhub_migspawner.db.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite cannot alter most things of a table; Alembic then copies it.
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
