"""Desired layout of a card: MIG mode, who set it, and which slices the layout has.

A card that was cut keeps its layout as the desired one. One whose layout was empty and whose MIG is
off is desired so, as nobody has set another.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TIME = sa.String(32).with_variant(sa.DateTime(timezone=True), "postgresql")
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

cards = sa.table(
    "cards",
    sa.column("uuid", sa.Text()),
    sa.column("mig_enabled", sa.Boolean()),
    sa.column("mig_wanted", sa.Boolean()),
    sa.column("layout", sa.JSON()),
)
slices = sa.table(
    "slices",
    sa.column("id", BIG_ID),
    sa.column("card_uuid", sa.Text()),
    sa.column("profile", sa.Text()),
    sa.column("start", sa.Integer()),
    sa.column("wanted", sa.Boolean()),
)


def upgrade() -> None:
    # With defaults for the rows that are there. SQLite could only drop them again by making the
    # table again, which the rows that refer to it forbid.
    op.add_column(
        "cards", sa.Column("mig_wanted", sa.Boolean(), nullable=False, server_default=sa.true())
    )
    op.add_column("cards", sa.Column("layout_by", sa.Text()))
    op.add_column("cards", sa.Column("reserved_for", BIG_ID))
    op.add_column("cards", sa.Column("reserved_until", TIME))
    op.add_column("cards", sa.Column("problem_since", TIME))
    op.add_column(
        "cards", sa.Column("incomplete", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column("nodes", sa.Column("boot_id", sa.Text()))
    op.add_column(
        "slices", sa.Column("wanted", sa.Boolean(), nullable=False, server_default=sa.true())
    )
    connection = op.get_bind()
    for card in connection.execute(sa.select(cards.c.uuid, cards.c.mig_enabled, cards.c.layout)):
        if not card.layout and not card.mig_enabled:
            connection.execute(
                sa.update(cards).where(cards.c.uuid == card.uuid).values(mig_wanted=False)
            )
        layout = {(str(profile), int(start)) for profile, start in card.layout}
        for row in connection.execute(sa.select(slices).where(slices.c.card_uuid == card.uuid)):
            if layout and (row.profile, row.start) not in layout:
                connection.execute(
                    sa.update(slices).where(slices.c.id == row.id).values(wanted=False)
                )
