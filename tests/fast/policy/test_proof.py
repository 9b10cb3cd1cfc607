"""The sentences about sessions that have ended on slices that are not proven empty."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from jupyterhub_migspawner.model.leases import OVERDUE
from jupyterhub_migspawner.policy.proof import Ending, cause, for_admins, in_words, mend, pids_in
from jupyterhub_migspawner.policy.quotas import Quota, Usage, check
from jupyterhub_migspawner.policy.tiers import parse_tiers

NOON = datetime(2026, 11, 29, 12, 0, tzinfo=timezone.utc)
SMALL, CARD, CPU = parse_tiers(
    [
        {"name": "small", "profile": "1g.5gb"},
        {"name": "card", "profile": "whole"},
        {"name": "cpu", "profile": "none"},
    ]
)
ENDING = Ending("exp", "Small", NOON)


def test_a_minute_is_long() -> None:
    assert not ENDING.overdue(NOON + OVERDUE - timedelta(seconds=1))
    assert ENDING.overdue(NOON + OVERDUE)
    assert not ENDING.overdue(NOON)


@pytest.mark.parametrize(
    ("waiting_for", "said"),
    [
        ("", "its slice is still being checked"),
        (
            "processes of the ended server are still running: pid 7",
            "a program is still running on its slice",
        ),
        (
            "NVML still lists processes on the slice: pid 7",
            "a program is still running on its slice",
        ),
        ("it is pid 7", "a program is still running on its slice"),
        (
            "NVML cannot say who is on it: Unknown Error",
            "it cannot be checked right now whether its slice is empty",
        ),
        (
            "the processes of node n1 cannot be read: EMFILE",
            "it cannot be checked right now whether its slice is empty",
        ),
    ],
)
def test_its_person_is_told_why_without_inner_details(waiting_for: str, said: str) -> None:
    assert cause(waiting_for) == said


def test_the_session_that_has_lasted_longest_is_named() -> None:
    later = Ending("", "Large", NOON + timedelta(minutes=2))
    assert "server 'exp' (tier Small) ended at Sun 29 Nov 2026 12:00 UTC" in in_words([ENDING])
    assert "more" not in in_words([ENDING])
    said = in_words([later, ENDING])
    assert said == in_words([ENDING, later])
    assert "Your server 'exp'" in said
    assert "(1 more is also ending)" in said
    assert "(2 more are also ending)" in in_words([later, ENDING, later])
    assert "Your default server (tier Large) ended" in in_words([later])
    offered = Ending("", "Large", NOON, offered=True)
    assert "What was held for your default server (tier Large) was given back" in in_words(
        [offered]
    )


def test_admins_get_a_command_that_ends_it() -> None:
    assert pids_in("processes still run: pid 7, 8; NVML still lists: pid 8, 9") == (7, 8, 9)
    assert pids_in("process 12 of user mallory") == (12,)
    assert pids_in("unknown error 999") == ()
    assert "ps -fp 7,8" in mend("NVML still lists pid 7, 8", "n1")
    assert "kill -9 7 8" in mend("NVML still lists pid 7, 8", "n1")
    assert "node n1" in mend("NVML still lists pid 7, 8", "n1")
    assert mend("`sudo kill -9 7` ends pid 7", "n1").startswith("Run that command on node n1")
    assert "nvidia-smi" in mend("NVML cannot say who is on it", "n1")
    assert "nvidia-smi" in mend("", "n1")


def test_admins_are_told_who_since_when_and_why() -> None:
    def told(**changes: str) -> str:
        facts = {"end_reason": "time is over.", "waiting_for": "pid 7.", **changes}
        stands, way_out = for_admins(lease_id=3, user="ada", since=NOON, node="n1", **facts)
        assert way_out == mend(f"{changes.get('quarantined', '')} {facts['waiting_for']}", "n1")
        return stands

    said = told()
    assert said.startswith(
        "Lease 3 of ada already ended at Sun 29 Nov 2026 12:00 UTC (time is over)"
    )
    assert "not proven empty: pid 7. Until" in said
    assert " UTC, but" in told(end_reason="")
    assert "the agent has not checked it yet" in told(waiting_for="")
    assert "It is quarantined: bad. Until" in told(quarantined="bad.")
    assert "quarantined" not in said


@pytest.mark.parametrize("field", ["servers", "live", "whole_cards"])
def test_what_has_ended_counts_like_what_runs(field: str) -> None:
    quota = Quota(**{field: 2})
    ending = Ending("exp", "Card", NOON, whole=True)
    assert check(quota, Usage(NOON, ending=(ending,)), CARD) == ""
    said = check(quota, Usage(NOON, ending=(ending, ending)), CARD)
    assert "at a time and you have 2. Your server 'exp'" in said
    assert "stop a running one" not in said
    mixed = check(quota, Usage(NOON, ending=(ending,), **{field: 1}), CARD)
    assert "Your server 'exp'" in mixed
    assert mixed.endswith("You can also stop a running one.")
    # What runs is too much already: the end of the other does not help.
    full = check(quota, Usage(NOON, ending=(ending,), **{field: 2}), CARD)
    assert full.endswith("and you have 3. Stop one of them to start another.")
    none = check(Quota(**{field: 0}), Usage(NOON, ending=(ending,)), CARD)
    assert none.endswith("Choose a tier that your quota allows, or ask the admins of this hub.")


def test_each_quota_counts_its_own() -> None:
    slice_ = Ending("a", "Small", NOON, counts_as_server=False)
    card = Ending("b", "Card", NOON, whole=True)
    used = Usage(NOON, live=1, whole_cards=1, servers=5, ending=(slice_, card))
    assert [used.counted(name) for name in ("live", "whole_cards", "servers")] == [3, 2, 6]
    assert used.ending_in("servers") == (card,)
    # A server without a GPU needs no slice, and a slice is no card.
    assert check(Quota(live=1, whole_cards=1), used, CPU) == ""
    assert check(Quota(whole_cards=1), used, SMALL) == ""
    assert check(Quota(servers=1), used, CPU) != ""


def test_what_ended_a_moment_ago_is_over_soon() -> None:
    old = Ending("a", "Small", NOON - OVERDUE)
    used = Usage(NOON, live=1, ending=(ENDING, old))
    assert used.settled() == Usage(NOON, live=1, ending=(old,))
