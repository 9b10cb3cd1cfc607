"""What a lease says about its own end."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from jupyterhub_migspawner.model.leases import ACTIVE, OVERDUE, RELEASING, LeaseRow, is_overdue

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=timezone.utc)
EVENING = NOON + timedelta(hours=8)
ENDED = LeaseRow(
    id=1,
    attempt="a1",
    user="ada",
    server="",
    tier="small",
    state=RELEASING,
    slice_id=1,
    slice_uuid="MIG-1",
    node="n1",
    card_uuid="GPU-1",
    profile="1g.5gb",
    memory_mib=4864,
    since=NOON - timedelta(hours=1),
    deadline=None,
    ends_at=EVENING,
    ended_at=None,
    end_reason="",
    waiting_for="",
    request_id=None,
    releasing_at=NOON,
)


def test_a_minute_is_long() -> None:
    assert timedelta(minutes=1) == OVERDUE
    assert not is_overdue(NOON, NOON + OVERDUE - timedelta(seconds=1))
    assert is_overdue(NOON, NOON + OVERDUE)


def test_only_what_ends_is_overdue_a_minute_after_its_session_ended() -> None:
    assert not ENDED.overdue(NOON + OVERDUE - timedelta(seconds=1))
    assert ENDED.overdue(NOON + OVERDUE)
    assert not replace(ENDED, state=ACTIVE, releasing_at=None).overdue(EVENING)


def test_the_end_of_what_is_overdue_is_unknown() -> None:
    assert ENDED.known_end(NOON) == EVENING
    assert ENDED.known_end(NOON + OVERDUE) is None
