"""Slices that a tier shares: who gets a seat beside whom, and when a slice is nobody's again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import MIXED, SEVENTHS, TIERS, WHOLE, Lab, card
from tests.broker.test_contention import at_once, starts

MakeLab = Callable[..., Lab]

COURSE = {"name": "course", "profile": "1g.5gb", "seats": 4}
SEMINAR = {"name": "seminar", "profile": "1g.5gb", "seats": 2}
ALL = [*TIERS, COURSE, SEMINAR]


@pytest.fixture
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(tiers=ALL)
    lab.report(card(0))
    return lab


def free(lab: Lab, tier: str) -> tuple[int, int]:
    offers = {o.tier.name: o for o in lab.broker.tiers.of(Person("x", frozenset({"vision"})))}
    return offers[tier].free, offers[tier].total


def places(leases: list[LeaseRow]) -> list[tuple[int, int]]:
    return [(lease.slice_id, lease.seat) for lease in leases]


def shared_by(lab: Lab, slice_id: int) -> tuple[int, str | None]:
    query = sa.text(f"SELECT held, shared_by FROM slices WHERE id = {slice_id}")
    held, tier = lab.store.read(lambda tx: tuple(tx.first(query)))
    return held, tier


def test_people_of_one_tier_sit_on_one_slice_until_it_is_full(lab: Lab) -> None:
    leases = [lab.start(f"u{n}", "course") for n in range(5)]
    first, fifth = leases[0].slice_id, leases[4].slice_id
    assert places(leases) == [(first, 0), (first, 1), (first, 2), (first, 3), (fifth, 0)]
    assert first != fifth
    assert {lease.slice_uuid for lease in leases[:4]} == {leases[0].slice_uuid}
    assert free(lab, "course") == (23, 28)
    assert free(lab, "small") == (5, 7)
    assert free(lab, "seminar") == (10, 14)


def test_a_seat_that_is_given_back_is_the_next_to_be_taken(lab: Lab) -> None:
    leases = [lab.start(f"u{n}", "course") for n in range(4)]
    lab.stop(leases[1])
    again = lab.start("late", "course")
    assert (again.slice_id, again.seat) == (leases[1].slice_id, 1)


def test_a_seat_is_taken_until_it_is_proven_empty(make_lab: MakeLab) -> None:
    lab = make_lab(tiers=ALL)
    lab.report(card(0, SEVENTHS[:1]))
    leases = [lab.start(f"u{n}", "seminar") for n in range(2)]
    lab.broker.leases.release_server("u0", "", "stopped", "u0")
    with pytest.raises(Refusal, match=r"No seat on a 1g\.5gb slice is free for tier seminar: 2 of"):
        lab.start("late", "seminar")
    lab.broker.leases.confirm_empty(leases[0].id)
    assert lab.start("late", "seminar").seat == 0


def test_the_fullest_slice_gets_the_next_person_so_that_others_empty(lab: Lab) -> None:
    leases = [lab.start(f"u{n}", "course") for n in range(8)]
    for lease in (leases[0], leases[1], leases[2], leases[5]):
        lab.stop(lease)
    fuller, emptier = leases[4].slice_id, leases[3].slice_id
    assert lab.start("next", "course").slice_id == fuller
    lab.stop(leases[3])
    assert shared_by(lab, emptier) == (0, None)
    assert free(lab, "small") == (6, 7)


def test_a_slice_that_everybody_left_is_free_for_every_tier(make_lab: MakeLab) -> None:
    lab = make_lab(tiers=ALL)
    lab.report(card(0, SEVENTHS[:1]))
    for tier in ("course", "small", "seminar", "course"):
        lease = lab.start("ada", tier)
        expected = None if tier == "small" else tier
        assert shared_by(lab, lease.slice_id) == (1, expected)
        lab.stop(lease)
        assert shared_by(lab, lease.slice_id) == (0, None)


@pytest.mark.parametrize(
    ("first", "second"),
    [("course", "seminar"), ("course", "small"), ("small", "course"), ("seminar", "course")],
)
def test_two_tiers_never_sit_on_one_slice(make_lab: MakeLab, first: str, second: str) -> None:
    lab = make_lab(tiers=ALL)
    lab.report(card(0, SEVENTHS[:1]))
    lab.start("ada", first)
    assert free(lab, second)[0] == 0
    with pytest.raises(Refusal) as caught:
        lab.start("grace", second)
    assert caught.value.reason == "capacity"


def test_fewer_seats_leave_those_who_sit_and_let_nobody_in_before_there_is_room(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(tiers=ALL)
    lab.report(card(0, SEVENTHS[:1]))
    leases = [lab.start(f"u{n}", "course") for n in range(4)]
    later = make_lab(tiers=[*TIERS, {**COURSE, "seats": 2}])
    assert free(later, "course") == (0, 2)
    for lease in leases[:2]:
        lab.stop(lease)
        with pytest.raises(Refusal):
            later.start("late", "course")
    lab.stop(leases[2])
    assert free(later, "course") == (1, 2)
    assert later.start("late", "course").seat == 0
    with pytest.raises(Refusal):
        later.start("later", "course")


def test_a_tier_that_does_not_share_any_more_waits_for_a_slice_of_its_own(
    make_lab: MakeLab,
) -> None:
    lab = make_lab(tiers=ALL)
    lab.report(card(0, SEVENTHS[:1]))
    lease = lab.start("ada", "course")
    later = make_lab(tiers=[*TIERS, {**COURSE, "seats": 1}])
    with pytest.raises(Refusal):
        later.start("grace", "course")
    lab.stop(lease)
    alone = later.start("grace", "course")
    assert shared_by(lab, alone.slice_id) == (1, None)
    # And the other way round: who has it alone keeps it so.
    with pytest.raises(Refusal):
        lab.start("late", "course")


@pytest.mark.parametrize("problem", ["quarantine", "drain", "silent", "layout", "missing"])
def test_a_slice_with_a_problem_gets_no_more_people(make_lab: MakeLab, problem: str) -> None:
    lab = make_lab(tiers=ALL)
    lab.report(card(0, SEVENTHS[:1]))
    lease = lab.start("ada", "course")
    if problem == "quarantine":
        lab.broker.slices.quarantine(lease.slice_id, "bad", "root")
    elif problem == "drain":
        lab.broker.cards.drain("GPU-0", "fan", "root")
    elif problem == "silent":
        lab.clock.pass_time(seconds=61)
    elif problem == "layout":
        lab.broker.layouts.set("GPU-0", MIXED, True, "root")
    else:
        lab.report(card(0, MIXED[:1]))
    assert free(lab, "course")[0] == 0
    with pytest.raises(Refusal):
        lab.start("grace", "course")
    assert lab.broker.leases.get(lease.id).state == "pending"
    if problem in ("quarantine", "drain", "silent"):
        lab.broker.slices.unquarantine(lease.slice_id, "root")
        lab.broker.cards.resume("GPU-0", "root")
        lab.report(card(0, SEVENTHS[:1]))
        assert lab.start("grace", "course").seat == 1


def test_a_layout_waits_for_everybody_on_a_slice(make_lab: MakeLab) -> None:
    lab = make_lab(tiers=ALL)
    lab.report(card(0, SEVENTHS[:1]))
    leases = [lab.start(f"u{n}", "course") for n in range(2)]
    lab.broker.layouts.set("GPU-0", MIXED, True, "root")
    for lease in leases:
        assert "leased by" in lab.broker.layouts.claim_slice("GPU-0", SEVENTHS[0], "n1")
        lab.stop(lease)
    assert lab.broker.layouts.claim_slice("GPU-0", SEVENTHS[0], "n1") == ""


def test_a_card_is_given_out_whole_only_when_the_last_seat_is_empty(make_lab: MakeLab) -> None:
    lab = make_lab(tiers=ALL)
    lab.report(card(0))
    leases = [lab.start(f"u{n}", "course") for n in range(2)]
    lab.grant("boss")
    for lease in leases:
        with pytest.raises(Refusal, match="being emptied for your grant"):
            lab.start("boss", "card")
        # It is kept for the grant: nobody joins, though there is room.
        with pytest.raises(Refusal):
            lab.start("late", "course")
        lab.stop(lease)
    assert lab.start("boss", "card").whole


def test_seats_on_a_slice_over_all_of_a_card_are_no_whole_cards(make_lab: MakeLab) -> None:
    tiers = [*TIERS, {"name": "big", "profile": "7g.40gb", "seats": 2}]
    lab = make_lab(tiers=tiers, quotas={"default": {"whole_cards": 0}})
    lab.report(card(0, WHOLE))
    leases = [lab.start(f"u{n}", "big") for n in range(2)]
    assert [(lease.whole, lease.share) for lease in leases] == [(False, 0.5)] * 2
    lab.stop(leases[0])
    (row,) = lab.broker.cards.find()
    assert row.target is None
    assert lab.start("late", "big").seat == 0


def test_a_lost_card_takes_everybody_on_it_along(lab: Lab) -> None:
    leases = [lab.start(f"u{n}", "course") for n in range(3)]
    lab.report(card(1))
    assert {lab.broker.leases.get(lease.id).state for lease in leases} == {"lost"}
    assert shared_by(lab, leases[0].slice_id) == (0, None)


def test_a_seat_counts_as_its_part_of_the_slice(make_lab: MakeLab) -> None:
    lab = make_lab(tiers=ALL, quotas={"default": {"gpu_hours_per_week": 1}})
    lab.report(card(0))
    lease = lab.start("ada", "course")
    assert lease.share == pytest.approx(1 / 28)
    lab.clock.pass_time(hours=27)
    lab.report(card(0))
    lab.start("ada", "course", "second")
    lab.clock.pass_time(hours=2)
    lab.report(card(0))
    with pytest.raises(Refusal) as caught:
        lab.start("ada", "course", "third")
    assert caught.value.reason == "quota"


def test_a_slice_tells_of_everybody_on_it_to_those_who_may_know(lab: Lab) -> None:
    leases = [lab.start(user, "course") for user in ("ada", "grace")]
    (status,) = [s for s in lab.broker.slices.find() if s.leases]
    assert status.state == "leased"
    everything = views.slice_view(status)
    assert [(each["id"], each["user"], each["seat"]) for each in everything["leases"]] == [
        (leases[0].id, "ada", 0),
        (leases[1].id, "grace", 1),
    ]
    first = {k: v for k, v in everything["leases"][0].items() if k != "seat"}
    assert everything["lease"] == first
    hers = views.slice_view(status, Person("grace"))
    assert hers["leases"] == [everything["leases"][1]]
    assert hers["lease"]["user"] == "grace"
    nobodys = views.slice_view(status, Person("linus"))
    assert (nobodys["lease"], nobodys["leases"], nobodys["state"]) == (None, [], "leased")


def test_forty_starts_on_seven_slices_of_four_seats_give_28_leases(lab: Lab) -> None:
    answers = at_once(starts(lab, range(40), "course"))
    leases = [a for a in answers if isinstance(a, LeaseRow)]
    refusals = [a for a in answers if isinstance(a, Refusal)]
    assert len(leases) == 28
    assert sorted(Counter(lease.slice_id for lease in leases).values()) == [4] * 7
    assert len({(lease.slice_id, lease.seat) for lease in leases}) == 28
    assert {lease.seat for lease in leases} == {0, 1, 2, 3}
    assert {refusal.reason for refusal in refusals} == {"capacity"}
    assert len(refusals) == 12


def test_tiers_that_share_and_one_that_does_not_never_meet_under_load(lab: Lab) -> None:
    def rounds(user: str, tier: str) -> list[LeaseRow]:
        taken = []
        for _ in range(4):
            try:
                lease = lab.start(user, tier)
            except Refusal:
                continue
            taken.append(lease)
            mates = [x for x in lab.broker.leases.find() if x.slice_id == lease.slice_id]
            assert {mate.tier for mate in mates} == {tier}
            assert len(mates) <= {"course": 4, "seminar": 2, "small": 1}[tier]
            lab.stop(lease)
        return taken

    tiers = ("course", "course", "seminar", "small")
    work = [lambda n=n: rounds(f"u{n}", tiers[n % 4]) for n in range(24)]
    assert all(isinstance(answer, list) and answer for answer in at_once(work))
    assert set(lab.states().values()) == {"free"}
    assert free(lab, "course") == (28, 28)


def test_the_database_itself_refuses_a_second_lease_on_a_seat(lab: Lab) -> None:
    first = lab.start("ada", "course")
    # As if the count of a slice had gone wrong: the index is the last word.
    with pytest.raises(Exception, match=r"leases_one_a_seat|leases\.slice_id, leases\.seat"):
        lab.store.run(
            lambda tx: tx.change(
                sa.text(
                    "INSERT INTO leases (attempt, username, server, tier, state, slice_id, seat, "
                    "slice_uuid, node, card_uuid, profile, start, memory_mib, whole, share, since, "
                    "end_reason, waiting_for) SELECT 'other', 'grace', server, tier, state, "
                    "slice_id, seat, slice_uuid, node, card_uuid, profile, start, memory_mib, "
                    f"whole, share, since, '', '' FROM leases WHERE id = {first.id}"
                )
            )
        )
    assert [lease.id for lease in lab.broker.leases.find()] == [first.id]
