"""Lease databases of two sizes to measure on, as they look after years of use."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from tests.broker.lab import START, Lab, card

CARDS_A_NODE = 8
USERS = 2_000
"""People among whom past leases are spread."""

DAYS = 730
"""Over which they are spread."""

TIERS: list[dict[str, Any]] = [
    {"name": "small", "profile": "1g.5gb", "default": True},
    {"name": "medium", "profile": "2g.10gb"},
    {"name": "large", "profile": "3g.20gb", "max_hours": 12},
    {"name": "card", "profile": "whole", "approval": True, "max_hours": 48},
    {"name": "cpu", "profile": "none"},
]
QUOTAS = {"default": {"live": 2, "gpu_hours_per_week": 100}}

# Every second slice is held, as by chance: a full card, or an empty one, is rare.
_HOLD = "UPDATE slices SET held = 1 WHERE id {mod} 2 = 0"
_LEASES = """
INSERT INTO leases (attempt, username, server, tier, state, slice_id, seat, slice_uuid, node,
  card_uuid, profile, start, memory_mib, whole, share, since, ended_at, end_reason, waiting_for)
SELECT 'held ' || id, 'holder ' || id, '', 'small', 'active', id, 0, uuid, 'n',
  card_uuid, profile, start, memory_mib, whole, 1 / 7.0, {since}, NULL, '', ''
FROM slices WHERE held = 1
"""
# Number n is of user n % USERS and ended in the n-th part of the time before now.
_PAST = """
INSERT INTO leases (attempt, username, server, tier, state, slice_id, seat, slice_uuid, node,
  card_uuid, profile, start, memory_mib, whole, share, since, releasing_at, ended_at, end_reason,
  waiting_for)
SELECT 'past ' || n, 'user' || n {mod} {users}, '', 'small', 'released', slices.id, 0, slices.uuid,
  'n', slices.card_uuid, slices.profile, slices.start, slices.memory_mib, slices.whole, 1 / 7.0,
  {since}, {ended}, {ended}, 'stopped', ''
FROM {numbers} JOIN slices ON slices.id = 1 + n {mod} (SELECT count(*) FROM slices)
"""
_NUMBERS_SQLITE = """(WITH RECURSIVE numbers (n) AS (
  SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {past} - 1) SELECT n FROM numbers)"""


def filled(url: str, cards: int, past: int, *, held: bool = True) -> Lab:
    """A lab over that many cards in sevenths with that many past leases.

    With ``held`` half of the slices are held by others.
    """
    lab = Lab(url, tiers=TIERS, quotas=QUOTAS)
    for first in range(0, cards, CARDS_A_NODE):
        some = [card(index) for index in range(first, min(first + CARDS_A_NODE, cards))]
        lab.report(*some, node=f"n{first // CARDS_A_NODE}")
    seconds = DAYS * 86_400
    made = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with made.begin() as connection:
        # psycopg takes a single % for the begin of a placeholder.
        mod = "%" if connection.dialect.name == "sqlite" else "%%"
        if connection.dialect.name == "sqlite":
            start = START.isoformat(timespec="microseconds")
            moment = "strftime('%Y-%m-%dT%H:%M:%S.000000+00:00', '{0}', '-' || ({1}) || ' seconds')"
            numbers = _NUMBERS_SQLITE.format(past=past)
        else:
            start = START.isoformat()
            moment = "(timestamptz '{0}' - ({1}) * interval '1 second')"
            numbers = f"generate_series(0, {past} - 1) AS numbers (n)"
        ago = f"1 + CAST(n AS bigint) * {seconds} / {max(past, 1)}"
        if held:
            connection.exec_driver_sql(_HOLD.format(mod=mod))
            connection.exec_driver_sql(_LEASES.format(since=moment.format(start, "3600")))
        if past:
            connection.exec_driver_sql(
                _PAST.format(
                    mod=mod,
                    users=USERS,
                    numbers=numbers,
                    since=moment.format(start, f"{ago} + 7200"),
                    ended=moment.format(start, ago),
                )
            )
    if made.dialect.name == "postgresql":
        # What autovacuum would have done in all these years.
        with made.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    made.dispose()
    return lab
