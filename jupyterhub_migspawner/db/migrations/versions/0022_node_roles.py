"""Which login role of PostgreSQL belongs to which node.

Its rights on rows are in :mod:`jupyterhub_migspawner.db.row_security`, and set after all steps.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.create_table(
        "node_roles",
        sa.Column("role", sa.Text(), primary_key=True),
        sa.Column("node", sa.Text(), nullable=False),
    )
