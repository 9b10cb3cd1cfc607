"""Servers that run on slices although this database has no lease for them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from jupyterhub_migspawner.broker.marks import (
    STATE,
    environment_of,
    mark_in,
    mark_in_state,
    state_of,
)
from jupyterhub_migspawner.broker.readings import Answer
from jupyterhub_migspawner.db.identity import Position
from jupyterhub_migspawner.errors import Refusal
from jupyterhub_migspawner.model.inventory import Card, GpuProcess
from jupyterhub_migspawner.model.leases import LeaseRow
from jupyterhub_migspawner.model.orphans import OrphanRow
from jupyterhub_migspawner.policy.reclaim import KERNELS, PROCESSES
from jupyterhub_migspawner.spawner.environment import slice_environment
from tests.broker.lab import MIXED, START, WHOLE, Lab, card, inventory

OTHER = Position("another", 1, 40, 90)

LEASE = LeaseRow(
    id=7,
    attempt="lost",
    user="ada",
    server="",
    tier="small",
    state="active",
    slice_id=4711,
    slice_uuid="MIG-0-1g.5gb-3",
    node="n1",
    card_uuid="GPU-0",
    profile="1g.5gb",
    memory_mib=4864,
    since=START - timedelta(hours=2),
    deadline=None,
    ends_at=START + timedelta(hours=5),
    ended_at=None,
    end_reason="",
    waiting_for="",
    request_id=None,
    start=3,
)


def mark(lease: LeaseRow = LEASE, **changes: Any) -> OrphanRow:
    """What a process of the lease's server says in its environment."""
    environ = {
        **slice_environment(None, lease, OTHER),
        "MIGSPAWNER_TIER": lease.tier,
        "JUPYTERHUB_USER": lease.user,
        "JUPYTERHUB_SERVER_NAME": lease.server,
    }
    found = mark_in(environ)
    assert found is not None
    return replace(found, **{"pids": (4242,), **changes})


def look(lab: Lab, *marks: OrphanRow, cards: Sequence[Card] = (), **more: object) -> None:
    """The agent's first and every other report."""
    cards = cards or (card(0), card(1))
    lab.broker.nodes.record_inventory("n1", inventory(*cards), marks=marks, **more)  # type: ignore[arg-type]


@pytest.fixture
def fresh(make_lab: Callable[..., Lab]) -> Lab:
    """An empty database: nothing was reported yet."""
    return make_lab()


def test_the_environment_says_which_slice_of_which_database_it_is() -> None:
    environ = environment_of(LEASE, OTHER)
    assert environ["MIGSPAWNER_DATABASE"] == "another:1"
    found = mark()
    assert (found.attempt, found.node, found.card_uuid, found.profile, found.start) == (
        *("lost", "n1", "GPU-0", "1g.5gb", 3),
    )
    assert (found.slice_uuid, found.identity, found.generation) == (LEASE.slice_uuid, "another", 1)
    assert (found.hub, found.user, found.server, found.tier) == ("hub", "ada", "", "small")
    assert not any(environment_of(None, None).values())
    assert environment_of(None, None).keys() == environ.keys()


def test_the_saved_state_says_the_same_and_nothing_secret() -> None:
    state = state_of(LEASE, OTHER)
    found = mark_in_state(state, "ada", "", "hub")
    assert found is not None
    assert replace(found, vouched=False, since=None, ends_at=None) == mark(pids=())
    assert (found.since, found.ends_at) == (LEASE.since, LEASE.ends_at)
    assert "token" not in str({STATE: state})


def test_the_saved_state_says_how_the_server_is_asked() -> None:
    begun = START - timedelta(hours=2, seconds=1)
    url = "http://127.0.0.1:1/" + 500 * "x"
    state = json.loads(json.dumps(state_of(replace(LEASE, started=begun), OTHER, url, "v1:sealed")))
    found = mark_in_state(state, "ada", "", "hub")
    assert found is not None
    assert (found.started, found.url, found.sealed) == (begun, url, "v1:sealed")


@pytest.mark.parametrize(
    "state",
    [None, 3, [], {}, {"attempt": 3}, {"attempt": "a", "start": "x", "since": 5, "node": []}],
)
def test_any_saved_state_can_be_read(state: object) -> None:
    found = mark_in_state(state, "ada", "", "hub")
    assert found is None or found.start is None


