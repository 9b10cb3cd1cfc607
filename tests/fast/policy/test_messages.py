"""Messages that events become: how long they are worth sending, for whom, and how long they are."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from jupyterhub_migspawner.policy.messages import (
    KINDS,
    MOST_LISTED,
    MOST_TITLE,
    MOST_TYPED,
    Happening,
    Message,
    merged,
    message_of,
)
from jupyterhub_migspawner.policy.notices import ADMINS, APPROVERS, USERS, Channel

AT = datetime(2026, 11, 23, 9, 0, tzinfo=timezone.utc)
LATER = AT + timedelta(hours=8)
DETAIL = {"tier": "Card", "hours": 8.0, "why": "a long run", "groups": ["vision"], "server": ""}


def told(kind: str, *, user: str = "ada", actor: str = "noether", **detail: Any) -> Message:
    message = message_of(Happening(kind, AT, actor, user, 7, 12, "GPU-1", {**DETAIL, **detail}))
    assert message is not None
    return message


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_message_is_worth_sending_for_a_day_where_nothing_ends_sooner(kind: str) -> None:
    assert told(kind).until == AT + timedelta(days=1)


@pytest.mark.parametrize(
    "kind", ["request.ending", "ticket.offered", "lease.ending", "lease.shortened"]
)
def test_a_message_about_an_end_is_worth_sending_until_then(kind: str) -> None:
    for written in ("2026-11-23T17:00:00Z", "2026-11-23T17:00:00", "2026-11-23T18:00:00+01:00"):
        assert told(kind, until=written).until == LATER


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_names_of_any_length_are_cut(kind: str) -> None:
    # Spaces keep them from being cut as one long word.
    name, other = "ab " * 100, "cd " * 100
    detail = {"tier": name, "server": name, "offered": name}
    message = told(kind, user=name, actor=other, **detail)
    for long in (name[:60], other[:60]):
        assert long not in f"{message.title}\n{message.body}"
    assert len(message.title) <= MOST_TITLE


def test_names_in_what_is_merged_and_of_cards_are_cut_too() -> None:
    name = "ab " * 100
    found = merged([Message(APPROVERS, "One", "b", AT, user=name)] * 2)
    assert name[:60] not in found.title
    lost = message_of(Happening("card.lost", AT, "n1", card_uuid=name))
    assert lost is not None
    assert name[:60] not in lost.body


def test_what_somebody_typed_is_cut_at_its_most() -> None:
    fits = "ab " * (MOST_TYPED // 3)
    fits = f"{fits}{'c' * (MOST_TYPED - len(fits))}"
    assert f"Reason: {fits}" in told("request.created", why=fits).body.splitlines()
    cut = f"Reason: {fits[:-1]}…"
    assert cut in told("request.created", why=f"{fits}d").body.splitlines()


@pytest.mark.parametrize("kind", ["lease.lost", "card.lost"])
def test_a_loss_without_a_reason_is_told_all_the_same(kind: str) -> None:
    body = told(kind, why="").body.splitlines()[0]
    assert body in ("Save your work and start again.", "Card GPU-1 is lost.")


def test_an_approval_without_both_of_its_times_says_none() -> None:
    for detail in ({}, {"from": "2026-11-23T09:00:00Z"}, {"until": "2026-11-23T17:00:00Z"}):
        assert told("request.approved", why="", **detail).body == "You may use Card for 8 hours."


@pytest.mark.parametrize(("groups", "found"), [(["vision", "pi"], {"vision", "pi"}), ("vi", set())])
def test_groups_are_a_list_of_names(groups: Any, found: set[str]) -> None:
    assert told("request.created", groups=groups).groups == found


def test_an_event_without_detail_has_a_message() -> None:
    message = message_of(Happening("request.denied", AT, "noether", "ada", 7))
    assert message is not None
    assert message.title == "Your request 7 is denied"


@pytest.mark.parametrize(
    ("seconds", "known"), [(59, False), (60, True), (-60.0, True), (-59.5, False), ("?", True)]
)
def test_a_step_of_the_clock_is_told_from_a_minute_on(seconds: Any, known: bool) -> None:
    event = Happening("clock.stepped", AT, "", "", detail={"seconds": seconds, "why": "it was set"})
    assert (message_of(event) is not None) == known


def test_processes_at_a_port_are_named_as_far_as_they_are_numbers() -> None:
    assert "ps -fp" not in told("node.port-taken", pids=[]).body
    assert "ps -fp" not in told("node.port-taken").body
    assert told("node.port-taken", pids=[7, "; rm -rf /", 8]).body.endswith("ps -fp 7,8")
    twenty = ",".join(map(str, range(20)))
    assert told("node.port-taken", pids=list(range(25))).body.endswith(f"ps -fp {twenty}")


def test_a_groups_channel_hears_of_requests_of_its_people_only() -> None:
    channel = Channel("group:vision", 0, "json://x/")
    about = told("request.created")
    assert about.is_for(channel)
    assert not about.is_for(Channel("group:language", 0, "json://x/"))
    mine = Message(USERS, "t", "b", LATER, groups=frozenset({"vision"}))
    assert not mine.is_for(channel)
    assert mine.is_for(Channel(USERS, 0, "json://x/{user}"))


def test_messages_about_requests_may_become_one_and_no_others() -> None:
    assert told("request.created").is_mergeable
    assert told("request.denied").is_mergeable
    assert not told("ticket.offered").is_mergeable
    assert not Message(ADMINS, "t", "b", LATER).is_mergeable


def test_several_messages_about_requests_are_worth_sending_as_long_as_the_last_of_them() -> None:
    soon, late = (
        Message(USERS, title, "b", until, "requests", "ada")
        for title, until in (("One", AT), ("Two", LATER))
    )
    for order in ((soon, late), (late, soon)):
        found = merged(order)
        assert found.until == LATER
        assert found.title == "2 messages about your requests"
        assert found.body == "\n".join(f"{each.title}." for each in order)


@pytest.mark.parametrize(("number", "rest"), [(0, ""), (1, "\nAnd 1 more.")])
def test_what_is_not_listed_is_counted(number: int, rest: str) -> None:
    message = Message(APPROVERS, "One", "b", AT, user="ada")
    found = merged([message] * MOST_LISTED, number)
    assert found.title == f"{MOST_LISTED + number} messages about requests of ada"
    assert found.body == "\n".join(["One."] * MOST_LISTED) + rest


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_message_calls_a_tier_by_its_title(kind: str) -> None:
    detail = {**DETAIL, "tier": "xq1", "offered": "xq2"}
    event = Happening(kind, AT, "noether", "ada", 7, 12, "GPU-1", detail)
    titles = {"xq1": "A small slice", "xq2": "A large slice"}
    message, plain = message_of(event, title_of=titles.__getitem__), message_of(event)
    assert message is not None
    assert plain is not None
    said, named = f"{message.title} {message.body}", f"{plain.title} {plain.body}"
    assert "xq" not in said
    assert ("A small slice" in said) is ("xq1" in named)
    assert ("A large slice" in said) is ("xq2" in named)
