"""Who gets which slice: placement, tiers as people see them, quotas, silent nodes, quarantine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jupyterhub_migspawner.broker import views
from jupyterhub_migspawner.policy.people import Person
from tests.broker.lab import A30, MIXED, QUARTERS, SEVENTHS, Lab, card
from tests.broker.test_lease_life import refused


def offers(lab: Lab, user: str = "ada", groups: tuple[str, ...] = ()) -> dict[str, tuple[Any, ...]]:
    found = lab.broker.tiers.of(Person(user, frozenset(groups)))
    return {o.tier.name: (o.free, o.total, o.usable) for o in found}


def test_slices_are_taken_from_the_fullest_card_so_that_others_stay_whole(lab: Lab) -> None:
    leases = [lab.start(f"u{n}") for n in range(8)]
    assert [lease.card_uuid for lease in leases] == ["GPU-0"] * 7 + ["GPU-1"]
    assert len({lease.slice_uuid for lease in leases}) == 8
    lab.stop(leases[3])
    assert lab.start("again").slice_id == leases[3].slice_id


def test_tiers_show_what_is_free_and_what_there_is(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    lab.report(card(0), card(1, MIXED))
    assert offers(lab) == {
        "small": (8, 8, True),
        "medium": (1, 1, True),
        "card": (2, 2, False),
        "cpu": (0, 0, True),
    }
    lab.start("grace", "medium")
    assert offers(lab, groups=("vision",)) == {
        "small": (8, 8, True),
        "medium": (0, 1, False),
        "large": (1, 1, True),
        "card": (1, 2, False),
        "cpu": (0, 0, True),
    }


def test_an_unusable_tier_says_why(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(quotas={"user:linus": {"live": 0}})
    lab.report(card(0, [("1g.5gb", 0)]))
    lab.start("grace")
    why = {o.tier.name: o.why for o in lab.broker.tiers.of(Person("ada"))}
    assert why == {
        "small": (
            "No 1g.5gb slice is free for tier small: the only one is in use or out of service."
        ),
        "medium": "No 2g.10gb slice is free for tier medium: no card is cut into 2g.10gb now.",
        "card": "Tier 'card' needs approval: request it first.",
        "cpu": "",
    }
    mine = {o.tier.name: o.why for o in lab.broker.tiers.of(Person("linus"))}
    assert "0 GPU servers at a time" in mine["small"]
    assert mine["cpu"] == ""


def test_a_tier_of_another_group_cannot_be_taken(lab: Lab) -> None:
    lab.report(card(0, MIXED), card(1))
    assert "not open to you" in refused("not-allowed", lab.start, "ada", "large")
    assert lab.start("ada", "large", groups=["vision"]).profile == "3g.20gb"


@pytest.mark.parametrize("tier", ["", "tiny", None, 3, ["small"]])
def test_a_tier_that_does_not_exist_cannot_be_taken(lab: Lab, tier: Any) -> None:
    refused("options", lab.start, "ada", tier)
    assert lab.broker.leases.find() == ()


def test_a_full_tier_is_refused_with_what_is_free_instead(lab: Lab) -> None:
    lab.report(card(0, MIXED), card(1, MIXED))
    for n in range(2):
        lab.start(f"u{n}")
    assert refused("capacity", lab.start, "ada", "small") == (
        "No 1g.5gb slice is free for tier small: 2 of 2 are in use or out of service. "
        "Free now: medium (2), cpu."
    )
    assert "large (2)" in refused("capacity", lab.start, "ada", "small", groups=["vision"])


def test_a_node_can_be_asked_for(lab: Lab) -> None:
    lab.report(card(7), node="n2")
    assert lab.start("ada", node="n2").node == "n2"
    assert "on node 'n3'" in refused("capacity", lab.start, "grace", node="n3")
    assert lab.start("grace", node="n1").node == "n1"


def test_a_silent_node_gets_nothing_new_and_loses_nothing(lab: Lab) -> None:
    lab.report(card(7), node="n2")
    lease = lab.start("ada", node="n2")
    lab.broker.leases.activate(lease.attempt)
    lab.clock.pass_time(seconds=61)
    lab.report()
    assert offers(lab)["small"] == (14, 21, True)
    refused("capacity", lab.start, "grace", node="n2")
    assert lab.broker.leases.get(lease.id).state == "active"
    silent = [s for s in lab.broker.slices.find() if s.row.node == "n2" and not s.lease]
    assert {s.state for s in silent} == {"missing"}
    assert "n2 has not reported since Mon 23 Nov 2026 09:00 UTC" in silent[0].why
    lab.report(card(7), node="n2")
    assert lab.start("grace", node="n2").node == "n2"


def test_a_quarantined_slice_is_given_to_nobody_until_it_is_let_out(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab()
    lab.report(card(0, [("1g.5gb", 0)]))
    (status,) = lab.broker.slices.find()
    lab.broker.slices.quarantine(status.row.id, "process 42 cannot be ended", "agent")
    assert lab.states() == {(0, "1g.5gb", 0): "quarantined"}
    refused("capacity", lab.start)
    assert lab.broker.slices.quarantine(status.row.id, "process 42 cannot be ended", "agent")
    assert lab.kinds().count("slice.quarantined") == 1
    assert lab.broker.slices.unquarantine(status.row.id, "root").quarantined == ""
    lab.broker.slices.unquarantine(status.row.id, "root")
    assert lab.kinds().count("slice.unquarantined") == 1
    assert lab.start().slice_id == status.row.id


def test_a_lease_on_a_slice_that_is_quarantined_goes_on_and_the_slice_stays_shut(
    lab: Lab,
) -> None:
    lease = lab.start()
    lab.broker.slices.quarantine(lease.slice_id, "ECC errors", "root")
    assert lab.broker.leases.activate(lease.attempt) is not None
    lab.stop(lease)
    assert lab.states()[(0, "1g.5gb", 0)] == "quarantined"
    assert lab.start("grace").slice_id != lease.slice_id


def test_quarantine_needs_a_known_slice_and_a_reason(lab: Lab) -> None:
    row = lab.broker.slices.find()[0].row
    refused("not-found", lab.broker.slices.quarantine, 4711, "why", "root")
    refused("not-found", lab.broker.slices.unquarantine, 2**70, "root")
    refused("options", lab.broker.slices.quarantine, row.id, "  ", "root")
    refused("options", lab.broker.slices.quarantine, row.id, "x" * 2001, "root")


def test_a_drained_card_gets_nothing_new_until_it_is_resumed(lab: Lab) -> None:
    lease = lab.start()
    assert lab.broker.cards.drain("GPU-0", "fan noise", "root").state == "draining"
    lab.broker.cards.drain("GPU-0", "fan noise", "root")
    assert lab.states()[(0, "1g.5gb", 1)] == "draining"
    assert lab.start("grace").card_uuid == "GPU-1"
    lab.report(card(1))
    assert {c.uuid: c.state for c in lab.broker.cards.find()} == {"GPU-0": "lost", "GPU-1": "ok"}
    lab.report()
    assert {c.uuid: c.state for c in lab.broker.cards.find()} == {
        "GPU-0": "draining",
        "GPU-1": "ok",
    }
    lab.stop(lease)
    assert lab.broker.cards.resume("GPU-0", "root").state == "ok"
    lab.broker.cards.resume("GPU-0", "root")
    kinds = lab.kinds()
    assert (kinds.count("card.drained"), kinds.count("card.resumed")) == (1, 1)
    refused("not-found", lab.broker.cards.drain, "GPU-9", "why", "root")


def test_live_leases_count_against_the_quota_until_they_are_proven_empty(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(quotas={"default": {"live": 1}, "group:vision": {"live": 2}})
    lab.report()
    first = lab.start("ada", server="a")
    assert "1 GPU server at a time and you have 1" in refused("quota", lab.start, "ada", server="b")
    assert offers(lab)["small"][2] is False
    lab.start("ada", server="b", groups=["vision"])
    refused("quota", lab.start, "ada", server="c", groups=["vision"])
    lab.broker.leases.activate(first.attempt)
    lab.broker.leases.release(first.id, "over", "ada")
    refused("quota", lab.start, "ada", server="c", groups=["vision"])
    lab.broker.leases.confirm_empty(first.id)
    lab.start("ada", server="c", groups=["vision"])
    lab.start("grace")


def test_restarting_the_same_server_waits_for_what_it_has_left(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(quotas={"default": {"live": 1}})
    lab.report()
    old = lab.start("ada")
    refused("quota", lab.start, "ada")
    assert lab.broker.leases.get(old.id).state == "releasing"
    lab.broker.leases.confirm_empty(old.id)
    assert lab.start("ada").state == "pending"


def test_gpu_hours_are_weighted_count_until_now_and_free_with_time(
    make_lab: Callable[..., Lab],
) -> None:
    lab = make_lab(
        tiers=[
            {"name": "seventh", "profile": "1g.5gb"},
            {"name": "quarter", "profile": "1g.6gb"},
        ],
        quotas={"default": {"gpu_hours_per_week": 3}},
    )
    cards = (card(0), card(1, QUARTERS, profiles=A30))
    lab.report(*cards)
    seventh, quarter = lab.start("ada", "seventh", "a"), lab.start("ada", "quarter", "b")
    assert (seventh.share, quarter.share) == (pytest.approx(1 / 7), 0.25)
    lab.clock.pass_time(hours=7)
    lab.report(*cards)
    # One hour and one and three quarters so far.
    lab.stop(quarter)
    lab.start("ada", "seventh", "c")
    lab.clock.pass_time(hours=1)
    lab.report(*cards)
    # Two sevenths more: 3.04 in all.
    assert "allows 3 GPU-hours in 7 days and you have used 3.04" in refused(
        "quota", lab.start, "ada", "seventh", "d"
    )
    lab.start("grace", "seventh")
    for lease in lab.broker.leases.find(user="ada"):
        lab.stop(lease)
    lab.clock.pass_time(days=6, hours=17)
    lab.report(*cards)
    assert lab.start("ada", "seventh").state == "pending"


def test_use_of_long_ago_is_forgotten(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab(quotas={"default": {"gpu_hours_per_month": 1}})
    lab.report()
    lease = lab.start("ada")
    lab.clock.pass_time(hours=10)
    lab.stop(lease)
    lab.report()
    assert "in 30 days" in refused("quota", lab.start, "ada")
    lab.clock.pass_time(days=31)
    lab.report()
    lab.start("ada")


def test_listings_tell_others_only_that_a_slice_is_taken(lab: Lab) -> None:
    lab.start("ada", server="exp")
    taken = next(s for s in lab.broker.slices.find() if s.lease)
    own = views.slice_view(taken, Person("ada"))
    assert own["lease"] == {
        "id": 1,
        "user": "ada",
        "server": "exp",
        "tier": "small",
        "since": "2026-11-23T09:00:00Z",
        "isolation": "",
    }
    assert own["leases"] == [{**own["lease"], "seat": 0}]
    assert views.slice_view(taken, Person("grace"))["lease"] is None
    assert views.slice_view(taken, Person("grace"))["leases"] == []
    assert views.slice_view(taken, Person("grace"))["state"] == "leased"
    assert views.slice_view(taken, Person("root", admin=True)) == own
    assert views.slice_view(taken) == own
    assert {"uuid", "node", "card_uuid", "card_index", "profile", "start", "size"} <= set(own)
    assert {"memory_mib", "state", "lease"} <= set(own)


def test_views_hold_only_what_json_can(make_lab: Callable[..., Lab]) -> None:
    import json

    lab = make_lab()
    lab.report(card(0, SEVENTHS))
    grant = lab.grant("boss")
    lab.start("boss", "card")
    json.dumps(
        [
            [views.lease_view(lease) for lease in lab.broker.leases.find()],
            [views.request_view(grant)],
            [views.tier_view(offer) for offer in lab.broker.tiers.of(Person("boss"))],
            [views.node_view(node) for node in lab.broker.nodes.find()],
            [views.card_view(c) for c in lab.broker.cards.find()],
            [views.event_view(event) for event in lab.broker.events.find()],
        ]
    )
    (view,) = (views.card_view(c) for c in lab.broker.cards.find())
    assert view["target"] == [{"profile": "7g.40gb", "start": 0}]
    lease = views.lease_view(lab.broker.leases.find()[0])
    assert {"id", "user", "server", "tier", "state", "slice_uuid", "since", "ends_at"} <= set(lease)
    assert (lease["since"], lease["ends_at"]) == ("2026-11-23T09:00:00Z", "2026-11-23T19:00:00Z")
    assert {"id", "user", "tier", "hours", "reason", "state", "decided_by", "valid_until"} <= set(
        views.request_view(grant)
    )
    offer = next(o for o in lab.broker.tiers.of(Person("boss")) if o.tier.name == "card")
    assert {"name", "title", "description", "profile", "free", "total", "usable", "why"} <= set(
        views.tier_view(offer)
    )