def test_a_slice_of_an_unknown_server_is_never_offered(fresh: Lab) -> None:
    look(fresh, mark())
    taken = {fresh.start(f"user{number}").start for number in range(13)}
    assert len(fresh.broker.leases.find()) == 13
    with pytest.raises(Refusal):
        fresh.start("too many")
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"
    assert taken
    (status,) = [each for each in fresh.broker.slices.find() if each.state == "quarantined"]
    for word in ("'ada'", "process 4242", "migspawner leases adopt"):
        assert word in status.why


def test_it_comes_back_when_the_server_is_gone(fresh: Lab) -> None:
    look(fresh, mark())
    look(fresh)
    assert fresh.states()[0, "1g.5gb", 3] == "free"
    assert fresh.broker.orphans.find() == ()
    assert fresh.kinds().count("slice.quarantined") == 1
    assert fresh.kinds().count("slice.unquarantined") == 1


def test_reports_that_change_nothing_write_nothing(fresh: Lab) -> None:
    look(fresh, mark())
    before = fresh.stored()
    look(fresh, mark())
    assert fresh.stored() == before


def test_who_has_not_looked_changes_nothing(fresh: Lab) -> None:
    look(fresh, mark())
    fresh.report()
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"


def test_a_process_that_cannot_be_read_is_not_gone(fresh: Lab) -> None:
    look(fresh, mark())
    look(fresh, unreadable={4242})
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"
    look(fresh, unreadable={1})
    assert fresh.states()[0, "1g.5gb", 3] == "free"


def test_what_nvml_lists_on_the_slice_keeps_it_shut_longer(fresh: Lab) -> None:
    look(fresh, mark())
    busy = card(0)
    instances = [
        replace(each, processes=(GpuProcess(99),)) if each.start == 3 else each
        for each in busy.instances
    ]
    look(fresh, cards=[replace(busy, instances=tuple(instances)), card(1)])
    (status,) = [each for each in fresh.broker.slices.find() if each.state == "quarantined"]
    assert status.why == "In use without a lease, by process 99."


def test_a_server_with_a_lease_is_no_orphan(fresh: Lab) -> None:
    fresh.report()
    lease = fresh.start("ada")
    look(fresh, mark(lease))
    assert fresh.broker.orphans.find() == ()
    assert "quarantined" not in fresh.states().values()


@pytest.mark.parametrize(
    "changes",
    [
        {"slice_uuid": "MIG-of-before"},
        {"slice_uuid": ""},
        {"card_uuid": "", "start": None},
        {"card_uuid": "", "start": None, "identity": "", "generation": 0, "node": ""},
        {"node": "an old name of the machine"},
    ],
)
def test_the_slice_is_found_by_its_place_or_by_its_uuid(
    fresh: Lab, changes: dict[str, object]
) -> None:
    look(fresh, mark(**changes))
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"


def test_marks_that_name_nothing_here_change_nothing(fresh: Lab) -> None:
    fresh.report()
    before = fresh.stored()
    look(
        fresh,
        mark(card_uuid="GPU-of-another-machine", slice_uuid="MIG-of-another"),
        mark(card_uuid="", slice_uuid="", start=None, attempt="bare"),
    )
    assert fresh.stored() == before


def test_a_card_that_was_cut_anew_is_shut_where_the_slice_lay(fresh: Lab) -> None:
    look(fresh, mark(), cards=[card(0, MIXED)])
    assert fresh.states() == {
        (0, "3g.20gb", 0): "quarantined",
        (0, "2g.10gb", 4): "free",
        (0, "1g.5gb", 6): "free",
    }
    look(fresh, mark(), cards=[card(0)])
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"
    assert list(fresh.states().values()).count("free") == 6


def test_a_whole_card_in_use_shuts_all_of_it(fresh: Lab) -> None:
    whole = replace(LEASE, profile="7g.40gb", start=0, slice_uuid="MIG-0-7g.40gb-0", whole=True)
    look(fresh, mark(whole), cards=[card(0)])
    assert set(fresh.states().values()) == {"quarantined"}
    fresh.grant("grace")
    with pytest.raises(Refusal):
        fresh.start("grace", "card")


@pytest.mark.parametrize("enabled", [True, False])
def test_a_card_lent_with_mig_off_is_given_to_nobody(
    make_lab: Callable[..., Lab], enabled: bool
) -> None:
    tiers = [
        {"name": "card", "profile": "whole", "approval": True},
        {"name": "bare", "profile": "whole", "approval": True, "mig": "off"},
    ]
    lab = make_lab(tiers=tiers)
    uncut = card(0, (), mig_enabled=enabled, mig_pending=enabled)
    lease = replace(LEASE, profile="whole", start=0, slice_uuid="GPU-0", whole=True, tier="bare")
    look(lab, mark(lease), cards=[uncut])
    for tier in ("card", "bare"):
        lab.grant("grace", tier)
        with pytest.raises(Refusal):
            lab.start("grace", tier)
    if not enabled:
        (done,) = lab.broker.orphans.adopt("root")
        assert done.lease is not None
        assert done.lease.whole
    look(lab, cards=[uncut])
    if enabled:
        assert lab.start("grace", "bare").card_uuid == "GPU-0"


