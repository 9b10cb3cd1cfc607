"""What waits for a channel: fair, merged, withdrawn, bounded."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.policy.backlog import (
    BURST,
    LONGEST,
    MOST_MERGED,
    MOST_REMEMBERED,
    MOST_SINGLE,
    SPAN,
    Backlog,
    Entry,
)
from jupyterhub_migspawner.policy.messages import Message
from jupyterhub_migspawner.policy.notices import ADMINS, APPROVERS, USERS

NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def about(user: str, number: int = 0, audience: str = APPROVERS, topic: str = "") -> Message:
    title = f"{user} asks {number}"
    until = NOON + timedelta(days=1)
    return Message(audience, title, "body", until, topic, user, page="decisions")


def drained(backlog: Backlog, now: datetime, most: int = 1000) -> list[str]:
    """The titles that go out at that moment."""
    titles = []
    for _ in range(most):
        entry = backlog.next(now)
        if entry is None:
            break
        titles.append(entry.message.title)
        backlog.sent(entry, now)
    return titles


def test_a_flood_becomes_few_messages_and_delays_nobody() -> None:
    backlog = Backlog()
    for number in range(475):
        backlog.add(number, about("mallory", number), NOON, number)
    backlog.add(1000, about("ada"), NOON, 1000)
    assert len(backlog) == MOST_SINGLE + 1
    titles = drained(backlog, NOON)
    assert titles.index("ada asks 0") <= MOST_SINGLE
    assert len(titles) == MOST_SINGLE + 1
    assert titles[MOST_SINGLE - 1] == f"{475 - MOST_SINGLE + 1} messages about requests of mallory"


def test_a_long_flood_is_a_few_messages_a_minute() -> None:
    backlog, sent, ada_waits = Backlog(), 0, 0
    for second in range(120):
        now = NOON + timedelta(seconds=second)
        for _ in range(10):
            backlog.add(2 * second, about("mallory"), now, None)
        backlog.add(2 * second + 1, about(f"u{second}"), now, None)
        titles = drained(backlog, now)
        sent += sum("mallory" in title for title in titles)
        ada_waits += f"u{second} asks 0" not in titles
    assert sent <= 2 * BURST + 1
    assert ada_waits == 0
    assert len(backlog) <= MOST_SINGLE


def test_users_are_served_in_turn() -> None:
    backlog = Backlog()
    for number in range(50):
        backlog.add(number, about("mallory", number, USERS, "sessions"), NOON, None)
    backlog.add(50, about("ada", 0, USERS, "sessions"), NOON, None)
    assert drained(backlog, NOON, MOST_SINGLE + 1)[-1] == "ada asks 0"


def test_what_is_withdrawn_before_it_was_sent_is_not_sent() -> None:
    backlog = Backlog()
    for number in range(10):
        backlog.add(number, about("ada", number), NOON, number)
    for number in range(10):
        backlog.withdraw(number, APPROVERS)
    assert len(backlog) == 0
    assert backlog.first_id is None
    backlog.add(11, about("ada", 11), NOON, 11)
    backlog.add(12, about("ada", 12, USERS, "requests"), NOON, 11)
    backlog.withdraw(11, APPROVERS)
    assert drained(backlog, NOON) == ["ada asks 12"]  # notices to themselves


def test_what_is_under_way_is_neither_withdrawn_nor_added_to() -> None:
    backlog = Backlog()
    for number in range(MOST_SINGLE):
        backlog.add(number, about("ada", number), NOON, number)
    for _ in range(MOST_SINGLE):
        entry = backlog.next(NOON)
        assert entry is not None
    backlog.withdraw(0, APPROVERS)
    backlog.add(9, about("ada", 9), NOON, 9)
    assert len(backlog) == MOST_SINGLE + 1
    assert backlog.first_id == 0


def test_other_messages_are_never_merged() -> None:
    backlog = Backlog()
    for number in range(10):
        backlog.add(number, about("ada", number, USERS, "sessions"), NOON, None)
        backlog.add(100 + number, about("", number, ADMINS), NOON, None)
    assert len(drained(backlog, NOON)) == 20


def test_one_message_for_many_names_some_and_counts_the_others() -> None:
    backlog = Backlog()
    for number in range(MOST_SINGLE + MOST_MERGED + 50):
        backlog.add(number, about("ada", number), NOON, number)
    entries = [entry for entry in (backlog.next(NOON) for _ in range(MOST_SINGLE)) if entry]
    last = entries[-1].message
    assert last.title == f"{MOST_MERGED + 51} messages about requests of ada"
    assert last.body.splitlines()[0] == f"ada asks {MOST_SINGLE - 1}."
    assert last.body.splitlines()[-1] == f"And {MOST_MERGED + 41} more."
    assert last.page == "decisions"


def test_what_failed_comes_after_what_did_not() -> None:
    backlog = Backlog()
    backlog.add(1, about("ada"), NOON, 1)
    backlog.add(2, about("eve"), NOON, 2)
    first = backlog.next(NOON)
    assert first is not None
    backlog.again(first, NOON)
    second = backlog.next(NOON)
    assert second is not None
    assert second.message.user == "eve"
    assert backlog.first_id == 1


def test_a_clock_that_was_set_back_holds_nothing_up() -> None:
    backlog = Backlog()
    for number in range(20):
        backlog.add(number, about("ada", number), NOON, None)
        drained(backlog, NOON)
    assert len(backlog) > 0
    assert drained(backlog, NOON - timedelta(hours=1)) != []


def requests(user: str, number: int = 0) -> Message:
    """A notice to a user about a request of theirs; it may be merged."""
    return about(user, number, USERS, "requests")


def sessions(user: str, number: int = 0) -> Message:
    """A notice to a user about a session; it is never merged."""
    return about(user, number, USERS, "sessions")


def test_no_more_is_read_ahead_than_fits() -> None:
    backlog = Backlog(most=2)
    for number in range(2):
        assert not backlog.is_full
        backlog.add(number, sessions("ada", number), NOON, None)
    assert backlog.is_full


def test_only_what_may_be_merged_is_merged_with_what_waits() -> None:
    backlog = Backlog()
    for number in range(MOST_SINGLE):
        backlog.add(number, sessions("ada", number), NOON, None)
    backlog.add(10, requests("ada", 10), NOON, None)
    backlog.add(11, requests("ada", 11), NOON, None)
    backlog.add(12, sessions("ada", 12), NOON, None)
    assert len(backlog) == MOST_SINGLE + 3
    for number in range(20, 20 + MOST_SINGLE):
        backlog.add(number, requests("ada", number), NOON, None)
    backlog.add(30, sessions("ada", 30), NOON, None)
    # Five messages about requests wait one by one; those about sessions do, too, however many.
    assert len(backlog) == MOST_SINGLE + MOST_SINGLE + 2


def test_what_failed_before_is_not_added_to() -> None:
    backlog = Backlog()
    for number in range(MOST_SINGLE):
        backlog.add(number, about("ada", number), NOON, None)
        entry = backlog.next(NOON)
        assert entry is not None
        backlog.again(entry, NOON + MINUTE)
    backlog.add(10, about("ada", 10), NOON, None)
    assert len(backlog) == MOST_SINGLE + 1


def test_what_failed_is_tried_again_when_it_is_due() -> None:
    backlog = Backlog()
    backlog.add(1, sessions("ada"), NOON, None)
    entry = backlog.next(NOON)
    assert entry is not None
    assert entry.tries == 0
    assert backlog.next(NOON) is None
    backlog.again(entry, NOON + MINUTE)
    assert entry.tries == 1
    assert backlog.next(NOON + MINUTE - SECOND) is None
    assert backlog.next(NOON + MINUTE) is entry


def test_what_is_put_off_for_longer_than_ever_was_put_off_by_another_clock() -> None:
    for off, held in ((LONGEST, True), (LONGEST + SECOND, False)):
        backlog = Backlog()
        backlog.add(1, sessions("ada"), NOON + off, None)
        assert (backlog.next(NOON) is None) == held


def test_what_is_dropped_twice_is_dropped() -> None:
    backlog = Backlog()
    backlog.add(1, sessions("ada"), NOON, None)
    entry = backlog.next(NOON)
    assert entry is not None
    backlog.drop(entry)
    backlog.drop(entry)
    assert len(backlog) == 0


def test_what_was_withdrawn_leaves_the_rest_of_its_message() -> None:
    backlog = Backlog()
    for number in range(MOST_SINGLE + 1):
        backlog.add(number, about("ada", number), NOON, number)
    last = MOST_SINGLE - 1
    backlog.withdraw(last, APPROVERS)
    assert drained(backlog, NOON)[-1] == f"ada asks {last + 1}"


def test_neighbours_are_withdrawn_alike() -> None:
    backlog = Backlog()
    for number in range(4):
        backlog.add(number, about("ada", number), NOON, 7)
    backlog.withdraw(7, APPROVERS)
    assert len(backlog) == 0


def test_messages_that_are_only_counted_are_not_withdrawn_with_the_others() -> None:
    backlog = Backlog()
    for number in range(MOST_SINGLE + MOST_MERGED):
        backlog.add(number, about("ada", number), NOON, 7 if number >= MOST_SINGLE - 1 else number)
    backlog.withdraw(7, APPROVERS)
    entries = [entry for entry in (backlog.next(NOON) for _ in range(MOST_SINGLE)) if entry]
    assert entries[-1].message.title == f"{MOST_MERGED + 1} messages about requests of ada"


def test_a_message_for_one_that_is_known_and_one_that_is_counted_counts_both() -> None:
    entry = Entry(1, (APPROVERS, "ada"), NOON, [(1, about("ada", 1))], more=1)
    assert entry.message.title == "2 messages about requests of ada"
    entry.items.append((2, about("ada", 2)))
    assert entry.message.title == "3 messages about requests of ada"
    entry.items.pop()
    entry.more = 0
    assert entry.message.title == "ada asks 1"


def test_a_message_is_full_at_its_most() -> None:
    backlog = Backlog()
    for number in range(MOST_SINGLE - 1 + MOST_MERGED):
        backlog.add(number, about("ada", number), NOON, None)
    entries = [entry for entry in (backlog.next(NOON) for _ in range(MOST_SINGLE)) if entry]
    assert (len(entries[-1].items), entries[-1].more) == (MOST_MERGED, 0)
    backlog = Backlog()
    for number in range(MOST_SINGLE + MOST_MERGED):
        backlog.add(number, about("ada", number), NOON, None)
    entries = [entry for entry in (backlog.next(NOON) for _ in range(MOST_SINGLE)) if entry]
    assert (len(entries[-1].items), entries[-1].more) == (MOST_MERGED, 1)


def send(backlog: Backlog, number: int, message: Message, now: datetime) -> None:
    backlog.add(number, message, now, None)
    assert drained(backlog, now) != []


def test_a_burst_holds_what_may_be_merged_for_a_minute_and_nothing_else() -> None:
    backlog = Backlog()
    for number in range(BURST):
        send(backlog, number, requests("ada", number), NOON)
    backlog.add(10, requests("ada", 10), NOON, None)
    backlog.add(11, sessions("ada", 11), NOON, None)
    assert drained(backlog, NOON) == ["ada asks 11"]
    assert drained(backlog, NOON + SPAN - SECOND) == []
    assert drained(backlog, NOON + SPAN) == ["ada asks 10"]


def test_what_is_never_merged_uses_up_no_burst() -> None:
    backlog = Backlog()
    for number in range(BURST):
        send(backlog, number, sessions("ada", number), NOON)
    backlog.add(10, requests("ada", 10), NOON, None)
    assert drained(backlog, NOON) == ["ada asks 10"]


def test_what_happened_first_goes_out_first() -> None:
    backlog = Backlog()
    backlog.add(2, sessions("eve", 2), NOON, None)
    backlog.add(1, sessions("ada", 1), NOON, None)
    assert drained(backlog, NOON) == ["ada asks 1", "eve asks 2"]


@pytest.mark.parametrize(
    ("others", "held"), [(MOST_REMEMBERED - 1, True), (MOST_REMEMBERED, False)]
)
def test_of_so_many_people_it_is_remembered_what_they_were_sent(others: int, held: bool) -> None:
    backlog = Backlog()
    # The latest recipient is remembered longest, no matter who was the first.
    send(backlog, 0, requests("first"), NOON)
    for number in range(BURST):
        send(backlog, number, requests("ada", number), NOON)
    send(backlog, 6, requests("first"), NOON)
    for number in range(others - 1):
        send(backlog, number, requests(f"u{number}"), NOON)
    backlog.add(9000, requests("ada", 9000), NOON, None)
    assert (drained(backlog, NOON) == []) == held


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_every_message_is_sent_withdrawn_or_waits(events: list[tuple[str, bool]]) -> None:
    backlog, told = Backlog(), 0
    for number, (user, requests) in enumerate(events):
        topic = "requests" if requests else "sessions"
        backlog.add(number, about(user, number, USERS, topic), NOON, number)
    now = NOON
    for _ in range(200):
        entry = backlog.next(now)
        if entry is None:
            now += timedelta(minutes=1)
            continue
        told += len(entry.items) + entry.more
        backlog.sent(entry, now)
    assert told == len(events)
    assert len(backlog) == 0
