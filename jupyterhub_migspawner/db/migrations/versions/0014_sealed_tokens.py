"""Servers' tokens are sealed with a key of their hub; those in clear are removed.

What runs now was started before there was a key, so its tokens are not kept: these sessions stay
unknown, and never idle, until they are started again. After the migration the old tokens are erased
from the file as well (``jupyterhub_migspawner.db.migrations.erase``).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.execute(sa.text("UPDATE stays SET token = ''"))
    # As plain SQL: Alembic copies a whole table for it on SQLite, which has had this since 3.35.
    op.execute(sa.text("ALTER TABLE stays DROP COLUMN token"))
    op.add_column(
        "stays", sa.Column("sealed", sa.Text(), nullable=False, server_default=sa.text("''"))
    )