def test_a_part_of_a_card_keeps_it_from_being_given_whole(fresh: Lab) -> None:
    look(fresh, mark(), cards=[card(0)])
    fresh.grant("grace")
    with pytest.raises(Refusal):
        fresh.start("grace", "card")


def test_its_slice_is_not_destroyed(fresh: Lab) -> None:
    look(fresh, mark(), cards=[card(0)])
    fresh.broker.layouts.set("GPU-0", WHOLE, True, "root")
    assert "leases adopt" in fresh.broker.layouts.claim_slice("GPU-0", ("1g.5gb", 3), "root")
    assert fresh.broker.layouts.claim_slice("GPU-0", ("1g.5gb", 2), "root") == ""
    fresh.broker.layouts.set("GPU-0", (), False, "root")
    assert "leases adopt" in fresh.broker.layouts.claim_mode("GPU-0", False, "root")


def test_an_admin_cannot_open_it_while_the_server_runs(fresh: Lab) -> None:
    look(fresh, mark())
    (status,) = [each for each in fresh.broker.slices.find() if each.state == "quarantined"]
    fresh.broker.slices.unquarantine(status.row.id, "root")
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"
    fresh.broker.slices.quarantine(status.row.id, "smells of smoke", "root")
    look(fresh)
    (status,) = [each for each in fresh.broker.slices.find() if each.state == "quarantined"]
    assert status.why == "smells of smoke"


def test_a_slice_that_was_lent_in_the_meantime_is_shut_after_that_lease(fresh: Lab) -> None:
    fresh.report(card(0))
    leases = [fresh.start(f"user{number}") for number in range(7)]
    look(fresh, mark(), cards=[card(0)])
    assert set(fresh.states().values()) == {"leased"}
    for lease in leases:
        fresh.stop(lease)
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"


# -- the hub's word ------------------------------------------------------------------------------


def saved(**changes: object) -> OrphanRow:
    """What the hub has saved of it."""
    found = mark_in_state(state_of(replace(LEASE, **changes), OTHER), "ada", "", "hub")  # type: ignore[arg-type]
    assert found is not None
    return found


def test_the_hub_s_word_alone_keeps_a_slice_shut(fresh: Lab) -> None:
    fresh.report()
    assert fresh.broker.orphans.vouch([saved()]) == (saved(),)
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"
    look(fresh)
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"
    fresh.broker.orphans.unvouch("ada", "")
    look(fresh)
    assert fresh.states()[0, "1g.5gb", 3] == "free"


def test_a_hub_may_speak_before_any_card_was_reported(fresh: Lab) -> None:
    fresh.broker.orphans.vouch([saved()])
    look(fresh)
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"


def test_a_hub_whose_servers_all_have_leases_says_nothing(lab: Lab) -> None:
    lease = lab.start("ada")
    named = replace(saved(), attempt=lease.attempt)
    assert lab.broker.orphans.vouch([named]) == ()
    assert lab.broker.orphans.vouch([]) == ()
    assert lab.broker.orphans.find() == ()


def test_a_hub_speaks_for_its_own_servers_only(fresh: Lab, make_lab: Callable[..., Lab]) -> None:
    look(fresh, mark())
    fresh.broker.orphans.vouch([saved()])
    make_lab(hub="teaching").broker.orphans.unvouch("ada", "")
    (orphan,) = fresh.broker.orphans.find()
    assert (orphan.vouched, orphan.pids) == (True, (4242,))


# -- adoption ------------------------------------------------------------------------------------


def test_an_adopted_server_has_its_slice_as_before(fresh: Lab) -> None:
    look(fresh, mark())
    fresh.broker.orphans.vouch([saved()])
    (done,) = fresh.broker.orphans.adopt("root")
    assert done.why == ""
    (lease,) = fresh.broker.leases.find()
    assert done.lease == lease
    assert (lease.user, lease.server, lease.tier, lease.state) == ("ada", "", "small", "active")
    assert (lease.attempt, lease.start, lease.slice_uuid) == ("lost", 3, "MIG-0-1g.5gb-3")
    assert (lease.since, lease.ends_at) == (LEASE.since, LEASE.ends_at)
    assert lease.share == pytest.approx(1 / 7)
    assert fresh.states()[0, "1g.5gb", 3] == "leased"
    assert fresh.broker.orphans.find() == ()
    look(fresh, mark())
    fresh.stop(lease)
    look(fresh)
    assert fresh.states()[0, "1g.5gb", 3] == "free"


