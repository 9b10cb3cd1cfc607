"""Who decides about whose request, which way one goes, when a card is kept: as pure rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_migspawner.errors import ConfigError
from jupyterhub_migspawner.model.requests import RequestRow
from jupyterhub_migspawner.policy import approval
from jupyterhub_migspawner.policy.approval import TRANSITIONS, may_decide, may_move, parse_approvers
from jupyterhub_migspawner.policy.fields import NAME_LIMIT
from jupyterhub_migspawner.policy.people import Person
from jupyterhub_migspawner.policy.reservations import WITHOUT_LIMIT, is_due, longest_session
from jupyterhub_migspawner.policy.tiers import parse_tiers

NAMES = st.sampled_from(["ada", "eve", "joe", "noether"])
GROUPS = st.frozensets(st.sampled_from(["pi", "vision", "language"]), max_size=3)
TIERS = ("card", "board")
ENTRIES = st.one_of(
    st.builds("user:{}".format, NAMES), st.builds("group:{}".format, st.sampled_from(["pi"]))
)
NARROWED = st.builds(
    lambda approvers, tiers, groups: {
        "approvers": approvers,
        **({"tiers": tiers} if tiers else {}),
        **({"for_groups": sorted(groups)} if groups else {}),
    },
    st.lists(ENTRIES, min_size=1, max_size=2),
    st.lists(st.sampled_from(TIERS), max_size=2),
    GROUPS,
)
CONFIGURED = st.lists(st.one_of(ENTRIES, NARROWED), max_size=4)


def names(entries: list[str], person: Person) -> bool:
    return any(
        entry == f"user:{person.name}" or entry in {f"group:{group}" for group in person.groups}
        for entry in entries
    )


@given(CONFIGURED, NAMES, GROUPS, st.booleans(), NAMES, GROUPS, st.sampled_from(TIERS))
def test_who_decides_is_what_the_entries_say_read_one_by_one(
    raw: list[Any],
    by_name: str,
    by_groups: frozenset[str],
    admin: bool,
    user: str,
    groups: frozenset[str],
    tier: str,
) -> None:
    by = Person(by_name, by_groups, admin=admin)
    expected = admin
    for entry in raw:
        if isinstance(entry, str):
            expected |= names([entry], by)
        elif names(entry["approvers"], by):
            right_tier = tier in entry.get("tiers", TIERS)
            right_group = "for_groups" not in entry or bool(groups & set(entry["for_groups"]))
            expected |= right_tier and right_group
    answer = may_decide(user, by, parse_approvers(raw, TIERS), tier, groups)
    assert (answer == "") == (expected and by.name != user)


@given(CONFIGURED, NAMES, GROUPS, st.booleans(), st.sampled_from(TIERS))
def test_nobody_decides_about_their_own(
    raw: list[Any], name: str, groups: frozenset[str], admin: bool, tier: str
) -> None:
    by = Person(name, groups, admin=admin)
    assert "your own request" in may_decide(name, by, parse_approvers(raw, TIERS), tier, groups)


@given(CONFIGURED, NAMES, GROUPS, st.booleans(), st.sampled_from(TIERS))
def test_a_sign_in_that_may_not_decide_decides_nothing(
    raw: list[Any], name: str, groups: frozenset[str], admin: bool, tier: str
) -> None:
    approvers = parse_approvers(raw, TIERS)
    by = Person(name, groups, admin=admin, decides=False)
    assert may_decide("grace", by, approvers, tier, groups).startswith("Only the hub's admins")
    assert not approvers.include(by)
    assert not approvers.cover(by, tier, groups)


@pytest.mark.parametrize("container", [list, tuple, set, frozenset])
def test_lists_may_be_written_as_any_collection(container: Callable[[list[str]], Any]) -> None:
    simple = parse_approvers(container(["user:eve"]))
    assert may_decide("ada", Person("eve"), simple, "card") == ""
    narrow = parse_approvers(
        [
            {
                "approvers": container(["user:eve"]),
                "tiers": container(["card"]),
                "for_groups": container(["vision"]),
            }
        ]
    )
    groups = frozenset({"vision"})
    assert may_decide("ada", Person("eve"), narrow, "card", groups) == ""
    assert may_decide("ada", Person("eve"), narrow, "board", groups)
    assert may_decide("ada", Person("eve"), narrow, "card")


def test_names_of_approvers_are_as_long_as_the_hub_s() -> None:
    name = "a" * NAME_LIMIT
    assert parse_approvers([f"user:{name}"]).include(Person(name))
    with pytest.raises(ConfigError, match="expected 'user:NAME'"):
        parse_approvers([f"user:{name}a"])


def test_tiers_are_checked_only_where_they_are_known() -> None:
    found = parse_approvers([{"approvers": ["user:eve"], "tiers": ["crad"]}])
    assert found.cover(Person("eve"), "crad", ())
    with pytest.raises(ConfigError, match="there is no tier 'crad'"):
        parse_approvers([{"approvers": ["user:eve"], "tiers": ["crad"]}], ())


def test_of_several_unknown_tiers_the_first_by_name_is_told() -> None:
    wrong = ["x", "y", "b", "z", "card", "c"]
    with pytest.raises(ConfigError, match="there is no tier 'b'"):
        parse_approvers([{"approvers": ["user:eve"], "tiers": wrong}], TIERS)


@pytest.mark.parametrize("field", ["tiers", "for_groups"])
@pytest.mark.parametrize("odd", [7, "", "  "])
def test_each_name_of_a_list_is_checked(field: str, odd: object) -> None:
    with pytest.raises(ConfigError, match=f"field '{field}' is"):
        parse_approvers([{"approvers": ["user:eve"], field: ["card", odd]}], TIERS)


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ("group:pi", "MigBroker.approvers is 'group:pi'; expected a list such as"),
        (["pi"], "entry 'pi'; expected 'user:NAME' or 'group:NAME'"),
        (["role:pi"], "entry 'role:pi'"),
        (["group: "], "entry 'group: '"),
        ([7], "entry 7"),
        ([{"approvers": ["user:eve"], "tier": ["card"]}], r"'tier' \(did you mean 'tiers'\?\)"),
        ([{"tiers": ["card"]}], "field 'approvers' is missing"),
        ([{"approvers": []}], r"field 'approvers' is \[\]; expected a list"),
        ([{"approvers": "user:eve"}], "field 'approvers' is 'user:eve'; expected a list"),
        ([{"approvers": ["eve"]}], "entry 'eve'"),
        ([{"approvers": ["user:eve"], "tiers": []}], r"field 'tiers' is \[\]"),
        ([{"approvers": ["user:eve"], "tiers": "card"}], "field 'tiers' is 'card'"),
        ([{"approvers": ["user:eve"], "tiers": ["crad"]}], r"no tier 'crad' \(did you mean 'card'"),
        ([{"approvers": ["user:eve"], "for_groups": [7]}], r"field 'for_groups' is \[7\]"),
    ],
)
def test_a_mistake_is_named(raw: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_approvers(raw, TIERS)


STATES = st.sampled_from([*TRANSITIONS])


@given(st.lists(STATES, max_size=8))
def test_whatever_is_tried_a_request_that_ended_stays_as_it_is(tries: list[str]) -> None:
    state, was_granted = approval.PENDING, False
    for to in tries:
        if may_move(state, to) == "":
            assert TRANSITIONS[state], "something went on from an end"
            state = to
        was_granted |= state == approval.APPROVED
        assert state != approval.USED or was_granted
        assert state != approval.DRAFT


def test_a_request_moves_in_these_ways_and_no_others() -> None:
    ways = {
        "draft": {"pending", "cancelled"},
        "pending": {"approved", "denied", "cancelled", "expired"},
        "approved": {"used", "expired", "cancelled"},
    }
    for state in TRANSITIONS:
        assert {to for to in TRANSITIONS if may_move(state, to) == ""} == ways.get(state, set())


def test_a_refused_move_says_what_it_is() -> None:
    assert may_move("denied", "approved") == "It is already denied and cannot become approved."
    assert may_move("nonsense", "approved")


MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(timezone.utc))


@given(st.none() | MOMENTS, st.floats(0.1, 700), MOMENTS)
def test_a_grant_lasts_its_hours_and_begins_neither_before_it_is_given_nor_wanted(
    starts_at: datetime | None, hours: float, now: datetime
) -> None:
    begin, end = approval.period(starts_at, hours, now)
    assert begin >= now
    assert starts_at is None or begin >= starts_at
    assert begin in (now, starts_at)
    assert end - begin == timedelta(hours=hours)


LIMITS = st.lists(st.none() | st.integers(1, 100), min_size=1, max_size=4)


@given(LIMITS, MOMENTS, st.timedeltas(timedelta(0), timedelta(days=10)))
def test_a_card_is_kept_just_when_new_work_might_run_into_the_grant(
    limits: list[int | None], valid_from: datetime, before: timedelta
) -> None:
    tiers = parse_tiers(
        [
            {"name": f"t{n}", "profile": "1g.5gb", **({"max_hours": most} if most else {})}
            for n, most in enumerate(limits)
        ]
    )
    now = valid_from - before
    longest = max(WITHOUT_LIMIT if most is None else timedelta(hours=most) for most in limits)
    assert longest_session(tiers) == longest
    due = is_due(valid_from, longest_session(tiers), now)
    # Kept: whatever begins now might still run then. Not kept: all of it is over by then.
    assert due == any(
        now + (WITHOUT_LIMIT if most is None else timedelta(hours=most)) >= valid_from
        for most in limits
    )
    if due:
        assert is_due(valid_from, longest, now + timedelta(seconds=1)), "once kept, it stays kept"


def test_no_card_is_kept_early_for_tiers_without_a_gpu() -> None:
    assert longest_session(parse_tiers([{"name": "cpu", "profile": "none"}])) == timedelta(0)


NOON = datetime(2026, 11, 23, 12, 0, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
MONTH_AGO = NOON - timedelta(days=30)


def request(**changes: Any) -> RequestRow:
    made = RequestRow(
        id=1,
        user="ada",
        tier="card",
        hours=8,
        reason="a long run",
        state=approval.PENDING,
        created_at=NOON - HOUR,
        decided_by="",
        decided_at=None,
        decision_reason="",
        valid_until=None,
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("asked", "state"),
    [
        (request(), approval.PENDING),
        (request(created_at=MONTH_AGO + HOUR), approval.PENDING),
        (request(created_at=MONTH_AGO), approval.EXPIRED),
        (request(state=approval.APPROVED, valid_until=NOON + HOUR), approval.APPROVED),
        (request(state=approval.APPROVED, valid_until=NOON), approval.EXPIRED),
        # A grant was decided about, however long ago it was requested.
        (
            request(state=approval.APPROVED, created_at=MONTH_AGO, valid_until=NOON + HOUR),
            approval.APPROVED,
        ),
        (request(state=approval.DENIED, created_at=MONTH_AGO), approval.DENIED),
        (request(state=approval.CANCELLED, valid_until=NOON), approval.CANCELLED),
    ],
)
def test_what_has_expired_is_expired_before_it_is_recorded(asked: RequestRow, state: str) -> None:
    assert approval.state_at(asked, NOON, undecided_before=MONTH_AGO) == state


@pytest.mark.parametrize(
    ("grant", "brief"),
    [
        (request(valid_from=NOON, valid_until=NOON + HOUR), True),
        (request(valid_from=NOON, valid_until=NOON + 2 * HOUR), False),
        # One from before grants had a beginning.
        (request(decided_at=NOON, valid_until=NOON + HOUR), True),
        (request(valid_until=NOON + HOUR), False),
        (request(valid_from=NOON), False),
    ],
)
def test_a_grant_no_longer_than_its_warning_is_brief(grant: RequestRow, brief: bool) -> None:
    assert approval.is_brief(grant, HOUR) == brief
