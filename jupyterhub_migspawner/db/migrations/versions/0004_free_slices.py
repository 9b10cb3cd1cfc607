"""Free slices have an index of their own: finding one does not depend on how many there are.

It takes the place of the one over all slices by profile.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

FREE = "held = 0 AND present AND uuid IS NOT NULL AND wanted AND quarantined = ''"


def upgrade() -> None:
    op.drop_index("slices_profile_held", "slices")
    for name, columns, where in (
        ("slices_free", ["profile", "card_uuid", "start"], sa.text(FREE)),
        ("slices_free_whole", ["card_uuid", "start"], sa.text(f"whole AND {FREE}")),
    ):
        op.create_index(name, "slices", columns, sqlite_where=where, postgresql_where=where)
