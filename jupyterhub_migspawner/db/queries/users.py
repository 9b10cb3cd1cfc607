"""Whether the lease database has recorded anything of a person.

Looks at what is kept: leases and requests stay when events are compacted, and events have no index
by user.
"""

from __future__ import annotations

import sqlalchemy as sa

from jupyterhub_migspawner.db.tables import (
    drafts,
    leases,
    notice_choices,
    quota_exceptions,
    requests,
    tickets,
)
from jupyterhub_migspawner.db.transaction import Transaction

_TABLES = (leases, requests, tickets, quota_exceptions, drafts, notice_choices)
_KNOWN = sa.union_all(
    *(
        sa.select(sa.literal(1)).where(
            sa.exists().where(table.c.username == sa.bindparam("user")).correlate(None)
        )
        for table in _TABLES
    )
)


def is_known(tx: Transaction, user: str) -> bool:
    """Tell whether any row is of a user of that name, at any hub."""
    return bool(tx.rows(_KNOWN, user=user))