def test_an_adopted_server_is_asked_as_its_hub_has_saved_it(fresh: Lab) -> None:
    fresh.report()
    begun = LEASE.since - timedelta(seconds=1)
    named = replace(saved(started=begun), url="http://127.0.0.1:1/", sealed="v1:sealed")
    fresh.broker.orphans.vouch([named])
    (done,) = fresh.broker.orphans.adopt("root")
    assert done.lease is not None
    assert done.lease.started == begun
    (standing,) = fresh.broker.sessions.standings("ada")
    assert (standing.stay.url, standing.stay.sealed) == ("http://127.0.0.1:1/", "v1:sealed")
    # What only a process says has neither address nor token.
    look(fresh, mark(replace(LEASE, attempt="other", start=4, slice_uuid="", user="eve")))
    fresh.broker.orphans.adopt("root")
    (standing,) = fresh.broker.sessions.standings("eve")
    assert (standing.stay.url, standing.stay.sealed) == ("", "")


def test_an_adopted_session_that_nobody_can_ask_never_ends_for_being_idle(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(tiers=[{"name": "small", "profile": "1g.5gb", "idle_minutes": 10}])
    lab.report()
    lab.broker.orphans.vouch([saved(ends_at=None)])
    (done,) = lab.broker.orphans.adopt("root")
    assert done.lease is not None
    for _ in range(20):
        lab.broker.readings.note([Answer(done.lease.id, PROCESSES, fingerprint="quiet")])
        problem = "the address of its server is unknown"
        lab.broker.readings.note([Answer(done.lease.id, KERNELS, problem=problem)])
        lab.broker.doubts.note()
        assert lab.broker.sessions.end_over(done.lease.id) is None
        lab.clock.pass_time(hours=1)
    (standing,) = lab.broker.sessions.standings()
    assert standing.verdict.unknown
    assert standing.doubt is not None
    assert lab.broker.leases.get(done.lease.id).state == "active"


def test_marks_alone_are_enough_for_an_admin(fresh: Lab) -> None:
    look(fresh, mark())
    (done,) = fresh.broker.orphans.adopt("root")
    assert done.lease is not None
    assert (done.lease.user, done.lease.hub) == ("ada", "hub")


def test_a_dry_run_changes_nothing(fresh: Lab) -> None:
    look(fresh, mark())
    before = fresh.stored()
    (done,) = fresh.broker.orphans.adopt("root", dry_run=True)
    assert done.lease is not None
    assert fresh.stored() == before


def test_nobody_s_session_ends_at_once_by_being_adopted(fresh: Lab) -> None:
    fresh.report()
    fresh.broker.orphans.vouch([saved(ends_at=START - timedelta(hours=1))])
    (done,) = fresh.broker.orphans.adopt("root")
    assert done.lease is not None
    assert done.lease.ends_at == START + timedelta(minutes=15)


def test_what_an_earlier_start_left_begins_to_end(fresh: Lab) -> None:
    fresh.report()
    fresh.clock.now = START - timedelta(hours=4)
    fresh.report()
    old = fresh.start("ada")
    fresh.broker.leases.activate(old.attempt)
    fresh.clock.now = START
    fresh.report()
    fresh.broker.orphans.vouch([saved()])
    (done,) = fresh.broker.orphans.adopt("root")
    assert done.lease is not None
    assert fresh.broker.leases.get(old.id).state == "releasing"


def test_a_later_start_of_the_server_goes_before(fresh: Lab) -> None:
    fresh.report()
    later = fresh.start("ada")
    fresh.broker.orphans.vouch([saved()])
    (done,) = fresh.broker.orphans.adopt("root")
    assert done.lease is None
    assert f"lease {later.id} belongs to a later start" in done.why
    assert fresh.broker.leases.find() == (later,)


def test_a_slice_that_was_lent_on_is_not_adopted(fresh: Lab) -> None:
    fresh.report(card(0))
    leases = {fresh.start(f"user{number}").start: number for number in range(7)}
    look(fresh, mark(), cards=[card(0)])
    (done,) = fresh.broker.orphans.adopt("root")
    assert done.lease is None
    assert f"'user{leases[3]}' has its slice" in done.why
    assert len(fresh.broker.leases.find()) == 7


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"user": ""}, "user of the server"),
        ({"start": 5, "profile": "2g.10gb"}, "no longer exists"),
    ],
)
def test_what_is_not_known_well_enough_is_not_adopted(
    fresh: Lab, changes: dict[str, object], why: str
) -> None:
    look(fresh, mark(**changes))
    (done,) = fresh.broker.orphans.adopt("root")
    assert done.lease is None
    assert why in done.why
    assert len(fresh.broker.orphans.find()) == 1


def test_only_those_that_were_named_are_adopted(fresh: Lab) -> None:
    other = mark(replace(LEASE, attempt="b", user="grace", start=4, slice_uuid="MIG-0-1g.5gb-4"))
    look(fresh, mark(), other)
    (done,) = fresh.broker.orphans.adopt("root", {"b"})
    assert done.orphan.user == "grace"
    assert [each.user for each in fresh.broker.orphans.find()] == ["ada"]


def test_two_that_say_to_be_the_same_server_get_one_lease(fresh: Lab) -> None:
    twin = mark(replace(LEASE, attempt="b", start=4, slice_uuid="MIG-0-1g.5gb-4"))
    look(fresh, mark(), twin)
    done = fresh.broker.orphans.adopt("root")
    assert sorted(each.lease is not None for each in done) == [False, True]
    assert len(fresh.broker.leases.find()) == 1


def test_seats_are_adopted_side_by_side_up_to_their_number(make_lab: Callable[..., Lab]) -> None:
    tiers = [{"name": "course", "profile": "1g.5gb", "seats": 2}]
    lab = make_lab(tiers=tiers)
    marks = [
        mark(replace(LEASE, attempt=name, user=name, tier="course")) for name in ("a", "b", "c")
    ]
    look(lab, *marks)
    done = lab.broker.orphans.adopt("root")
    assert sorted(each.lease.seat for each in done if each.lease) == [0, 1]
    assert [each.why for each in done if not each.lease] == ["lease 1 of 'a' has its slice"]
    assert lab.states()[0, "1g.5gb", 3] == "leased"


def test_more_marks_than_any_machine_has_servers_are_bounded(fresh: Lab) -> None:
    marks = [mark(attempt=f"a{number}") for number in range(1_200)]
    look(fresh, *marks)
    assert len(fresh.broker.orphans.find()) == 1_000


def test_a_start_shuts_what_is_in_use_before_any_agent_has_looked(fresh: Lab) -> None:
    fresh.report(card(0))
    assert [each.user for each in fresh.broker.orphans.note_marks("n1", [mark()])] == ["ada"]
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"
    # It only ever shuts: whether they are gone is for the agent to say.
    assert fresh.broker.orphans.note_marks("n1", []) == ()
    assert fresh.states()[0, "1g.5gb", 3] == "quarantined"
    fresh.broker.orphans.vouch([saved()])
    fresh.broker.orphans.note_marks("n1", [mark()])
    assert fresh.broker.orphans.find()[0].vouched


def test_a_thousand_claims_of_one_slice_hide_no_server_on_another(fresh: Lab) -> None:
    claims = [mark(attempt=f"a{number:04}") for number in range(1_000)]
    server = mark(replace(LEASE, attempt="z", start=4, slice_uuid="MIG-0-1g.5gb-4"))
    for _ in range(2):
        look(fresh, *claims, server)
        assert fresh.states()[0, "1g.5gb", 4] == "quarantined"
        assert fresh.states()[0, "1g.5gb", 5] == "free"
    look(fresh)
    assert fresh.states()[0, "1g.5gb", 4] == "free"
    # Also where a hub starts, before any agent has looked.
    fresh.broker.orphans.note_marks("n1", [*claims, server])
    assert fresh.states()[0, "1g.5gb", 4] == "quarantined"


def test_what_a_process_claims_is_named_as_its_claim_until_the_hub_says_the_same(
    fresh: Lab,
) -> None:
    look(fresh, mark())
    (why,) = {each.row.quarantined for each in fresh.broker.slices.find() if each.row.quarantined}
    assert "the default server of 'ada', as process 4242 itself reports." in why
    fresh.broker.orphans.vouch([saved()])
    (why,) = {each.row.quarantined for each in fresh.broker.slices.find() if each.row.quarantined}
    assert "of itself" not in why
    assert "process 4242" in why
